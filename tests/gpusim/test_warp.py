"""Operations between the lanes of a warp: shfl, vote, match, redux, activemask, bar.warp.sync."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
from operands import integers
from ptx_kernels import run_lanes

pytestmark = pytest.mark.simulator

LANES = np.arange(32)


def shuffle_source(mode: str, lane: int, b: int, c: int) -> tuple[int, bool]:
    """The pseudocode of the PTX manual."""
    clamp, segment = c & 31, c >> 8 & 31
    last = (lane & segment) | (clamp & ~segment & 31)
    first = lane & segment
    b &= 31
    source, valid = {
        "up": (lane - b, lane - b >= last),
        "down": (lane + b, lane + b <= last),
        "bfly": (lane ^ b, (lane ^ b) <= last),
        "idx": (first | (b & ~segment & 31), (first | (b & ~segment & 31)) <= last),
    }[mode]
    return (source, True) if valid else (lane, False)


@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
@pytest.mark.parametrize("width", [32, 16, 8, 2])
def test_shuffles(rng: np.random.Generator, mode: str, width: int) -> None:
    c = ((32 - width) << 8) | (0 if mode == "up" else 31)
    a, b = integers(rng, "u4", 64), rng.integers(0, 32, 64).astype("u4")
    body = f"shfl.sync.{mode}.b32 {{d}}|%p1, {{a}}, {{b}}, {c}, -1; selp.u32 {{e}}, 1, 0, %p1;"
    got = run_lanes(body, {"a": a, "b": b}, {"d": "u4", "e": "u4"})
    for i in range(64):
        source, valid = shuffle_source(mode, i % 32, int(b[i]), c)
        assert got["d"][i] == a[i // 32 * 32 + source]
        assert got["e"][i] == valid


def test_shuffle_within_members(rng: np.random.Generator) -> None:
    a = integers(rng, "u4", 32)
    body = """
  mov.u32 %r1, %laneid;
  setp.lt.u32 %p1, %r1, 16;
  selp.b32 %r2, 0xffff, 0xffff0000, %p1;
  shfl.sync.bfly.b32 {d}, {a}, 3, 31, %r2;"""
    np.testing.assert_array_equal(run_lanes(body, {"a": a}, {"d": "u4"})["d"], a[LANES ^ 3])


def test_votes(rng: np.random.Generator) -> None:
    a = np.concatenate([rng.integers(0, 2, 32), np.ones(32), np.zeros(32)]).astype("u4")
    body = """
  setp.ne.u32 %p1, {a}, 0;
  vote.sync.ballot.b32 {d}, %p1, -1;
  vote.sync.all.pred %p2, %p1, -1; vote.sync.any.pred %p3, %p1, -1; vote.sync.uni.pred %p4, !%p1, -1;
  selp.u32 %r1, 1, 0, %p2; selp.u32 %r2, 2, 0, %p3; selp.u32 %r3, 4, 0, %p4;
  or.b32 %r1, %r1, %r2; or.b32 {e}, %r1, %r3;"""
    got = run_lanes(body, {"a": a}, {"d": "u4", "e": "u4"})
    rows = a.reshape(3, 32)
    np.testing.assert_array_equal(got["d"].reshape(3, 32)[:, 0], (rows.astype("u8") << LANES.astype("u8")).sum(1))
    all_, any_ = rows.all(1), rows.any(1)
    np.testing.assert_array_equal(got["e"].reshape(3, 32)[:, 5], all_ + 2 * any_ + 4 * (all_ | ~any_))


@pytest.mark.parametrize(("kind", "dtype"), [("b32", "u4"), ("b64", "u8")])
def test_matches(rng: np.random.Generator, kind: str, dtype: str) -> None:
    a = rng.integers(0, 5, 64).astype(dtype)
    a[32:] = 9
    body = f"""
  match.any.sync.{kind} {{d}}, {{a}}, -1;
  match.all.sync.{kind} {{e}}|%p1, {{a}}, -1; selp.u32 {{f}}, 1, 0, %p1;"""
    got = run_lanes(body, {"a": a}, {"d": "u4", "e": "u4", "f": "u4"})
    rows = a.reshape(2, 32)
    equal = (rows[:, :, None] == rows[:, None, :]) * (np.uint64(1) << LANES.astype("u8"))
    np.testing.assert_array_equal(got["d"].reshape(2, 32), equal.sum(2))
    np.testing.assert_array_equal(got["e"].reshape(2, 32), [[0] * 32, [0xFFFFFFFF] * 32])
    np.testing.assert_array_equal(got["f"].reshape(2, 32), [[0] * 32, [1] * 32])


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("add.u32", "u4"), ("add.s32", "i4"), ("min.u32", "u4"), ("min.s32", "i4"), ("max.u32", "u4"), ("max.s32", "i4")]
    + [(f"{name}.b32", "u4") for name in ("and", "or", "xor")],
)
def test_reductions(rng: np.random.Generator, name: str, dtype: str) -> None:
    a = integers(rng, dtype, 64)
    if name.startswith("and"):
        a |= 0xFFF0F0FF
    function = {
        "add": np.add,
        "min": np.minimum,
        "max": np.maximum,
        "and": np.bitwise_and,
        "or": np.bitwise_or,
        "xor": np.bitwise_xor,
    }[name[:-4]]
    got = run_lanes(f"redux.sync.{name} {{d}}, {{a}}, -1;", {"a": a}, {"d": dtype})["d"].reshape(2, 32)
    with np.errstate(over="ignore"):
        expected = [reduce(function, row) for row in a.reshape(2, 32)]
    np.testing.assert_array_equal(got, np.repeat(np.array(expected)[:, None], 32, 1))


def test_active_mask_of_a_branch() -> None:
    body = """
  mov.u32 %r1, %laneid;
  setp.lt.u32 %p1, %r1, 5;
  mov.u32 {d}, 0;
  @%p1 bra less;
  activemask.b32 {d};
  bra done;
less:
  activemask.b32 {d};
done:"""
    got = run_lanes(body, {"a": np.zeros(32, "u4")}, {"d": "u4"})["d"]
    np.testing.assert_array_equal(got, np.where(LANES < 5, 31, 0xFFFFFFE0))
