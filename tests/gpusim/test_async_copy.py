"""cp.async: sizes, zero filling, groups, and that data is not seen before it has been waited for."""

from __future__ import annotations

import numpy as np
import pytest
from ptx_kernels import kernel
from simulated_gpu import SimulatedGpu, Uninitialised, extension, read_only

pytestmark = pytest.mark.simulator

SHARED = ".shared .align 16 .b8 tile[2048];\n"


def place(size: int) -> str:
    """%r3: the thread's place in the tile; %d1: in the input; %d2: in the output."""
    return f"""
  mov.u32 %r1, %tid.x;
  mul.lo.u32 %r2, %r1, {size};
  mov.u32 %r3, tile;
  add.u32 %r3, %r3, %r2;
  cvt.u64.u32 %d2, %r2;
  add.u64 %d1, %d2, %a;
  add.u64 %d2, %d2, %d;"""


def copy_out(size: int) -> str:
    vector = {4: "u32 %r4", 8: "v2.u32 {%r4, %r5}", 16: "v4.u32 {%r4, %r5, %r6, %r7}"}[size]
    kind, registers = vector.split(" ", 1)
    return f"  ld.shared.{kind} {registers}, [%r3];\n  st.global.{kind} [%d2], {registers};"


@pytest.mark.parametrize(
    ("copy", "size", "kept"),
    [
        ("cp.async.ca.shared.global [%r3], [%d1], 4;", 4, 4),
        ("cp.async.ca.shared.global.L2::128B [%r3], [%d1], 8;", 8, 8),
        ("cp.async.cg.shared.global.L2::256B [%r3+0], [%d1+0], 16;", 16, 16),
        ("cp.async.cg.shared.global [%r3], [%d1], 16, 7;", 16, 7),
        ("cp.async.ca.shared.global [%r3], [%d1], 8, %r9;", 8, 6),
        ("cp.async.cg.shared.global [ %r3 + 0 ], [ %d1 + 0 ], 0x10, %r10;", 16, 0),
        ("cp.async.cg.shared.global [%r3], [%d1], 16, %p1;", 16, 0),
        ("cp.async.cg.shared.global [%r3], [%d1], 16, %p2;", 16, 16),
        ("cp.async.cg.shared.global.L2::cache_hint [%r3], [%d1], 16, %d9;", 16, 16),
    ],
)
def test_sizes_and_zero_filling(rng: np.random.Generator, copy: str, size: int, kept: int) -> None:
    body = f"""{place(size)}
  createpolicy.fractional.L2::evict_first.b64 %d9, 1.0;
  mov.u32 %r9, 6; mov.u32 %r10, 0;
  setp.eq.u32 %p1, %r10, 0; setp.ne.u32 %p2, %r10, 0;
  {copy}
  cp.async.wait_all;
{copy_out(size)}"""
    a = rng.integers(1, 255, (32, size)).astype("u1")
    d = np.empty_like(a)
    report = SimulatedGpu(kernel(["a", "d"], body, declarations=SHARED)).launch(
        "test", 1, 32, [read_only(a), Uninitialised(d)]
    )
    np.testing.assert_array_equal(d, np.where(np.arange(size) < kept, a, 0))
    assert report.global_loads.bytes == 32 * kept


def test_nothing_is_read_beyond_the_given_size(rng: np.random.Generator) -> None:
    body = f"""{place(16)}
  setp.lt.u32 %p1, %r1, 31;
  selp.u32 %r9, 16, 8, %p1;
  cp.async.cg.shared.global [%r3], [%d1], 16, %r9;
  cp.async.wait_all;
{copy_out(16)}"""
    a = rng.integers(1, 255, 32 * 16 - 8).astype("u1")
    d = np.empty(32 * 16, "u1")
    SimulatedGpu(kernel(["a", "d"], body, declarations=SHARED)).launch("test", 1, 32, [read_only(a), Uninitialised(d)])
    np.testing.assert_array_equal(d, np.append(a, np.zeros(8, "u1")))


def groups(pending: int, barrier: str = "") -> str:
    """Two groups of copies to two tiles; waits until `pending` are left, then reads the first tile."""
    return f"""{place(16)}
  cp.async.cg.shared.global [%r3], [%d1], 16;
  cp.async.commit_group;
  cp.async.cg.shared.global [%r3+1024], [%d1+512], 16;
  cp.async.commit_group;
  cp.async.wait_group {pending};
  {barrier}"""


ARRAY = read_only((np.arange(1024) % 251).astype("u1"))


def run(body: str, threads: int = 32) -> np.ndarray:
    d = np.empty(threads * 16, "u1")
    text = kernel(["a", "d"], body, declarations=SHARED)
    SimulatedGpu(text).launch("test", 1, threads, [ARRAY, Uninitialised(d)])
    return d


@pytest.mark.parametrize("pending", [0, 1])
def test_a_group_that_was_waited_for_is_seen(pending: int) -> None:
    np.testing.assert_array_equal(run(groups(pending) + copy_out(16)), ARRAY[:512])


def test_a_group_that_was_not_waited_for_is_not_seen() -> None:
    with pytest.raises(extension().SimulationError, match="asynchronous copy is in flight"):
        run(groups(2) + copy_out(16))
    second = copy_out(16).replace("[%r3]", "[%r3+1024]")
    with pytest.raises(extension().SimulationError, match="asynchronous copy is in flight"):
        run(groups(1) + second)
    np.testing.assert_array_equal(run(groups(0) + second), ARRAY[512:])


def test_other_threads_see_copies_only_behind_a_barrier() -> None:
    neighbour = "xor.b32 %r2, %r2, 16; mov.u32 %r3, tile; add.u32 %r3, %r3, %r2;" + copy_out(16)
    expected = ARRAY[:512].reshape(16, 2, 16)[:, ::-1].reshape(-1)
    np.testing.assert_array_equal(run(groups(0, "bar.sync 0;") + neighbour), expected)
    np.testing.assert_array_equal(run(groups(0, "bar.warp.sync -1;") + neighbour), expected)
    with pytest.raises(extension().SimulationError, match=r"shared-memory race.*read after a write"):
        run(groups(0) + neighbour)
    # A barrier does not help where the copy was not waited for.
    with pytest.raises(extension().SimulationError, match="asynchronous copy is in flight"):
        run(groups(2, "bar.sync 0;") + neighbour)


def test_a_tile_is_not_filled_while_others_still_read_it() -> None:
    refill = """
  xor.b32 %r2, %r2, 16; mov.u32 %r9, tile; add.u32 %r9, %r9, %r2;
  ld.shared.u32 %r4, [%r9];
  BARRIER
  cp.async.cg.shared.global [%r3], [%d1], 16;
  cp.async.wait_all;
""" + copy_out(16)
    start = groups(0, "bar.sync 0;")
    run(start + refill.replace("BARRIER", "bar.sync 0;"))
    with pytest.raises(extension().SimulationError, match=r"shared-memory race.*write after a read"):
        run(start + refill.replace("BARRIER", ""))


def test_a_tile_is_not_written_while_a_copy_is_in_flight() -> None:
    with pytest.raises(extension().SimulationError, match=r"write to shared address.*in flight"):
        run(groups(2) + "st.shared.u32 [%r3], 5;")
    run(groups(1) + "st.shared.u32 [%r3], 5;")
