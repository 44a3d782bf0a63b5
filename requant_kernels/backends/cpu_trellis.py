"""The CPU kernels of format `trellis`: few tokens in one call into the extension, many tokens around torch's product."""

from __future__ import annotations

import torch
from torch import Tensor

from requant_kernels.backends import cpu
from requant_kernels.formats import trellis
from requant_kernels.operands import WeightOperands


def native_weight(weight: WeightOperands) -> cpu._cpu.Weight:
    """The weight as the extension knows it: addresses that are good as long as the tensors live."""
    codes, scale, input_signs, output_signs, codebook = weight.dense
    bits, code = weight.parameters
    return cpu._cpu.trellis_weight(
        cpu._address(codes),
        cpu._address(scale),
        cpu._dtype(scale),
        cpu._address(input_signs),
        cpu._address(output_signs),
        cpu._address(codebook),
        cpu._address(weight.sparse_index),
        cpu._dtype(weight.values),
        weight.out_features,
        weight.in_features,
        bits,
        trellis.CODES.index(code),
    )
