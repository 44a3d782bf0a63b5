"""Counters, on kernels for which they are known."""

from __future__ import annotations

from typing import Any

import pytest
from ptx_kernels import kernel
from simulated_gpu import SimulatedGpu, device_array, extension

pytestmark = pytest.mark.simulator

SHARED = ".shared .align 16 .b8 tile[8192];\n"
START = """
  mov.u32 %r1, %tid.x;
  mov.u32 %r3, tile;
"""


def run(body: str, blocks: int = 1, threads: int = 32, lines: bool = False) -> Any:
    gpu = SimulatedGpu(kernel(["a"], START + body, declarations=SHARED))
    gpu.options.count_lines = lines
    gpu.options.check_initialised = gpu.options.check_races = False
    return gpu.launch("test", blocks, threads, [device_array(1 << 16, "u1")])


def test_instructions_by_class() -> None:
    body = """
  setp.lt.u32 %p1, %r1, 10;
  @%p1 add.u32 %r2, %r1, 1;
  mul.f32 %f1, %f2, %f3;
  fma.rn.f16x2 %r4, %r5, %r6, %r7;
  cvt.rn.f32.u32 %f4, %r1;
  bar.sync 0;"""
    report = run(body, blocks=3, threads=64)
    counts = {name: (count.warp, count.thread) for name, count in report.instructions.items()}
    assert counts == {
        "parameter_load": (6, 192),
        "move": (12, 384),
        "predicate": (6, 192),
        "integer": (6, 30),
        "float": (6, 192),
        "half": (6, 192),
        "conversion": (6, 192),
        "barrier": (6, 192),
        "control": (6, 192),
    }
    assert report.total.warp == sum(warp for warp, _ in counts.values())
    assert report.total.thread == sum(thread for _, thread in counts.values())
    assert report.barriers == 3
    assert set(counts) <= set(extension().INSTRUCTION_CLASSES)


def test_a_loop_is_counted_as_often_as_it_runs() -> None:
    body = "mov.u32 %r2, 0;\nagain: add.u32 %r2, %r2, 1; setp.le.u32 %p1, %r2, %r1; @%p1 bra again;"
    report = run(body, lines=True)
    add = next(line for line in report.lines if line.text.startswith("add.u32 %r2"))
    assert (add.count.warp, add.count.thread) == (32, sum(range(1, 33)))


ADDRESS = "mul.lo.u32 %r2, %r1, {stride}; cvt.u64.u32 %d1, %r2; add.u64 %d1, %d1, %a; {access}"


@pytest.mark.parametrize(
    ("access", "stride", "sectors", "size"),
    [
        ("ld.global.u32 %r4, [%d1];", 4, 4, 4),
        ("ld.global.u32 %r4, [%d1];", 32, 32, 4),
        ("ld.global.u32 %r4, [%d1];", 0, 1, 4),
        ("ld.global.u8 %r4, [%d1];", 1, 1, 1),
        ("ld.global.v4.u32 {{%r4, %r5, %r6, %r7}}, [%d1];", 16, 16, 16),
        ("ld.global.v4.u32 {{%r4, %r5, %r6, %r7}}, [%d1];", 48, 32, 16),
        ("st.global.u64 [%d1], %d2;", 8, 8, 8),
        ("red.global.add.u32 [%d1], 1;", 4, 4, 4),
        ("cp.async.cg.shared.global [%r9], [%d1], 16;", 16, 16, 16),
    ],
)
def test_sectors(access: str, stride: int, sectors: int, size: int) -> None:
    body = "mad.lo.u32 %r9, %r1, 16, %r3;" + ADDRESS.format(stride=stride, access=access.format())
    report = run(body)
    traffic = {"st": report.global_stores, "re": report.global_atomics}.get(access[:2], report.global_loads)
    assert (traffic.requests, traffic.sectors, traffic.bytes) == (1, sectors, 32 * size)
    every = [report.global_loads, report.global_stores, report.global_atomics]
    assert sum(traffic.requests for traffic in every) == 1


def test_sectors_of_any_order() -> None:
    # Lanes in reverse, and only every second one.
    body = """
  sub.u32 %r2, 31, %r1; and.b32 %r4, %r1, 1; setp.eq.u32 %p1, %r4, 0;
  mul.wide.u32 %d1, %r2, 16; add.u64 %d1, %d1, %a;
  @%p1 ld.global.u32 %r5, [%d1];"""
    report = run(body)
    traffic = report.global_loads
    assert (traffic.requests, traffic.sectors, traffic.bytes) == (1, 16, 64)


@pytest.mark.parametrize(
    ("access", "stride", "wavefronts", "ideal"),
    [
        ("ld.shared.u32 %r4, [%r2];", 4, 1, 1),
        ("ld.shared.u32 %r4, [%r2];", 8, 2, 1),
        ("ld.shared.u32 %r4, [%r2];", 128, 32, 1),
        ("ld.shared.u32 %r4, [%r2];", 132, 1, 1),
        ("ld.shared.u32 %r4, [%r2];", 0, 1, 1),
        ("ld.shared.u16 %r4, [%r2];", 2, 1, 1),
        ("ld.shared.v2.u32 {{%r4, %r5}}, [%r2];", 8, 2, 2),
        ("ld.shared.v4.u32 {{%r4, %r5, %r6, %r7}}, [%r2];", 16, 4, 4),
        ("ld.shared.v4.u32 {{%r4, %r5, %r6, %r7}}, [%r2];", 32, 8, 4),
        ("ld.shared.v4.u32 {{%r4, %r5, %r6, %r7}}, [%r2];", 0, 4, 4),
        ("st.shared.u32 [%r2], %r1;", 8, 2, 1),
        ("red.shared.add.u32 [%r2], 1;", 8, 2, 1),
        ("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{%r4, %r5, %r6, %r7}}, [%r2];", 16, 4, 4),
        ("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{%r4, %r5, %r6, %r7}}, [%r2];", 128, 32, 4),
        ("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{%r4, %r5, %r6, %r7}}, [%r2];", 144, 4, 4),
        ("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {{%r4, %r5}}, [%r2];", 64, 8, 2),
    ],
)
def test_bank_conflicts(access: str, stride: int, wavefronts: int, ideal: int) -> None:
    report = run(f"mad.lo.u32 %r2, %r1, {stride}, %r3; {access.format()}")
    traffic = {"st": report.shared_stores, "re": report.shared_atomics}.get(access[:2], report.shared_loads)
    assert (traffic.requests, traffic.wavefronts, traffic.ideal_wavefronts) == (1, wavefronts, ideal)


def test_lines_tell_loads_apart() -> None:
    body = """
  mul.wide.u32 %d1, %r1, 16; add.u64 %d1, %d1, %a;
  ld.global.v4.u32 {%r4, %r5, %r6, %r7}, [%d1];
  ld.global.u32 %r8, [%a];
  ld.global.u32 %r8, [%a];"""
    report = run(body, blocks=2, lines=True)
    loads = [line for line in report.lines if line.text.startswith("ld.global")]
    assert [line.global_traffic.sectors for line in loads] == [32, 2, 2]
    text = kernel(["a"], START + body, declarations=SHARED).split("\n")
    assert all(line.text in text[line.line - 1] for line in loads)
    assert report.global_loads.sectors == 36


def test_lines_are_counted_on_request_only() -> None:
    assert run("").lines == []
