"""Random weights D + S of every kind and shape, for the tests of kernels."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from requant_kernels.formats import DenseWeight, LutWeight, SparseWeight, UniformWeight, tile16
from requant_kernels.operands import WeightOperands

FORMATS = [("uniform", 2), ("uniform", 3), ("uniform", 4), ("uniform", 8), ("lut", 2), ("lut", 3), ("lut", 4)]
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
GROUP_SIZES = (32, 64, 96, 128, -1)
SPARSE = ("none", "half_percent", "empty_rows", "full_row", "full_column", "no_entries")


@dataclass
class Case:
    """W = D + S."""

    dense: DenseWeight
    sparse: SparseWeight | None

    @property
    def reference(self) -> Tensor:
        """W in float64."""
        weight = self.dense.dequantize().double()
        return weight if self.sparse is None else weight + self.sparse.to_dense().double()

    def operands(self, sparse_index: Tensor | None = None) -> WeightOperands:
        """What kernels are given; without an index they make one."""
        dense, sparse = self.dense, self.sparse
        tensors = (dense.scale, dense.zero) if isinstance(dense, UniformWeight) else (dense.table, dense.scale)
        entries = (None,) * 3 if sparse is None else (sparse.row_offsets, sparse.columns, sparse.values)
        sizes, parameters = (dense.out_features, dense.in_features), (dense.bits, dense.group_size)
        return WeightOperands(dense.format, (dense.codes, *tensors), *entries, sparse_index, *sizes, parameters)


def make_dense(
    pick: random.Random,
    format: str,
    bits: int,
    out_features: int,
    in_features: int,
    *,
    group_size: int | None = None,
    variant: bool | None = None,
) -> DenseWeight:
    """Random codes and scales of random dtypes. `variant`: with zeros (uniform), a shared table (lut)."""
    codes = torch.randint(0, 2**bits, (out_features, in_features), dtype=torch.uint8)
    group_size, dtype = group_size or pick.choice(GROUP_SIZES), pick.choice(DTYPES)
    groups = tile16.group_count(in_features, group_size)
    scale = (torch.rand(out_features, groups) + 0.5).to(dtype)
    variant = pick.random() < 0.4 if variant is None else variant
    if format == "uniform":
        zero = (torch.rand(out_features, groups) * 2**bits).to(dtype) if variant else None
        return UniformWeight.pack(codes, scale, zero, bits=bits, group_size=group_size)
    table_dtype = pick.choice(DTYPES)
    if variant:
        return LutWeight.pack(codes, torch.randn(1, 2**bits).to(table_dtype), scale, bits=bits, group_size=group_size)
    return LutWeight.pack(codes, torch.randn(out_features, 2**bits).to(table_dtype), bits=bits)


def make_sparse(pick: random.Random, kind: str, out_features: int, in_features: int) -> SparseWeight | None:
    """Entries as one of SPARSE says, of a random dtype."""
    mask = torch.rand(out_features, in_features) < 0.005
    if kind == "none":
        return None
    if kind == "no_entries":
        mask[:] = False
    if kind == "empty_rows":
        mask[::2] = False
        mask[1::2, ::7] = True
    if kind == "full_row":
        mask[pick.randrange(out_features)] = True
    if kind == "full_column":
        mask[:, pick.randrange(in_features)] = True
    values_dtype = pick.choice((torch.float16, torch.bfloat16))
    return SparseWeight.from_dense(3 * torch.randn(out_features, in_features), mask, values_dtype)


def relative_error(y: Tensor, reference: Tensor) -> float:
    """||y - reference|| / ||reference||, the largest over tokens."""
    return float(((y.double() - reference).norm(dim=1) / reference.norm(dim=1)).max())
