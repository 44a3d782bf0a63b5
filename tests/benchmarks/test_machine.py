"""Facts of the machine."""

from __future__ import annotations

import machine
import pytest
import torch


@pytest.mark.parametrize(("text", "size"), [("48K", 49152), ("107520K\n", 110100480), ("2M", 2097152), ("64", 64)])
def test_sizes(text: str, size: int) -> None:
    assert machine.parse_size(text) == size


def test_peak_memory_sees_what_was_freed() -> None:
    machine.reset_peak_memory()
    before = machine.memory_bytes("VmRSS")
    torch.ones(64 << 20, dtype=torch.uint8)
    peak = machine.memory_bytes("VmHWM") - before
    assert peak == 0 or peak > 32 << 20


def test_description_has_versions() -> None:
    facts = machine.describe(threads=3)
    assert facts["threads"] == 3
    assert facts["versions"]["torch"] == torch.__version__
    assert "onnxruntime" in facts["versions"]
