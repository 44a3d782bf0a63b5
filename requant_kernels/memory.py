"""Where weights lie in memory: at the start of a cache line, and large ones in pages of 2 MB where the system has them.

A kernel streams a large weight once per token. In pages of 4 KB it crosses into another page every 64 cache lines, and
looks up where that is; pages of 2 MB save nearly all of these look-ups.

    mapping   |....|  page of 2 MB  |  page of 2 MB  |  4 KB pages  |....|
                   ^ first byte of the tensor                  ^ last one

The tensor's storage is exactly as long as the tensor, so copies and files of it are no larger than without this.
"""

from __future__ import annotations

import contextlib
import mmap

import torch
from torch import Tensor

ALIGNMENT_BYTES = 64
"""Kernels load whole cache lines; a tensor that was read from a file may start anywhere."""

PAGE_BYTES = 2 << 20
LEAST_PAGES = 2
"""A tensor that does not fill so many pages stays where it is."""


def place(tensor: Tensor) -> Tensor:
    """The same content at a good address: `tensor` itself if it already is contiguous and well placed."""
    tensor = tensor.contiguous()
    if tensor.is_meta or tensor.numel() == 0:
        return tensor
    if _wants_large_pages(tensor):
        return tensor if tensor.data_ptr() % PAGE_BYTES == 0 else _in_large_pages(tensor)
    return tensor.clone() if tensor.data_ptr() % ALIGNMENT_BYTES else tensor


def _wants_large_pages(tensor: Tensor) -> bool:
    return (
        tensor.device.type == "cpu"
        and tensor.nbytes >= LEAST_PAGES * PAGE_BYTES
        and hasattr(mmap, "MADV_HUGEPAGE")  # Linux
        and not tensor.is_shared()
    )


def _in_large_pages(tensor: Tensor) -> Tensor:
    """A copy in memory of its own, for which the system is asked, not forced, to use large pages."""
    memory = mmap.mmap(-1, tensor.nbytes + PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    begin = -torch.frombuffer(memory, dtype=torch.uint8).data_ptr() % PAGE_BYTES
    with contextlib.suppress(OSError):  # of a kernel without large pages
        memory.madvise(mmap.MADV_HUGEPAGE, begin, tensor.nbytes // PAGE_BYTES * PAGE_BYTES)
    copy = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=begin)
    return copy.view(tensor.shape).copy_(tensor)
