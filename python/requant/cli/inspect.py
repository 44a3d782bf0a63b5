"""`requant inspect`: what a quantized model consists of, layer by layer, read from its headers alone."""

from __future__ import annotations

from requant.cli.options import Json, QuantizedModel


def inspect(model: QuantizedModel, json: Json = None) -> None:
    """Show format, bits, sparse density and bytes of every quantized layer, and the totals."""
    from requant.cli.session import check_json_target, emit
    from requant.models import check_source
    from requant.report import checkpoint_contents, contents_table
    from requant_kernels.checkpoint import validate_structure

    check_json_target(json)
    contents = checkpoint_contents(validate_structure(check_source(model)))
    emit(contents, json, lambda: contents_table(contents))
