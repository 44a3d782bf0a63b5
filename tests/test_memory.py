"""Weights lie where kernels want them, and nobody else notices."""

import copy
import io
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from requant_kernels import DenseSparseLinear, memory
from requant_kernels.memory import ALIGNMENT_BYTES, LEAST_PAGES, PAGE_BYTES, place

LARGE = LEAST_PAGES * PAGE_BYTES


def misaligned(size_bytes: int) -> torch.Tensor:
    raw = torch.randint(256, (size_bytes + ALIGNMENT_BYTES,), dtype=torch.uint8)
    start = next(i for i in range(1, ALIGNMENT_BYTES) if (raw.data_ptr() + i) % ALIGNMENT_BYTES)
    return raw[start : start + size_bytes]


@pytest.mark.parametrize(
    ("size_bytes", "alignment"),
    [(100, ALIGNMENT_BYTES), (LARGE - 1, ALIGNMENT_BYTES), (LARGE, PAGE_BYTES), (LARGE + 4097, PAGE_BYTES)],
)
def test_the_content_is_the_same_at_an_aligned_address(size_bytes, alignment):
    tensor = misaligned(size_bytes)
    placed = place(tensor)
    assert placed.data_ptr() % alignment == 0
    assert torch.equal(placed, tensor)
    assert placed.untyped_storage().nbytes() == size_bytes
    assert place(placed) is placed


def test_strides_and_the_empty_and_the_absent_are_handled():
    tensor = torch.randint(256, (2048, 2 * LARGE // 2048), dtype=torch.uint8)
    placed = place(tensor.t())
    assert placed.is_contiguous()
    assert torch.equal(placed, tensor.t())
    assert place(torch.empty(0, 5)).shape == (0, 5)
    assert place(torch.empty(LARGE, dtype=torch.uint8, device="meta")).is_meta


@pytest.mark.parametrize("refusal", ["an older kernel", "another system"])
def test_systems_without_large_pages_get_ordinary_ones(monkeypatch, refusal):
    class Memory(memory.mmap.mmap):
        def madvise(self, *_):
            raise OSError("madvise")

    if refusal == "another system":
        monkeypatch.delattr(memory.mmap, "MADV_HUGEPAGE")
    else:
        monkeypatch.setattr(memory.mmap, "mmap", Memory)
    tensor = misaligned(LARGE)
    placed = place(tensor)
    assert torch.equal(placed, tensor)
    assert placed.data_ptr() % ALIGNMENT_BYTES == 0


def test_a_large_layer_is_copied_saved_and_moved_as_any_other(tmp_path: Path):
    layer = DenseSparseLinear.from_linear(nn.Linear(2048, 4096, bias=False), sparse_percent=0)
    assert layer.codes.nbytes == LARGE
    assert layer.codes.data_ptr() % PAGE_BYTES == 0
    x = torch.randn(1, 2048)
    y = layer(x)
    assert torch.equal(copy.deepcopy(layer)(x), y)
    assert layer.to(torch.bfloat16).codes.data_ptr() % PAGE_BYTES == 0
    file = tmp_path / "layer.safetensors"
    save_file(layer.state_dict(), file)
    assert file.stat().st_size < layer.stored_bytes + 1000
    assert torch.equal(load_file(file)["codes"], layer.codes)
    stream = io.BytesIO()
    torch.save(layer.state_dict(), stream)
    assert len(stream.getvalue()) < layer.stored_bytes + 5000
    loaded = DenseSparseLinear.from_spec(layer.spec)
    loaded.load_state_dict(load_file(file))
    assert loaded.codes.data_ptr() % PAGE_BYTES == 0
    assert torch.equal(loaded(x), y)
    assert torch.equal(layer.share_memory()(x), y)
