"""The sparse index of the GPU backends: the entries of CSR, sorted by the tile of 16 rows and the slice of 256 inputs
that they fall into, so that whoever works on a slice of a tile finds its entries side by side.

One int32 tensor of uint32 words:

    offsets [tiles * slices + 1] | entries [nnz]         entries of (tile, slice): offsets[k] ..< offsets[k + 1],
                                                         k = tile * slices + slice, counted from the first entry

    entry    bit 31             16 15       12 11             0
                 16-bit value     | row in tile | input & 4095        sorted by (input, row)

An input's place in its slice is its last 8 bits; the other 4 serve a kernel that takes several slices at once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from requant_kernels.formats.sparse import SparseWeight
from requant_kernels.formats.tile16 import TILE_ROWS

SLICE_INPUTS = 256
ENTRY_INPUTS = 4096
"""An entry knows its input modulo this."""

INDEX_DTYPE = torch.int32
"""Of the index: tells it from the CPU backend's."""


def slice_count(in_features: int) -> int:
    """Slices of a row; the last one may be short."""
    return -(-in_features // SLICE_INPUTS)


def offset_count(out_features: int, in_features: int) -> int:
    """How many words stand before the first entry."""
    return -(-out_features // TILE_ROWS) * slice_count(in_features) + 1


def prepare_sparse(row_offsets: Tensor, columns: Tensor, values: Tensor, out_features: int, in_features: int) -> Tensor:
    """The sparse index, int32 [offset_count + nnz], on the device of CSR: `row_offsets` int32 [out_features + 1],
    `columns` uint16 or int32 [nnz], `values` fp16 or bf16 [nnz].

    Raises ValueError for what is no valid CSR of this shape.
    """
    sparse = SparseWeight(row_offsets, columns, values, in_features)
    if sparse.out_features != out_features:
        raise ValueError(f"row_offsets must be {out_features + 1} numbers, got {row_offsets.numel()}")
    sparse.validate()
    rows, inputs = sparse.rows_and_columns()
    slices = rows // TILE_ROWS * slice_count(in_features) + inputs // SLICE_INPUTS
    in_slice = inputs % SLICE_INPUTS * TILE_ROWS + rows % TILE_ROWS
    order = (slices * (SLICE_INPUTS * TILE_ROWS) + in_slice).argsort()
    counts = torch.bincount(slices, minlength=offset_count(out_features, in_features) - 1)
    low_half = rows % TILE_ROWS * ENTRY_INPUTS + inputs % ENTRY_INPUTS
    entries = values.view(torch.int16).int()[order] << 16 | low_half.int()[order]
    return torch.cat((counts.new_zeros(1), counts.cumsum(0), entries)).to(INDEX_DTYPE)
