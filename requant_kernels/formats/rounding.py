"""The plain ways to make a dense weight: round to the nearest level, with no calibration.

Every function takes weight fp32 [out, in] and an optional `keep_mask` bool [out, in] of positions that will live in the
sparse part. Kept positions do not widen a group's range or pull a table: they are left out when levels are chosen. They
still get a code, the nearest one, because the sparse part stores the residual to whatever the dense part holds there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from requant_kernels.formats import tile16
from requant_kernels.formats.lut import LutWeight
from requant_kernels.formats.storage import check
from requant_kernels.formats.uniform import UniformWeight

# QLoRA (arXiv 2305.14314), appendix E: quantiles of a normal distribution with an exact zero.
NF4 = (
    -1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0,
    0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0,
)  # fmt: skip
# Sign, two exponent bits, one mantissa bit, scaled to 1 (bitsandbytes' FP4).
_FP4_HALF = (0.0, 0.0052083, 0.1666667, 0.25, 0.3333333, 0.5, 0.6666667, 1.0)
FP4 = (*(-value for value in reversed(_FP4_HALF)), *_FP4_HALF)
SHARED_TABLES = {"nf4": NF4, "fp4": FP4}

SMALLEST_RANGE = 1e-5
"""A group of equal weights still needs a scale that is not zero."""


def round_uniform(
    weight: Tensor,
    *,
    bits: int,
    group_size: int,
    symmetric: bool = False,
    keep_mask: Tensor | None = None,
    scale_dtype: torch.dtype = torch.bfloat16,
) -> UniformWeight:
    """Round-to-nearest: scale = (max - min) / (2^bits - 1) and zero = round(-min / scale) per group of a row, or, if
    symmetric, scale = max|w| / 2^(bits - 1) without a zero. Codes are chosen against the stored (rounded) scale.
    """
    grouped, inside = _grouped(weight, group_size, keep_mask)
    levels = 2**bits - 1
    if symmetric:
        largest = grouped.abs().masked_fill(~inside, 0).amax(-1)
        scale = (largest / 2 ** (bits - 1)).clamp_min(SMALLEST_RANGE / levels)
    else:
        # Zero is always in range: a zero point that must be a code could not express a range on one side of it.
        low = grouped.masked_fill(~inside, 0).amin(-1).clamp_max(0)
        high = grouped.masked_fill(~inside, 0).amax(-1).clamp_min(0)
        scale = (high - low).clamp_min(SMALLEST_RANGE) / levels
    stored = scale.to(scale_dtype)
    scale = stored.float()
    zero = None if symmetric else (-low / scale).round().clamp(0, levels).to(scale_dtype)
    offset = 2.0 ** (bits - 1) if zero is None else zero.float().unsqueeze(-1)
    codes = (grouped / scale.unsqueeze(-1)).add_(offset).round_().clamp_(0, levels).to(torch.uint8)
    return UniformWeight.pack(codes.flatten(1)[:, : weight.shape[1]], stored, zero, bits=bits, group_size=group_size)


def round_to_quantiles(
    weight: Tensor, *, bits: int, keep_mask: Tensor | None = None, table_dtype: torch.dtype = torch.bfloat16
) -> LutWeight:
    """A table per row at evenly spaced quantiles of the row's weights; codes are the nearest stored entry."""
    entries = 2**bits
    ordered = (weight if keep_mask is None else weight.masked_fill(keep_mask, torch.inf)).sort(dim=1).values
    counts = ordered.isfinite().sum(1, keepdim=True)
    middle = (torch.arange(entries, device=weight.device) + 0.5) / entries
    positions = (middle * counts).long().clamp_max(weight.shape[1] - 1)
    table = ordered.gather(1, positions).nan_to_num_(0.0, 0.0, 0.0).to(table_dtype)
    return LutWeight.pack(nearest_codes(weight, table.float()), table, bits=bits)


def round_to_shared_table(
    weight: Tensor,
    *,
    table: str,
    group_size: int,
    keep_mask: Tensor | None = None,
    dtype: torch.dtype = torch.bfloat16,
) -> LutWeight:
    """NF4 or FP4: one table for the matrix, scaled per group of a row by the group's largest |w|."""
    check("table", table, SHARED_TABLES)
    values = torch.tensor([SHARED_TABLES[table]], device=weight.device).to(dtype)
    grouped, inside = _grouped(weight, group_size, keep_mask)
    scale = grouped.abs().masked_fill(~inside, 0).amax(-1).clamp_min(SMALLEST_RANGE).to(dtype)
    normalised = (grouped / scale.float().unsqueeze(-1)).flatten(1)[:, : weight.shape[1]]
    codes = nearest_codes(normalised, values.float().expand(weight.shape[0], -1))
    return LutWeight.pack(codes, values, scale, bits=4, group_size=group_size)


def nearest_codes(weight: Tensor, table: Tensor) -> Tensor:
    """uint8 [out, in]: index of the nearest entry of an ascending table [out, entries], ties to the lower one."""
    boundaries = ((table[:, 1:] + table[:, :-1]) / 2).contiguous()
    return torch.searchsorted(boundaries, weight.contiguous()).to(torch.uint8)


def _grouped(weight: Tensor, group_size: int, keep_mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """(weight, which positions count) as [out, groups, group length]; a short last group is filled up with zeros that
    do not count.
    """
    out_features, in_features = weight.shape
    length = in_features if group_size == -1 else group_size
    groups = tile16.group_count(in_features, group_size)
    filled = weight.new_zeros((out_features, groups * length))
    filled[:, :in_features] = weight
    inside = torch.zeros_like(filled, dtype=torch.bool)
    inside[:, :in_features] = True if keep_mask is None else ~keep_mask
    return filled.view(out_features, groups, length), inside.view(out_features, groups, length)
