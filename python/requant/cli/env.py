"""`requant env`: what this machine has, which backends are live, and why the others are not."""

from __future__ import annotations

from requant.cli.options import Json


def env(json: Json = None) -> None:
    """Show versions, CPU features, GPUs and backends."""
    from requant.cli.session import check_json_target, emit
    from requant.report import environment_table
    from requant_kernels.env import report

    check_json_target(json)
    environment = report()
    emit(environment, json, lambda: environment_table(environment))
