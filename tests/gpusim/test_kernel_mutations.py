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

SHAPE, TALL_SHAPE = (32, 2625), (720, 600)
CASES: list[tuple[str, int, int, torch.dtype, tuple[int, int]]] = [  # format, bits, tokens, dtype of x, shape
    ("uniform", 4, 1, torch.float16, SHAPE),
    ("uniform", 3, 16, torch.bfloat16, SHAPE),
    ("uniform", 2, 7, torch.bfloat16, TALL_SHAPE),
    ("lut", 4, 9, torch.float16, SHAPE),
    ("lut", 3, 1, torch.bfloat16, SHAPE),
    ("trellis", 3, 1, torch.float16, SHAPE),
]
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
# Trellis reads the x of S from global memory: an entry may as well be added with those of the chunk before its own.
FOUND_SOMEWHERE_IN_TRELLIS = {"shifted global load"}


def record(
    pick: random.Random, format: str, bits: int, tokens: int, dtype: torch.dtype, shape: tuple[int, int]
) -> RecordedCall:
    sparse = make_sparse(pick, "half_percent", *shape)
    if format == "trellis":
        weight = trellis_cases.operands(trellis_cases.random_weight("3inst", bits, *shape), sparse)
    else:
        weight = Case(make_dense(pick, format, bits, *shape, group_size=64), sparse).operands()
    x = torch.randn(tokens, shape[1]).to(dtype)
    return RecordedCall(lambda backend: backend.kernels[format, "fused"](x, weight, None, "16bit"))


def spread(places: list[Any], count: int) -> list[Any]:
    """The first, the last, and some in between."""
    return [places[i * (len(places) - 1) // (count - 1)] for i in range(count)] if len(places) > count else places


@pytest.mark.parametrize(("format", "bits", "tokens", "dtype", "shape"), CASES, ids=str)
def test_planted_bugs_are_found(
    format: str, bits: int, tokens: int, dtype: torch.dtype, shape: tuple[int, int], pick: random.Random
) -> None:
    call = record(pick, format, bits, tokens, dtype, shape)
    kernel = max(call.launches, key=lambda launch: launch.report["matrix_products"]).kernel
    call.repeat(kernel, call.ptx[kernel])
    executed = call.executed_lines(kernel)
    planted = defaultdict(list)
    for mutation in mutations.mutate(call.ptx[kernel], kernel):
        if mutation.line in executed:
            planted[mutation.operator].append(mutation)
    assert {"dropped block barrier", "shifted shared load", "missing lane", "dropped store"} <= set(planted)
    always_found = ALWAYS_FOUND - (FOUND_SOMEWHERE_IN_TRELLIS if format == "trellis" else set())
    found_somewhere = FOUND_SOMEWHERE | (ALWAYS_FOUND - always_found)
    found = 0
    for operator, places in planted.items():
        tried = spread(places, PLACES if operator in always_found else 2 * PLACES)
        left = mutations.survivors(tried, lambda ptx: call.repeat(kernel, ptx))
        found += len(tried) - len(left)
        if operator in always_found:
            assert not [str(mutation) for mutation in left]
        if operator in found_somewhere:
            assert len(left) < len(tried), operator
    assert found >= 40
