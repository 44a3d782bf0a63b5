"""The reference backend: dequantize, then a plain matrix product in torch. Slow, on every device, and always right.

Every other kernel is tested against it.

`second` and `third` are (scale, zero) of `uniform` and (table, scale) of `lut`.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from requant_kernels.dispatch import Backend
from requant_kernels.formats import LutWeight, SparseWeight, UniformWeight


def dequantize(
    dense_format: type[UniformWeight] | type[LutWeight],
    codes: Tensor,
    second: Tensor,
    third: Tensor | None,
    row_offsets: Tensor | None,
    columns: Tensor | None,
    values: Tensor | None,
    out_features: int,
    in_features: int,
    bits: int,
    group_size: int,
    dtype: torch.dtype,
) -> Tensor:
    """W = D + S in `dtype`, [out_features, in_features]."""
    weight = dense_format(codes, second, third, out_features, in_features, bits, group_size).dequantize()
    if row_offsets is not None and columns is not None and values is not None:
        weight += SparseWeight(row_offsets, columns, values, in_features).to_dense()
    return weight.to(dtype)


def linear(
    dense_format: type[UniformWeight] | type[LutWeight],
    x: Tensor,
    codes: Tensor,
    second: Tensor,
    third: Tensor | None,
    row_offsets: Tensor | None,
    columns: Tensor | None,
    values: Tensor | None,
    sparse_index: Tensor | None,
    bias: Tensor | None,
    out_features: int,
    bits: int,
    group_size: int,
    activations: str,
) -> Tensor:
    """y = x @ (D + S).T + bias in fp32, rounded to x's dtype, [tokens, out_features]."""
    dense_and_sparse = (codes, second, third, row_offsets, columns, values)
    weight = dequantize(dense_format, *dense_and_sparse, out_features, x.shape[1], bits, group_size, torch.float32)
    y = x.float() @ weight.T
    if bias is not None:
        y += bias.float()
    return y.to(x.dtype)


BACKEND = Backend(
    name="reference",
    unavailable_reason=None,
    kernels={
        (dense_format.format, phase): partial(kernel, dense_format)
        for dense_format in (UniformWeight, LutWeight)
        for phase, kernel in (("linear", linear), ("dequantize", dequantize))
    },
)
