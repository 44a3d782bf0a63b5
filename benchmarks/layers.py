"""Random layers for benchmarks: the same packed bytes as real ones, made without packing."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from requant_kernels import DenseSparseLinear
from requant_kernels.formats import DenseWeight, LutWeight, SparseWeight, UniformWeight, tile16

ROTATED_BYTES = 256 << 20
"""Weights are rotated over copies that together exceed any last-level cache."""


def random_layer(
    format: str, bits: int, sparse_percent: float, out_features: int, in_features: int, group_size: int = 128
) -> DenseSparseLinear:
    """Random codes with plausible scales (uniform) or tables per row (lut), and random sparse entries."""
    codes = torch.randint(-(2**31), 2**31, tile16.packed_shape(out_features, in_features, bits), dtype=torch.int32)
    dense: DenseWeight
    if format == "uniform":
        scale = torch.rand(codes.shape[0], tile16.group_count(in_features, group_size) * 16).to(torch.bfloat16)
        dense = UniformWeight(codes, scale, None, out_features, in_features, bits, group_size)
    else:
        table = torch.randn(codes.shape[0] * 16, 2**bits).to(torch.bfloat16)
        dense = LutWeight(codes, table, None, out_features, in_features, bits, -1)
    if not sparse_percent:
        return DenseSparseLinear(dense)
    mask = torch.rand(out_features, in_features) < sparse_percent / 100
    return DenseSparseLinear(dense, SparseWeight.from_dense(torch.randn(out_features, in_features), mask))


class Rotation:
    """Calls copies of a module in turn, so that each call reads its weights from memory."""

    def __init__(self, module: nn.Module, weight_bytes: int) -> None:
        self._modules = [module, *(copy.deepcopy(module) for _ in range(ROTATED_BYTES // weight_bytes))]
        self._next = 0

    def __call__(self, x: Tensor) -> Tensor:
        self._next = (self._next + 1) % len(self._modules)
        return self._modules[self._next](x)


def rotated_layer(
    format: str, bits: int, sparse_percent: float, out_features: int, in_features: int, group_size: int = 128
) -> Rotation:
    """A rotation over a quantized layer."""
    layer = random_layer(format, bits, sparse_percent, out_features, in_features, group_size)
    return Rotation(layer, layer.stored_bytes)


def rotated_torch(out_features: int, in_features: int, dtype: torch.dtype) -> Rotation:
    """A rotation over torch's nn.Linear."""
    layer = nn.Linear(in_features, out_features, bias=False, dtype=dtype)
    return Rotation(layer, layer.weight.nbytes)
