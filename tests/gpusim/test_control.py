"""Branches, divergence, barriers of all kinds, and atomic operations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from operands import floats, integers
from ptx_kernels import kernel, run_lanes
from simulated_gpu import SimulatedGpu, Uninitialised, read_only

pytestmark = pytest.mark.simulator

LANES = np.arange(32)


def test_loops_of_different_length(rng: np.random.Generator) -> None:
    # The Collatz sequence: every lane leaves the loop at its own time, and they meet again behind it.
    body = """
  mov.u32 {d}, 0;
  mov.u32 %r1, {a};
loop:
  setp.le.u32 %p1, %r1, 1;
  @%p1 bra done;
  and.b32 %r2, %r1, 1;
  setp.eq.u32 %p2, %r2, 0;
  @%p2 bra even;
  mad.lo.u32 %r1, %r1, 3, 1;
  bra next;
even:
  shr.u32 %r1, %r1, 1;
next:
  add.u32 {d}, {d}, 1;
  bra.uni loop;
done:
  activemask.b32 {e};"""

    def steps(value: int) -> int:
        count = 0
        while value > 1:
            value = value // 2 if value % 2 == 0 else 3 * value + 1
            count += 1
        return count

    a = rng.integers(1, 1000, 64).astype("u4")
    got = run_lanes(body, {"a": a}, {"d": "u4", "e": "u4"})
    np.testing.assert_array_equal(got["d"], [steps(int(value)) for value in a])
    np.testing.assert_array_equal(got["e"], 0xFFFFFFFF)


def test_guards_and_early_exits() -> None:
    body = """
  mov.u32 %r1, %tid.x;
  setp.ge.u32 %p1, %r1, 20;
  @%p1 exit;
  setp.lt.u32 %p2, %r1, 10;
  mov.u32 %r2, 1;
  @%p2 mov.u32 %r2, 2;
  @!%p2 add.u32 %r2, %r2, 2;
  mul.wide.u32 %d1, %r1, 4;
  add.u64 %d1, %d1, %d;
  st.global.u32 [%d1], %r2;"""
    d = np.zeros(32, "u4")
    SimulatedGpu(kernel(["d"], body)).launch("test", 1, 32, [d])
    np.testing.assert_array_equal(d, np.select([LANES < 10, LANES < 20], [2, 3], 0))


def test_indexed_branches(rng: np.random.Generator) -> None:
    body = """
  targets: .branchtargets zero, one, two;
  and.b32 %r1, {a}, 3;
  min.u32 %r1, %r1, 2;
  brx.idx %r1, targets;
zero:
  mov.u32 {d}, 100;
  bra done;
one:
  mov.u32 {d}, 200;
  bra done;
two:
  mov.u32 {d}, 300;
done:"""
    a = integers(rng, "u4")
    got = run_lanes(body, {"a": a}, {"d": "u4"})["d"]
    np.testing.assert_array_equal(got, np.array([100, 200, 300])[np.minimum(a & 3, 2)])


def test_labels_of_inner_scopes(rng: np.random.Generator) -> None:
    body = """
  setp.eq.u32 %p1, {a}, 0;
  {{ @%p1 bra SKIP; add.u32 {a}, {a}, 1; SKIP: }}
  {{ @!%p1 bra SKIP; add.u32 {a}, {a}, 10; SKIP: }}
  mov.u32 {d}, {a};"""
    a = rng.integers(0, 2, 32).astype("u4")
    np.testing.assert_array_equal(run_lanes(body, {"a": a}, {"d": "u4"})["d"], np.where(a == 0, 10, a + 1))


EXCHANGE = """
.shared .align 4 .b32 words[256];
"""
# The thread's word address in %r3; %r1 is its number.
PLACE = """
  mov.u32 %r1, %tid.x;
  shl.b32 %r2, %r1, 2;
  mov.u32 %r3, words;
  add.u32 %r3, %r3, %r2;
  cvt.u64.u32 %d1, %r2;
  add.u64 %d1, %d1, %d;
"""


@pytest.mark.parametrize(
    "barrier", ["bar.sync 0", "barrier.sync.aligned 3", "barrier.cta.sync 1, 128", "bar.sync %r9, %r8"]
)
def test_barriers(barrier: str) -> None:
    body = f"""{PLACE}
  mov.u32 %r8, 128; mov.u32 %r9, 5;
  st.shared.u32 [%r3], %r1;
  {barrier};
  xor.b32 %r4, %r2, 508;
  mov.u32 %r5, words;
  add.u32 %r5, %r5, %r4;
  ld.shared.u32 %r6, [%r5];
  st.global.u32 [%d1], %r6;"""
    d = np.empty(128, "u4")
    report = SimulatedGpu(kernel(["d"], body, declarations=EXCHANGE)).launch("test", 1, 128, [Uninitialised(d)])
    np.testing.assert_array_equal(d, 127 - np.arange(128))
    assert report.barriers == 1


def test_producers_and_consumers() -> None:
    # Warps 0 and 1 fill the buffer and arrive; warps 2 and 3 wait for them, read, and hand it back; twice.
    body = f"""{PLACE}
  setp.ge.u32 %p1, %r1, 64;
  mov.u32 %r10, 0;
  @%p1 bra consume;
produce:
  mad.lo.u32 %r4, %r10, 1000, %r1;
  st.shared.u32 [%r3], %r4;
  bar.arrive 1, 128;
  bar.sync 2, 128;
  add.u32 %r10, %r10, 1;
  setp.lt.u32 %p2, %r10, 2;
  @%p2 bra produce;
  ret;
consume:
  bar.sync 1, 128;
  ld.shared.u32 %r6, [%r3+-256];
  bar.arrive 2, 128;
  mad.wide.u32 %d2, %r10, 256, %d1;
  st.global.u32 [%d2+-256], %r6;
  add.u32 %r10, %r10, 1;
  setp.lt.u32 %p2, %r10, 2;
  @%p2 bra consume;"""
    d = np.empty((2, 64), "u4")
    report = SimulatedGpu(kernel(["d"], body, declarations=EXCHANGE)).launch("test", 1, 128, [Uninitialised(d)])
    np.testing.assert_array_equal(d, np.arange(64) + np.array([[0], [1000]]))
    assert report.barriers == 4


def test_reducing_barriers() -> None:
    body = f"""{PLACE}
  setp.lt.u32 %p1, %r1, 40;
  bar.red.popc.u32 %r4, 0, %p1;
  barrier.cta.red.popc.aligned.u32 %r5, 1, 96, !%p1;
  bar.red.and.pred %p2, 0, %p1;
  bar.red.or.pred %p3, 0, %p1;
  selp.u32 %r6, 1000, 0, %p2;
  selp.u32 %r7, 10000, 0, %p3;
  mad.lo.u32 %r4, %r5, 100000, %r4;
  add.u32 %r4, %r4, %r6; add.u32 %r4, %r4, %r7;
  st.global.u32 [%d1], %r4;"""
    d = np.empty(96, "u4")
    SimulatedGpu(kernel(["d"], body, declarations=EXCHANGE)).launch("test", 1, 96, [Uninitialised(d)])
    np.testing.assert_array_equal(d, 40 + 10000 + 56 * 100000)


def test_warps_that_exit_early_do_not_hold_up_a_barrier() -> None:
    body = f"""{PLACE}
  setp.ge.u32 %p1, %r1, 64;
  @%p1 ret;
  st.shared.u32 [%r3], %r1;
  bar.sync 0;
  ld.shared.u32 %r4, [words+200];
  st.global.u32 [%d1], %r4;"""
    d = np.zeros(128, "u4")
    SimulatedGpu(kernel(["d"], body, declarations=EXCHANGE)).launch("test", 1, 128, [d])
    np.testing.assert_array_equal(d, np.repeat([50, 0], 64))


def test_a_block_that_does_not_fill_its_last_warp() -> None:
    body = f"""{PLACE}
  bar.sync 0;
  shfl.sync.idx.b32 %r4, %r1, 0, 31, -1;
  st.global.u32 [%d1], %r4;"""
    d = np.empty(40, "u4")
    SimulatedGpu(kernel(["d"], body, declarations=EXCHANGE)).launch("test", 1, 40, [Uninitialised(d)])
    np.testing.assert_array_equal(d, np.repeat([0, 32], [32, 8]))


ATOMICS: dict[str, tuple[str, Callable[[int, int], int]]] = {
    "add.u32": ("u4", lambda old, b: old + b),
    "add.s32": ("i4", lambda old, b: old + b),
    "add.u64": ("u8", lambda old, b: old + b),
    "min.u32": ("u4", min),
    "min.s32": ("i4", min),
    "max.u32": ("u4", max),
    "max.s64": ("i8", max),
    "and.b32": ("u4", lambda old, b: old & b),
    "or.b64": ("u8", lambda old, b: old | b),
    "xor.b32": ("u4", lambda old, b: old ^ b),
    "exch.b32": ("u4", lambda old, b: b),
    "inc.u32": ("u4", lambda old, b: 0 if old >= b else old + 1),
    "dec.u32": ("u4", lambda old, b: b if old == 0 or old > b else old - 1),
}


@pytest.mark.parametrize("name", ATOMICS)
@pytest.mark.parametrize("space", ["global", "shared"])
def test_atomics_on_integers(rng: np.random.Generator, space: str, name: str) -> None:
    # All lanes on one place; the old values that they get back show the order.
    dtype, function = ATOMICS[name]
    size = np.dtype(dtype).itemsize
    kind = name.split(".")[1]
    register = "%r" if size == 4 else "%d"
    body = f"""
  mov.u32 %r1, %tid.x;
  mul.wide.u32 %d1, %r1, {size};
  add.u64 %d2, %d1, %a;
  add.u64 %d3, %d1, %d;
  ld.global.{kind} {register}20, [%d2];
  mov.u64 %d4, word;
  setp.eq.u32 %p1, %r1, 0;
  ld.global.{kind} {register}21, [%place];
  @%p1 st.shared.{kind} [%d4], {register}21;
  bar.sync 0;
  atom.{space}.{name} {register}22, [{"%place" if space == "global" else "%d4"}], {register}20;
  st.global.{kind} [%d3], {register}22;
  bar.sync 0;
  ld.shared.{kind} {register}23, [%d4];
  @%p1 st.global.{kind} [%d+{32 * size}], {register}23;"""
    a, place = integers(rng, dtype, 32), integers(rng, dtype, 1)
    start = place.copy()
    d = np.empty(33, dtype)
    text = kernel(["a", "place", "d"], body, declarations=".shared .align 8 .b8 word[8];\n")
    SimulatedGpu(text).launch("test", 1, 32, [read_only(a), place, Uninitialised(d)])
    value = start[0]
    with np.errstate(over="ignore"):
        for lane in range(32):
            assert d[lane] == value
            value = np.array(function(int(value), int(a[lane])) & (2 ** (8 * size) - 1), f"u{size}").view(dtype)[()]
    assert (place[0] if space == "global" else d[32]) == value


@pytest.mark.parametrize(("name", "dtype"), [("add.f32", "f4"), ("add.noftz.f16", "f2"), ("add.f64", "f8")])
def test_atomic_sums_of_floats(rng: np.random.Generator, name: str, dtype: str) -> None:
    size = np.dtype(dtype).itemsize
    kind, register = {"f4": ("f32", "%f1"), "f2": ("b16", "%h1"), "f8": ("f64", "%fd1")}[dtype]
    body = f"""
  mov.u32 %r1, %tid.x;
  mul.wide.u32 %d1, %r1, {size};
  add.u64 %d1, %d1, %a;
  ld.global.{kind} {register}, [%d1];
  red.global.{name} [%place], {register};"""
    a, place = rng.standard_normal(32).astype(dtype), np.zeros(1, dtype)
    SimulatedGpu(kernel(["a", "place"], body)).launch("test", 1, 32, [read_only(a), place])
    total = np.zeros(1, dtype)
    for value in a:
        total += value
    np.testing.assert_array_equal(place, total)


def test_atomic_sums_of_packed_halves(rng: np.random.Generator) -> None:
    a, place = floats(rng, "f2", 64), np.ones(2, "f2")
    body = """
  mov.u32 %r1, %tid.x;
  mul.wide.u32 %d1, %r1, 4;
  add.u64 %d1, %d1, %a;
  ld.global.u32 %r2, [%d1];
  red.global.add.noftz.f16x2 [%place], %r2;"""
    SimulatedGpu(kernel(["a", "place"], body)).launch("test", 1, 32, [read_only(a), place])
    total = np.ones(2, "f2")
    with np.errstate(all="ignore"):
        for pair in a.reshape(32, 2):
            total = total + pair
    np.testing.assert_array_equal(place, total)


def test_compare_and_swap_loop() -> None:
    # Each thread multiplies one place by an odd number.
    body = """
  mov.u32 %r1, %tid.x;
  shl.b32 %r1, %r1, 1;
  add.u32 %r1, %r1, 1;
  atom.global.or.b32 %r2, [%place], 0;
again:
  mov.u32 %r3, %r2;
  mul.lo.u32 %r4, %r3, %r1;
  atom.relaxed.gpu.global.cas.b32 %r2, [%place], %r3, %r4;
  setp.ne.u32 %p1, %r2, %r3;
  @%p1 bra again;"""
    place = np.full(1, 3, "u4")
    SimulatedGpu(kernel(["place"], body)).launch("test", 2, 64, [place])
    expected = 3
    for odd in [*range(1, 128, 2)] * 2:
        expected = expected * odd % 2**32
    assert place[0] == expected
