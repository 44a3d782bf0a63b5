"""A model's quantized weights while they are being made: per matrix a dense part and the positions kept in 16 bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from requant.decompose.selection import Positions
from requant.quantizers import DenseWeight
from requant_kernels.formats import SparseWeight
from requant_kernels.linear import DenseSparseLinear


def no_positions(names: Mapping[str, object]) -> Positions:
    """An empty set of positions for every matrix."""
    return {name: torch.empty(0, dtype=torch.int64) for name in names}


def position_mask(positions: Tensor, shape: torch.Size) -> Tensor:
    """bool of `shape`, true at flat positions int64."""
    mask = torch.zeros(shape.numel(), dtype=torch.bool)
    mask[positions] = True
    return mask.view(shape)


@dataclass(frozen=True, eq=False)
class Decomposition:
    """W = D + S of every matrix. S holds, at the kept positions, the residual w - D rounded to `values_dtype`."""

    original: Callable[[str], Tensor]
    """fp32 [out, in] by matrix name."""
    dense: Mapping[str, DenseWeight]
    outliers: Positions
    significant: Positions
    values_dtype: torch.dtype

    def with_significant(self, significant: Positions) -> Decomposition:
        """The same with other significant weights."""
        return replace(self, significant=significant)

    def weight(self, name: str) -> Tensor:
        """fp32 [out, in]: D + S as the kernels see it, rounded values included."""
        weight = self.dense[name].dequantize()
        flat = weight.view(-1)
        for positions in (self.outliers[name], self.significant[name]):
            kept = positions.to(flat.device)
            dense_values = flat[kept]
            residual = self.original(name).view(-1)[kept] - dense_values
            flat[kept] = dense_values + residual.to(self.values_dtype).float()
        return weight

    def layer(self, name: str, bias: Tensor | None) -> DenseSparseLinear:
        """The finished layer; both kinds of kept weights in one sparse part."""
        dense, original = self.dense[name], self.original(name)
        outliers, significant = self.outliers[name], self.significant[name]
        sparse = None
        if outliers.numel() + significant.numel():
            mask = position_mask(torch.cat((outliers, significant)), original.shape).to(original.device)
            sparse = SparseWeight.from_dense(original - dense.dequantize(), mask, self.values_dtype)
        return DenseSparseLinear(dense, sparse, bias, outliers=outliers.numel(), significant=significant.numel())
