"""Inputs rounded to 8 bits, as `activations="int8"` asks for: dynamically, symmetrically, by token and *section*.

A section is up to 128 consecutive inputs of one group of the weight, counted from the group's first:

    group_size 96    |  group 0  |  group 1  |  group 2  | ...      group_size 160   |      group 0      |  group 1  ...
    sections         |     0     |     1     |     2     | ...      sections         |       0       | 1 |      2    ...

So each product of a section has one scale of x and one of the weights, and what is left to sum are integers. This is
what kernels must reproduce; csrc/cpu/kernels/sections.h and rounding.h say the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from requant_kernels.formats.tile16 import round_up

ACTIVATIONS = ("16bit", "int8")
"""What a linear layer may do with its inputs: take them as they are, or round them to 8 bits where it gains by it.
"int8" is a permission: where nothing is gained (other formats than ROUNDED_FORMATS, backends for GPUs, some
numbers of bf16 inputs on a processor with fast bf16 products) a layer computes as with "16bit"."""

ROUNDED_FORMATS = ("uniform", "lut")

SECTION_INPUTS = 128
LARGEST_INTEGER = 127
LEAST_MAGNITUDE = 2.0**-100
"""A section of which no input reaches it counts as zero."""


def round_activations(x: Tensor, group_size: int) -> Tensor:
    """x [..., in_features] rounded to 8 bits, as the fp32 values that the integers stand for.

    Per section, scale = max |x| / 127 and integer = x * (127 / max |x|), to nearest even. A section with an infinity or
    a NaN becomes NaN. `group_size` is the weight's, -1 for one group per row.
    """
    in_features = x.shape[-1]
    group = in_features if group_size < 0 else min(group_size, in_features)
    groups, sections = -(-in_features // group), -(-group // SECTION_INPUTS)
    rows = torch.nn.functional.pad(x.float(), (0, groups * group - in_features)).unflatten(-1, (groups, group))
    padding = round_up(group, SECTION_INPUTS) - group
    values = torch.nn.functional.pad(rows, (0, padding)).unflatten(-1, (sections, SECTION_INPUTS))
    largest = values.abs().amax(-1, keepdim=True)
    limit = torch.full_like(largest, LARGEST_INTEGER)
    scale = torch.where(largest < LEAST_MAGNITUDE, 0.0, largest / limit)
    scale = torch.where(largest.isfinite(), scale, torch.nan)
    integers = torch.where(scale > 0, (values * (limit / largest)).round(), 0.0)
    return (integers * scale).flatten(-2)[..., :group].flatten(-2)[..., :in_features]
