"""Bugs planted into the PTX of the shipped kernels: dropped barriers, waits that come too early, shifted addresses."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import mutations
import pytest
import torch
import trellis_cases
from cases import Case, make_dense, make_sparse
from recorded_launches import RecordedCall

pytestmark = [pytest.mark.gpusim, pytest.mark.simulator, pytest.mark.slow]

CASES: list[tuple[str, int, int, torch.dtype]] = [  # format, bits, tokens, dtype of x
    ("uniform", 4, 1, torch.float16),
    ("uniform", 3, 16, torch.bfloat16),
    ("lut", 4, 9, torch.float16),
    ("lut", 3, 1, torch.bfloat16),
    ("trellis", 3, 1, torch.float16),
]
SHAPE = (32, 2625)
PLACES = 3  # that are tried per kind of bug, far from each other

# Wherever they stand in code that is executed.
ALWAYS_FOUND = {
    "dropped block barrier",
    "block barrier weakened to the warp",
    "shifted global load",
    "shifted global store",
    "shifted shared load",
    "dropped store",
    "missing lane",
    "shuffle over no distance",
    "transposed matrix load",
}
# Somewhere: elsewhere a later wait or an earlier barrier makes up for it, the condition never is at its limit, or the
# values are those of padding.
FOUND_SOMEWHERE = {
    "shifted shared store",
    "swapped matrix fragments",
    "product without its sum",
    "waits for one copy group less",
    "dropped wait for copies",
    "dropped copy",
    "negated branch",
    "other bits of a code",
    "mask one bit short",
}


def record(pick: random.Random, format: str, bits: int, tokens: int, dtype: torch.dtype) -> RecordedCall:
    sparse = make_sparse(pick, "half_percent", *SHAPE)
    if format == "trellis":
        weight = trellis_cases.operands(trellis_cases.random_weight("3inst", bits, *SHAPE), sparse)
    else:
        weight = Case(make_dense(pick, format, bits, *SHAPE, group_size=64), sparse).operands()
    x = torch.randn(tokens, SHAPE[1]).to(dtype)
    return RecordedCall(lambda backend: backend.kernels[format, "fused"](x, weight, None, "16bit"))


def spread(places: list[Any], count: int) -> list[Any]:
    """The first, the last, and some in between."""
    return [places[i * (len(places) - 1) // (count - 1)] for i in range(count)] if len(places) > count else places


@pytest.mark.parametrize(("format", "bits", "tokens", "dtype"), CASES, ids=str)
def test_planted_bugs_are_found(format: str, bits: int, tokens: int, dtype: torch.dtype, pick: random.Random) -> None:
    call = record(pick, format, bits, tokens, dtype)
    kernel = max(call.launches, key=lambda launch: launch.report["matrix_products"]).kernel
    call.repeat(kernel, call.ptx[kernel])
    executed = call.executed_lines(kernel)
    planted = defaultdict(list)
    for mutation in mutations.mutate(call.ptx[kernel], kernel):
        if mutation.line in executed:
            planted[mutation.operator].append(mutation)
    assert {"dropped block barrier", "shifted shared load", "missing lane", "dropped store"} <= set(planted)
    found = 0
    for operator, places in planted.items():
        tried = spread(places, PLACES if operator in ALWAYS_FOUND else 2 * PLACES)
        left = mutations.survivors(tried, lambda ptx: call.repeat(kernel, ptx))
        found += len(tried) - len(left)
        if operator in ALWAYS_FOUND:
            assert not [str(mutation) for mutation in left]
        if operator in FOUND_SOMEWHERE:
            assert len(left) < len(tried), operator
    assert found >= 40
