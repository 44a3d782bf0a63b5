"""Random weights of every format for the tests of the Triton kernels."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import trellis_cases
from cases import FORMATS, Case, make_dense, make_sparse
from torch import Tensor

from requant_kernels.operands import WeightOperands

KINDS = [*FORMATS, *(("trellis", *kind) for kind in trellis_cases.KINDS)]
"""(format, bits), or ("trellis", code, bits)"""


def weight_of(pick: random.Random, case: Mapping[str, Any]) -> tuple[WeightOperands, Tensor]:
    """(operands, W in float64) of a case with kind, shape, group_size and sparse."""
    format, *kind = case["kind"]
    sparse = make_sparse(pick, case["sparse"], *case["shape"])
    if format == "trellis":
        dense = trellis_cases.random_weight(*kind, *case["shape"])
        entries = 0 if sparse is None else sparse.to_dense().double()
        return trellis_cases.operands(dense, sparse), dense.dequantize().double() + entries
    whole = Case(make_dense(pick, format, *kind, *case["shape"], group_size=case["group_size"]), sparse)
    return whole.operands(), whole.reference
