"""Every check of the simulator: a kernel that breaks the rule, and its twin that does not."""

from __future__ import annotations

import re

import numpy as np
import pytest
from ptx_kernels import kernel
from simulated_gpu import SimulatedGpu, Uninitialised, extension, read_only

pytestmark = pytest.mark.simulator

PLACE = """
  mov.u32 %r1, %tid.x;
  mov.u32 %r20, %ctaid.x;
  mov.u32 %r21, %ntid.x;
  mad.lo.u32 %r22, %r20, %r21, %r1;
  shl.b32 %r2, %r1, 2;
  mov.u32 %r3, words;
  add.u32 %r3, %r3, %r2;
  mul.wide.u32 %d2, %r22, 4;
  add.u64 %d1, %d2, %a;
  add.u64 %d2, %d2, %d;
"""
# In a block of `threads`, %r3 is the thread's word in shared memory, %d1 and %d2 its words of a and d.


def run(body: str, threads: int = 64, blocks: int = 1, *, initialised: bool = True, **options: object) -> np.ndarray:
    """Runs the lines with a read-only array a and an output d, both as long as the grid."""
    count = threads * blocks
    declarations = f".shared .align 16 .b32 words[{threads}];\n"
    gpu = SimulatedGpu(kernel(["a", "d"], PLACE + body, declarations=declarations))
    for name, value in options.items():
        setattr(gpu.options, name, value)
    d = np.zeros(count, "u4")
    gpu.launch(
        "test", blocks, threads, [read_only(np.arange(count, dtype="u4")), d if initialised else Uninitialised(d)]
    )
    return d


def assert_caught(message: str, body: str, *arguments: int, **options: object) -> None:
    with pytest.raises(extension().SimulationError, match=message):
        run(body, *arguments, **options)


def test_an_error_says_where() -> None:
    body = "  setp.eq.u32 %p1, %r1, 37;\n  @%p1 ld.global.u32 %r4, [%d1+4096];"
    text = PLACE + body
    with pytest.raises(extension().SimulationError) as caught:
        run(body, 64, 2)
    lines = kernel(["a", "d"], text, declarations=".shared .align 16 .b32 words[64];\n").split("\n")
    number = next(i for i, line in enumerate(lines, 1) if "4096" in line)
    message = str(caught.value)
    assert message.startswith(
        f"test, PTX line {number} '@%p1 ld.global.u32 %r4, [%d1+4096]', block (0, 0, 0), thread (37, 0, 0):"
    )
    assert "out-of-bounds access of 4 bytes to global memory, " in message


@pytest.mark.parametrize("access", ["ld.global.u32 %r4, [%d1{}]", "st.global.u32 [%d2{}], %r1", "ld.u32 %r4, [%d1{}]"])
@pytest.mark.parametrize("offset", [4, -4])
def test_bounds_of_global_memory(access: str, offset: int) -> None:
    run(access.format("") + ";")
    assert_caught("out-of-bounds.*global", access.format(f"+{offset}") + ";")


def test_bounds_of_shared_and_local_memory() -> None:
    run("st.shared.u32 [%r3], 0;")
    assert_caught("out-of-bounds.*shared address 256; the block has 256 bytes", "st.shared.u32 [%r3+4], 0;")
    run(".local .align 8 .b8 depot[16]; st.local.u64 [depot+8], %d1;")
    assert_caught("out-of-bounds.*local address 16", ".local .align 8 .b8 depot[16]; st.local.u64 [depot+16], %d1;")
    assert_caught("out-of-bounds", ".local .align 8 .b8 depot[16]; st.local.u32 [depot+-4], %r1;")


def test_addresses_of_no_memory() -> None:
    assert_caught("out-of-bounds", "mov.u64 %d3, 0; ld.global.u32 %r4, [%d3];")
    assert_caught("parameters, or to an address of no memory", "mov.u64 %d3, -8; ld.u32 %r4, [%d3];")


@pytest.mark.parametrize(
    ("access", "offset"),
    [
        ("ld.global.u32 %r4, [%d1+{}]", 2),
        ("ld.global.v4.u32 {{%r4, %r5, %r6, %r7}}, [%d3+{}]", 4),
        ("st.global.u16 [%d2+{}], %h1", 1),
        ("st.shared.u32 [words+{}], 0", 2),
        ("cp.async.ca.shared.global [words+{}], [%d1], 4", 2),
        ("cp.async.ca.shared.global [%r3], [%d1+{}], 4", 1),
        ("red.global.add.u32 [%d+{}], 1", 2),
    ],
)
def test_alignment(access: str, offset: int) -> None:
    body = "mov.u64 %d3, %a; mov.u16 %h1, 0; setp.eq.u32 %p1, %r1, 0;\n@%p1 " + access
    run(body.format(0) + ";")
    assert_caught("misaligned", body.format(offset) + ";")


def test_permission() -> None:
    run("st.global.u32 [%d2], 1;")
    assert_caught("write to read-only memory", "st.global.u32 [%d1], 1;")
    assert_caught("write to read-only memory", "red.global.add.u32 [%d1], 1;")


def test_uninitialised_shared_memory() -> None:
    run("st.shared.u32 [%r3], 0; ld.shared.u32 %r4, [%r3];")
    assert_caught("uninitialised shared address 0", "ld.shared.u32 %r4, [%r3];")
    # Half of a word.
    assert_caught(
        "uninitialised shared address 2", "mov.u16 %h1, 1; st.shared.u16 [%r3], %h1; ld.shared.u32 %r4, [%r3];"
    )
    run("ld.shared.u32 %r4, [%r3];", check_initialised=False)


def test_shared_memory_does_not_outlive_a_block() -> None:
    first_block_writes = "setp.eq.u32 %p1, %r20, 0; @%p1 st.shared.u32 [%r3], 0; ld.shared.u32 %r4, [%r3];"
    run(first_block_writes, 32, 1)
    assert_caught(r"block \(1, 0, 0\).*uninitialised shared", first_block_writes, 32, 2)


def test_uninitialised_global_memory() -> None:
    run("st.global.u32 [%d2], 1; ld.global.u32 %r4, [%d2];", initialised=False)
    run("ld.global.u32 %r4, [%d2];")
    assert_caught("read of uninitialised memory", "ld.global.u32 %r4, [%d2];", initialised=False)
    assert_caught("read of uninitialised memory", "red.global.add.u32 [%d2], 1;", initialised=False)


OPPOSITE = "xor.b32 %r4, %r2, {0}; mov.u32 %r5, words; add.u32 %r5, %r5, %r4;\n"
# %r5: the word of the thread whose number differs in these bits (times 4).


@pytest.mark.parametrize("distance", [1, 32])
@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("read after a write", "st.shared.u32 [%r3], %r1; {barrier} ld.shared.u32 %r6, [%r5];"),
        ("write after a write", "st.shared.u32 [%r3], %r1; {barrier} st.shared.u32 [%r5], %r1;"),
        (
            "write after a read",
            "st.shared.u32 [%r3], %r1; bar.sync 0; ld.shared.u32 %r6, [%r3]; {barrier} st.shared.u32 [%r5], %r1;",
        ),
        ("read after a write", "mov.u16 %h1, 5; st.shared.u8 [%r3+1], %h1; {barrier} ld.shared.u8 %h1, [%r5+1];"),
        ("atomic operation after a write", "st.shared.u32 [%r3], %r1; {barrier} red.shared.add.u32 [%r5], 1;"),
        (
            "read after an atomic operation",
            "st.shared.u32 [%r3], %r1; bar.sync 0; red.shared.add.u32 [%r3], 1; {barrier} ld.shared.u32 %r6, [%r5];",
        ),
    ],
)
def test_races_in_shared_memory(kind: str, body: str, distance: int) -> None:
    body = OPPOSITE.format(4 * distance) + body
    run(body.format(barrier="bar.sync 0;"))
    if distance == 1:
        assert_caught(f"shared-memory race.*{kind}", body.format(barrier=""))
        run(body.format(barrier=""), check_races=False)
        run(body.format(barrier="bar.warp.sync -1;"))
    else:
        # The second warp runs when the first has ended, so that the order of the two accesses is another one. A barrier
        # of the warp orders its own lanes only.
        for barrier in ("", "bar.warp.sync -1;"):
            assert_caught("shared-memory race|uninitialised shared", body.format(barrier=barrier))


def test_what_is_no_race_in_shared_memory() -> None:
    run("mov.u32 %r6, 7; st.shared.u32 [words], %r6;")  # all the same value
    assert_caught("race.*write after a write", "st.shared.u32 [words], %r1;")
    run("setp.eq.u32 %p1, %r1, 0; @%p1 st.shared.u32 [words], 0; bar.sync 0; red.shared.add.u32 [words], 1;")
    # Bytes of one word belong to different threads.
    run("mov.u16 %h1, 1; mov.u32 %r5, words; add.u32 %r5, %r5, %r1; st.shared.u8 [%r5], %h1; ld.shared.u8 %h2, [%r5];")
    # Other words than the one that was written.
    run("st.shared.u32 [%r3], %r1; ld.shared.u32 %r6, [%r3]; st.shared.u32 [%r3], %r6;")


def test_several_readers_are_remembered() -> None:
    # Threads 3 and 40 read, then thread 3 writes: the race is with thread 40.
    body = """
  st.shared.u32 [%r3], %r1; bar.sync 0;
  setp.eq.u32 %p1, %r1, 3; setp.eq.or.u32 %p2, %r1, 40, %p1;
  @%p2 ld.shared.u32 %r6, [words];
  {barrier}
  @%p1 st.shared.u32 [words], 5;"""
    run(body.format(barrier="bar.sync 0;"))
    # Warp 1 must run before warp 0 writes; a barrier that only warp 1 and 0 pass at different times would order them.
    order = "setp.lt.u32 %p3, %r1, 32; @%p3 bar.sync 2, 64; @!%p3 bar.arrive 2, 64;"
    run(body.format(barrier=order))
    # The other way round, warp 0 does not wait for warp 1: warp 1 then writes what warp 0 may still read.
    reverse = body.replace("@%p1 st", "setp.eq.u32 %p1, %r1, 40; @%p1 st")
    run(reverse.format(barrier="bar.sync 0;"))
    assert_caught("race.*write after a read", reverse.format(barrier=""))


@pytest.mark.parametrize(
    "collective",
    [
        "shfl.sync.bfly.b32 %r4, %r1, 1, 31, {};",
        "vote.sync.ballot.b32 %r4, %p1, {};",
        "match.any.sync.b32 %r4, %r1, {};",
        "redux.sync.add.u32 %r4, %r1, {};",
        "bar.warp.sync {};",
    ],
)
def test_missing_lanes(collective: str) -> None:
    setup = "mov.u32 %r5, %laneid; setp.lt.u32 %p1, %r5, 16;\n"
    run(setup + collective.format("-1"))
    run(setup + "@%p1 bra low; bra done;\nlow:\n" + collective.format("0xffff") + "\ndone:")
    missing = "missing lanes"
    assert_caught(missing, setup + "@%p1 bra low; bra done;\nlow:\n" + collective.format("-1") + "\ndone:")
    assert_caught(missing, setup + "@%p1 " + collective.format("-1"))
    # Lanes that have left cannot be named, either.
    assert_caught(missing, setup + "@!%p1 exit;\n" + collective.format("-1"))
    assert_caught("its member mask does not name", setup + collective.format("0xffff"))


def test_lanes_that_arrive_later_are_not_missing() -> None:
    body = """
  mov.u32 %r5, %laneid; setp.lt.u32 %p1, %r5, 16;
  mov.u32 %r6, 0;
  bra start;
again:
  mov.u32 %r6, 1;
start:
  @%p1 bra meet;
  setp.eq.u32 %p2, %r6, 0;
  @%p2 bra again;
meet:
  shfl.sync.bfly.b32 %r4, %r1, 16, 31, -1;
  st.global.u32 [%d2], %r4;"""
    np.testing.assert_array_equal(run(body, 32), np.arange(32) ^ 16)


def test_reading_from_a_lane_that_does_not_take_part() -> None:
    body = "mov.u32 %r5, %laneid; setp.lt.u32 %p1, %r5, 16; @!%p1 exit; shfl.sync.bfly.b32 %r4, %r1, {}, 31, 0xffff;"
    run(body.format(8))
    assert_caught("shfl reads from lane 16", body.format(16))


@pytest.mark.parametrize(
    "instruction",
    [
        "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {{%r4}}, [words];",
        "mma.sync.aligned.m16n8k8.row.col.f16.f16.f16.f16 {{%r4, %r5}}, {{%r6, %r7}}, {{%r8}}, {{%r9, %r10}};",
    ],
)
def test_matrix_instructions_want_the_whole_warp(instruction: str) -> None:
    setup = "st.shared.u32 [%r3], %r1; bar.sync 0; mov.u32 %r5, %laneid; setp.lt.u32 %p1, %r5, 31;\n"
    run((setup + instruction).format())
    assert_caught("missing lanes", (setup + "@%p1 " + instruction).format())


def test_divergent_barriers() -> None:
    low = "setp.lt.u32 %p1, %r1, {}; @%p1 bra low;\n bar.sync 0; bra done;\nlow: bar.sync 0;\ndone:"
    assert_caught("divergent barrier: other warps", low.format(32))
    assert_caught("divergent barrier: other threads of the warp", low.format(16))
    run(low.format(0))
    assert_caught("divergent barrier", "setp.lt.u32 %p1, %r1, 16; @%p1 bar.sync 0;")
    run("setp.lt.u32 %p1, %r1, 32; @%p1 bar.sync 1, 32;")


def test_deadlocks() -> None:
    split = "setp.lt.u32 %p1, %r1, 32; @%p1 bar.sync 1, 64; @!%p1 bar.sync {}, 64;"
    run(split.format(1))
    assert_caught(r"deadlock.*warp 0 waits at.*warp 1 waits at", split.format(2))
    assert_caught("deadlock", "bar.sync 1, 96;")
    assert_caught("no multiple of 32", "bar.sync 1, 40;")
    assert_caught("other warps came to it with", "setp.lt.u32 %p1, %r1, 32; @%p1 bar.sync 1, 64; @!%p1 bar.sync 1, 96;")


def test_endless_loops() -> None:
    assert_caught("endless loop", "again: bra again;", instruction_limit=100_000)
    run(
        "mov.u32 %r4, 0;\nagain: add.u32 %r4, %r4, 1; setp.lt.u32 %p1, %r4, 10000; @%p1 bra again;",
        instruction_limit=100_000,
    )


def test_warps_that_wait_for_each_other_in_loops_go_on() -> None:
    body = """
  mov.u32 %r4, 0;
  setp.ge.u32 %p1, %r1, 32;
  setp.eq.u32 %p2, %r1, 0;
  @%p2 st.shared.u32 [words], 0;
  bar.sync 0;
  @%p1 bra signal;
spin:
  atom.shared.or.b32 %r4, [words], 0;
  setp.eq.u32 %p3, %r4, 0;
  @%p3 bra spin;
  bra done;
signal:
  atom.shared.exch.b32 %r4, [words], 1;
done:"""
    run(body)


BETWEEN_BLOCKS = (
    "sub.u32 %r4, 1, %r20; mad.lo.u32 %r4, %r4, %r21, %r1; mul.wide.u32 %d3, %r4, 4; add.u64 %d3, %d3, %d;\n"
)
# %d3: the word of d that belongs to the same thread of the other of two blocks.


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("read after a write", "st.global.u32 [%d2], %r1; ld.global.u32 %r4, [{}];"),
        ("write after a write", "st.global.u32 [%d2], %r1; st.global.u32 [{}], %r1;"),
        ("write after a read", "ld.global.u32 %r4, [%d2]; st.global.u32 [{}], %r1;"),
        ("atomic operation after a write", "st.global.u32 [%d2], %r1; red.global.add.u32 [{}], 1;"),
        ("read after an atomic operation", "red.global.add.u32 [%d2], 1; ld.global.u32 %r4, [{}];"),
    ],
)
def test_races_between_blocks(kind: str, body: str) -> None:
    run(BETWEEN_BLOCKS + body.format("%d2"), 64, 2)
    first = "setp.ne.u32 %p1, %r20, 0;\n"  # the second block does only what follows the first semicolon
    own, other = body.format("%d3").split("; ", 1)
    assert_caught(f"race between blocks.*{kind}", f"{first}{BETWEEN_BLOCKS}{own};\n@%p1 {other}", 64, 2)
    run(f"{first}{BETWEEN_BLOCKS}{own};\n@%p1 {other}", 64, 2, check_races=False)


def test_what_is_no_race_between_blocks() -> None:
    np.testing.assert_array_equal(run("red.global.add.u32 [%d], 1;", 64, 2)[0], 128)
    run(f"{BETWEEN_BLOCKS} ld.global.u32 %r4, [%d3];", 64, 2)
    # Bytes of one word, by different blocks.
    run("mov.u16 %h1, 1; cvt.u64.u32 %d3, %r22; add.u64 %d3, %d3, %d; st.global.u8 [%d3], %h1;", 2, 2)


LAST_BLOCK = """
  mov.u32 %r5, 1;
  add.u32 %r6, %r20, %r5;
  st.global.u32 [%d2], %r6;
  {fence}
  atom.global.add.u32 %r7, [%d+16], 1;
  setp.eq.u32 %p1, %r7, 3;
  @!%p1 exit;
  ld.global.v2.u32 {{%r8, %r9}}, [%d];
  ld.global.v2.u32 {{%r10, %r11}}, [%d+8];
  add.u32 %r8, %r8, %r9; add.u32 %r8, %r8, %r10; add.u32 %r8, %r8, %r11;
  st.global.u32 [%d+20], %r8;"""


def run_last_block(fence: str) -> int:
    d = np.zeros(6, "u4")
    text = kernel(["a", "d"], PLACE + LAST_BLOCK.format(fence=fence), declarations=".shared .b32 words[1];\n")
    SimulatedGpu(text).launch("test", 4, 1, [np.zeros(4, "u4"), d])
    return int(d[5])


def test_the_last_block_may_read_what_others_wrote_before_a_fence() -> None:
    assert run_last_block("membar.gl;") == 1 + 2 + 3 + 4
    assert run_last_block("fence.acq_rel.gpu;") == 1 + 2 + 3 + 4
    with pytest.raises(extension().SimulationError, match="race between blocks"):
        run_last_block("")


def test_release_and_acquire_order_blocks() -> None:
    # The first block writes a word and sets a flag; the second looks at the flag and reads the word.
    body = """
  setp.eq.u32 %p1, %r20, 0;
  @%p1 st.global.u32 [%d], 5;
  @%p1 st.{store}.gpu.global.u32 [%d+4], 1;
  @!%p1 ld.{load}.gpu.global.u32 %r4, [%d+4];
  @!%p1 ld.global.u32 %r5, [%d];"""
    run(body.format(store="release", load="acquire"), 1, 2)
    assert_caught("race between blocks.*read after a write", body.format(store="relaxed", load="acquire"), 1, 2)


def test_a_later_launch_is_ordered_behind_an_earlier_one() -> None:
    writes = kernel(["d"], "  st.global.u32 [%d], 5;", name="writes")
    gpu = SimulatedGpu(writes)
    gpu.simulator.load(kernel(["d", "e"], "  ld.global.u32 %r1, [%d]; st.global.u32 [%e], %r1;", name="reads"))
    d, e = np.zeros(1, "u4"), np.zeros(1, "u4")
    access = extension().Access
    gpu.simulator.add_region(d.ctypes.data, 4, access.UNINITIALISED, "d")
    gpu.simulator.add_region(e.ctypes.data, 4, access.UNINITIALISED, "e")
    gpu.simulator.launch("writes", 1, 1, [d.ctypes.data])
    gpu.simulator.launch("reads", 1, 1, [d.ctypes.data, e.ctypes.data])
    assert e[0] == 5


def test_the_host_may_initialise_memory() -> None:
    gpu = SimulatedGpu(kernel(["d"], "  ld.global.u32 %r1, [%d];"))
    d = np.zeros(1, "u4")
    gpu.simulator.add_region(d.ctypes.data, 4, extension().Access.UNINITIALISED, "d")
    with pytest.raises(extension().SimulationError, match="read of uninitialised memory, byte 0 of 'd'"):
        gpu.simulator.launch("test", 1, 1, [d.ctypes.data])
    gpu.simulator.mark_initialised(d.ctypes.data, 4)
    gpu.simulator.launch("test", 1, 1, [d.ctypes.data])


def test_regions_must_not_overlap() -> None:
    gpu = SimulatedGpu(kernel(["d"], "  ld.global.u32 %r1, [%d];"))
    access = extension().Access
    gpu.simulator.add_region(4096, 64, access.READ_ONLY, "first")
    gpu.simulator.add_region(4096, 64, access.READ_WRITE, "again")
    gpu.simulator.add_region(4160, 64, access.READ_ONLY, "behind")
    gpu.simulator.add_region(4130, 0, access.READ_ONLY, "empty")
    for address in (4090, 4100, 4159, 4200):
        with pytest.raises(ValueError, match="region 'other' overlaps"):
            gpu.simulator.add_region(address, 32, access.READ_ONLY, "other")


def test_traps() -> None:
    run("setp.gt.u32 %p1, %r1, 100; @%p1 trap;")
    assert_caught("the kernel has stopped itself", "setp.gt.u32 %p1, %r1, 50; @%p1 trap;")


def test_jumps_beyond_a_table() -> None:
    table = "targets: .branchtargets one;\n mov.u32 %r4, {}; brx.idx %r4, targets;\none: ret;"
    run(table.format(0))
    assert_caught("beyond the table", table.format(1))


@pytest.mark.parametrize(
    ("grid", "block", "shared", "message"),
    [
        (1, 1056, 0, "more threads in a block"),
        (1, [1, 1, 65], 0, "more threads in a block"),
        (0, 32, 0, "empty grid"),
        ([1, 65536], 32, 0, "larger grid"),
        (1, 32, 163 * 1024 + 1, "bytes of shared memory"),
    ],
)
def test_limits_of_a_launch(grid: object, block: object, shared: int, message: str) -> None:
    gpu = SimulatedGpu(kernel(["d"], ""))
    with pytest.raises(ValueError, match=message):
        gpu.simulator.launch("test", grid, block, [0], shared)
    gpu.simulator.launch("test", 1, 1024, [0], 163 * 1024)


def test_arguments_of_a_launch() -> None:
    gpu = SimulatedGpu(kernel(["d"], ""))
    with pytest.raises(ValueError, match="1 parameters, got 2 arguments"):
        gpu.simulator.launch("test", 1, 1, [0, 0])
    with pytest.raises(ValueError, match="no kernel 'other'"):
        gpu.simulator.launch("other", 1, 1, [0])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("  frobnicate.u32 %r1, %r2;", "unknown instruction"),
        ("  add.u32 %r1, %r2, %nothing;", "unknown name '%nothing'"),
        ("  add.u32 %r1, %d1, %r2;", "register '%d1' has the wrong size"),
        ("  bra nowhere;", "unknown label"),
        ("  add.u32 %r1, %r2", "expected ',' or ';'"),
        ("  fma.rz.f32 %f1, %f2, %f3, %f4;", "rounding mode .rz is not supported"),
        ("  cp.async.bulk.commit_group;", "only cp.async of compute capability 8.0"),
        ("  wgmma.fence.sync.aligned;", "unknown instruction"),
    ],
)
def test_text_that_cannot_be_understood(body: str, message: str) -> None:
    with pytest.raises(extension().ParseError, match=re.escape(message)):
        SimulatedGpu(kernel(["d"], body)).launch("test", 1, 1, [0])
