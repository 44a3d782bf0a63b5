"""The reference backend: dequantize, then a plain matrix product in torch. Slow, on every device, and always right.

Every other kernel is tested against it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from requant_kernels.dispatch import Backend
from requant_kernels.formats import DENSE_FORMATS
from requant_kernels.formats.activations import ROUNDED_FORMATS, round_activations
from requant_kernels.formats.tile16 import TILE_ROWS
from requant_kernels.operands import WeightOperands


def dequantize(weight: WeightOperands, dtype: torch.dtype) -> Tensor:
    """W = D + S in `dtype`, [out_features, in_features]."""
    dense, sparse = weight.dense_weight.dequantize(), weight.sparse_weight
    if sparse is not None:
        dense += sparse.to_dense()
    return dense.to(dtype)


def linear(x: Tensor, weight: WeightOperands, bias: Tensor | None, activations: str) -> Tensor:
    """y = x @ (D + S).T + bias in fp32, rounded to x's dtype, [..., out_features].

    With activations "int8", D of the ROUNDED_FORMATS is multiplied with x rounded, and S with x as it is.
    """
    if activations == "int8" and weight.format in ROUNDED_FORMATS:
        y = _rounded_linear(x, weight)
    else:
        y = x.float() @ dequantize(weight, torch.float32).T
    if bias is not None:
        y += bias.float()
    return y.to(x.dtype)


def _rounded_linear(x: Tensor, weight: WeightOperands) -> Tensor:
    _, group_size = weight.parameters
    y = round_activations(x, group_size) @ weight.dense_weight.dequantize().T
    sparse = weight.sparse_weight
    return y if sparse is None else y + x.float() @ sparse.to_dense().T


def embedding(indices: Tensor, weight: WeightOperands, dtype: torch.dtype) -> Tensor:
    """Rows of W in `dtype`, [tokens, in_features]; whole tiles are dequantized for them."""
    tiles = indices // TILE_ROWS
    dense = tuple(None if tensor is None else tensor[tiles] for tensor in weight.dense)
    rows = weight._replace(dense=dense, out_features=tiles.numel() * TILE_ROWS).dense_weight.dequantize()
    return rows.view(-1, TILE_ROWS, weight.in_features)[
        torch.arange(tiles.numel(), device=tiles.device), indices % TILE_ROWS
    ].to(dtype)


BACKEND = Backend(
    name="reference",
    unavailable_reason=None,
    kernels={
        **{
            (format, phase): kernel
            for format in DENSE_FORMATS
            for phase, kernel in (("linear", linear), ("dequantize", dequantize))
        },
        ("uniform", "embedding"): embedding,
    },
)
