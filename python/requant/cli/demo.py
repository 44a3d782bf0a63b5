"""`requant demo`: the quick tour."""

from __future__ import annotations

from typing import Annotated

import typer

from requant.cli.options import Json


def demo(
    model: Annotated[
        str | None, typer.Option(metavar="DIR", help="A model of yours. (default SmolLM2-135M-Instruct, fetched once)")
    ] = None,
    json: Json = None,
) -> None:
    """Quantize a small model to 3 bits in three ways, compare size, quality and speed, and let each one talk."""
    from requant.cli.session import check_json_target, console, emit, quiet_libraries
    from requant.demo import demo_view, run_demo
    from requant.progress import RichProgress

    check_json_target(json)
    quiet_libraries()
    outcome = run_demo(model, progress=RichProgress(console(stderr=True)))
    emit(outcome, json, lambda: demo_view(outcome))
    if not outcome["order_is_right"]:
        raise typer.Exit(1)
