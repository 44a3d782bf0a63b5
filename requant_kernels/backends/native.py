"""What the backends with an extension of C++ share: tensors as addresses and dtypes as numbers, in the one order of
arguments that every extension has.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from requant_kernels.formats import trellis
from requant_kernels.operands import WeightOperands

DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
"""csrc/common/dtype.h"""


def address(tensor: Tensor | None) -> int:
    """Where its first element is; 0 for an absent one."""
    return 0 if tensor is None else tensor.data_ptr()


def dtype_number(tensor: Tensor | None) -> int:
    """Its dtype's; any number for an absent one."""
    return 0 if tensor is None else DTYPES[tensor.dtype]


def native_weight(extension: ModuleType, weight: WeightOperands) -> Any:
    """The weight as the extension knows it: addresses that are good as long as the tensors live."""
    return _WEIGHTS[weight.format](extension, weight)


def _sparse_and_sizes(weight: WeightOperands) -> tuple[int, ...]:
    return address(weight.sparse_index), dtype_number(weight.values), weight.out_features, weight.in_features


def _uniform_weight(extension: ModuleType, weight: WeightOperands) -> Any:
    codes, scale, zero = weight.dense
    return extension.uniform_weight(
        address(codes),
        address(scale),
        address(zero),
        dtype_number(scale),
        *_sparse_and_sizes(weight),
        *weight.parameters,
    )


def _lut_weight(extension: ModuleType, weight: WeightOperands) -> Any:
    codes, table, scale = weight.dense
    assert table is not None
    tensors = address(codes), address(table), address(scale), dtype_number(table), dtype_number(scale)
    return extension.lut_weight(*tensors, table.shape[0] == 1, *_sparse_and_sizes(weight), *weight.parameters)


def _trellis_weight(extension: ModuleType, weight: WeightOperands) -> Any:
    codes, scale, input_signs, output_signs, codebook = weight.dense
    bits, code = weight.parameters
    tensors = address(codes), address(scale), dtype_number(scale)
    rotation = address(input_signs), address(output_signs), address(codebook)
    return extension.trellis_weight(*tensors, *rotation, *_sparse_and_sizes(weight), bits, trellis.CODES.index(code))


_WEIGHTS = {"uniform": _uniform_weight, "lut": _lut_weight, "trellis": _trellis_weight}
