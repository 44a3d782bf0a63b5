"""Tables show every row and mark what is missing; bits are weighted by the layers' sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
from requant.report import checkpoint_contents, model_bits, table
from rich.console import Console
from tiny_model import make_model, quantize_quickly

from requant_kernels import DenseSparseLinear
from requant_kernels.checkpoint import validate_structure


def test_a_missing_value_shows_as_a_dash() -> None:
    rows = [{"name": "a", "size": 2}, {"name": "b"}]
    console = Console(width=80)
    with console.capture() as capture:
        console.print(table("title", [("name", "name", ""), ("size", "size", ".1f")], rows))
    words = [line.split() for line in capture.get().splitlines()]
    assert ["title"] in words
    assert ["a", "2.0"] in words
    assert ["b", "-"] in words


def test_bits_of_a_model_agree_with_its_checkpoint(tiny_checkpoint: Path) -> None:
    model = quantize_quickly(make_model())
    paper_bits, true_bits = model_bits(model)
    total = checkpoint_contents(validate_structure(tiny_checkpoint))["total"]
    assert (total["paper_bits"], total["true_bits"]) == (pytest.approx(paper_bits), pytest.approx(true_bits))
    layers = [layer for layer in model.modules() if isinstance(layer, DenseSparseLinear)]
    assert total["quantized_bytes"] == sum(layer.stored_bytes for layer in layers)
    assert total["tensor_bytes"] == total["quantized_bytes"] + total["other_bytes"]
    assert model_bits(make_model()) == (16, 16)


def test_brackets_in_cells_are_text() -> None:
    """Rich would take them for markup."""
    console = Console(width=80)
    with console.capture() as capture:
        console.print(table("title", [("name", "name", "")], [{"name": "requant-kernels[triton]"}]))
    assert "requant-kernels[triton]" in capture.get()
