"""Loads and stores in every space and width, moves between registers, and module variables."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from operands import integers
from ptx_kernels import kernel, run_lanes
from simulated_gpu import SimulatedGpu, Uninitialised, read_only

pytestmark = pytest.mark.simulator

THREAD = "  mov.u32 %r1, %tid.x;\n"


@pytest.mark.parametrize("kind", ["u8", "s8", "u16", "s16", "u32", "s32"])
def test_short_elements_are_extended(rng: np.random.Generator, kind: str) -> None:
    dtype = {"u": "u", "s": "i"}[kind[0]] + str(int(kind[1:]) // 8)
    a = integers(rng, dtype, 32)
    body = f"""{THREAD}
  mul.wide.u32 %d1, %r1, {a.itemsize};
  add.u64 %d1, %d1, %a;
  ld.global.{kind} {"%r2" if kind[1:] != "64" else "%d2"}, [%d1];
  mul.wide.u32 %d3, %r1, 4;
  add.u64 %d3, %d3, %d;
  st.global.u32 [%d3], %r2;"""
    d = np.empty(32, "i4" if kind[0] == "s" else "u4")
    SimulatedGpu(kernel(["a", "d"], body)).launch("test", 1, 32, [read_only(a), Uninitialised(d)])
    np.testing.assert_array_equal(d, a)


@pytest.mark.parametrize(
    ("load", "store"),
    [
        ("ld.global.nc.L1::no_allocate.L2::128B.v4.u32", "st.global.cs.v4.b32"),
        ("ld.global.v2.b64", "st.global.wt.v2.u64"),
        ("ld.volatile.global.v4.f32", "st.volatile.global.v4.f32"),
        ("ld.global.v4.u16", "st.global.v4.u16"),
        ("ld.global.v2.u8", "st.global.v2.u8"),
        ("ldu.global.v2.u32", "st.v2.u32"),
        ("ld.v4.u32", "st.global.cg.v4.u32"),
        ("ld.relaxed.gpu.global.u32", "st.release.sys.global.u32"),
        ("ld.acquire.gpu.global.u64", "st.relaxed.gpu.global.u64"),
        ("ld.global.L1::evict_last.L2::cache_hint.v4.u32", "st.global.L1::evict_first.L2::cache_hint.v4.u32"),
    ],
)
def test_vectors_and_cache_hints(rng: np.random.Generator, load: str, store: str) -> None:
    count = int(next((word[1:] for word in load.split(".") if word in ("v2", "v4")), "1"))
    kind = load.split(".")[-1]
    size = int(kind[1:]) // 8
    prefix = {1: "h", 2: "h", 4: "f" if kind[0] == "f" else "r", 8: "d"}[size]
    registers = ", ".join(f"%{prefix}{10 + i}" for i in range(count))
    vector = f"{{ {registers} }}" if count > 1 else registers
    policy = ", %d9" if "cache_hint" in load else ""
    body = f"""{THREAD}
  createpolicy.fractional.L2::evict_first.b64 %d9, 1.0;
  mul.wide.u32 %d1, %r1, {count * size};
  add.u64 %d2, %d1, %a;
  add.u64 %d3, %d1, %d;
  prefetch.global.L2 [%d2];
  {load} {vector}, [ %d2 + 0 ]{policy};
  {store} [%d3], {vector}{policy};"""
    a = rng.integers(0, 256, 32 * count * size).astype("u1")
    d = np.empty_like(a)
    SimulatedGpu(kernel(["a", "d"], body)).launch("test", 1, 32, [read_only(a), Uninitialised(d)])
    np.testing.assert_array_equal(d, a)


def test_packing_and_unpacking(rng: np.random.Generator) -> None:
    a, b = integers(rng, "u8"), integers(rng, "u4")
    body = """
  mov.b64 {{%r1, %r2}}, {a};
  mov.b64 {{%h1, %h2, %h3, %h4}}, {a};
  mov.b32 {{%h5, _}}, {b};
  mov.b32 {{_, %h6}}, {b};
  mov.b64 {d}, {{%r2, %r1}};
  mov.b64 {e}, {{%h4, %h3, %h2, %h1}};
  mov.b32 {f}, {{%h6, %h5}};"""
    got = run_lanes(body, {"a": a, "b": b}, {"d": "u8", "e": "u8", "f": "u4"})
    np.testing.assert_array_equal(got["d"], a << 32 | a >> 32)
    np.testing.assert_array_equal(got["e"].view("u2").reshape(-1, 4), a.view("u2").reshape(-1, 4)[:, ::-1])
    np.testing.assert_array_equal(got["f"], b << 16 | b >> 16)


def test_immediates_of_every_notation() -> None:
    body = """
  mov.u32 %r1, 0x10; mov.u32 %r2, 010; mov.u32 %r3, 0b11; mov.s32 %r4, -5; mov.u32 %r5, 7U;
  add.u32 %r1, %r1, %r2; add.u32 %r1, %r1, %r3; add.u32 %r1, %r1, %r4; add.u32 {d}, %r1, %r5;
  mov.f32 %f1, 0f3FC00000; add.f32 %f1, %f1, 0.25; mov.f64 %fd5, 0d3FE0000000000000; cvt.rn.f32.f64 %f2, %fd5;
  add.f32 %f1, %f1, %f2; add.f32 {e}, %f1, -1.0;
  mov.b32 {f}, 0f3FC00000;"""
    inputs = {"a": np.zeros(32, "u4")}
    got = run_lanes(body, inputs, {"d": "u4", "e": "f4", "f": "u4"})
    np.testing.assert_array_equal(got["d"], 16 + 8 + 3 - 5 + 7)
    np.testing.assert_array_equal(got["e"], 1.5 + 0.25 + 0.5 - 1)
    np.testing.assert_array_equal(got["f"], 0x3FC00000)


def test_registers_of_inner_scopes(rng: np.random.Generator) -> None:
    body = """
  mov.u32 %r1, 1;
  {{ .reg .u32 %r1; mov.u32 %r1, {a}; {{ .reg .u32 inner; add.u32 inner, %r1, 5; mov.u32 %r2, inner; }} }}
  add.u32 {d}, %r1, %r2;"""
    a = integers(rng, "u4")
    np.testing.assert_array_equal(run_lanes(body, {"a": a}, {"d": "u4"})["d"], a + 6)


SHARED = """
.shared .align 8 .b32 fixed[64];
.extern .shared .align 16 .b8 dynamic[];
"""


def test_static_and_dynamic_shared_memory() -> None:
    # Each thread writes to both; after the barrier it reads what the opposite thread has written.
    body = f"""{THREAD}
  .shared .align 4 .f32 own[32];
  shl.b32 %r2, %r1, 2;
  mov.u32 %r3, fixed;
  add.u32 %r3, %r3, %r2;
  mov.u64 %d1, dynamic;
  cvt.u64.u32 %d2, %r2;
  add.u64 %d1, %d1, %d2;
  mov.u32 %r4, own;
  add.u32 %r4, %r4, %r2;
  st.shared.u32 [%r3], %r1;
  st.shared.u32 [%r3+128], %r1;
  st.shared.u32 [%d1], %r2;
  st.shared.u32 [%r4], 7;
  bar.sync 0;
  sub.u32 %r5, 31, %r1;
  shl.b32 %r5, %r5, 2;
  cvt.u64.u32 %d3, %r5;
  mov.u64 %d4, dynamic;
  cvta.shared.u64 %d4, %d4;
  add.u64 %d4, %d4, %d3;
  ld.u32 %r6, [%d4];
  cvta.to.shared.u64 %d5, %d4;
  ld.shared.u32 %r7, [%d5];
  mov.u32 %r8, fixed;
  add.u32 %r8, %r8, %r5;
  ld.shared.u32 %r9, [%r8+128];
  ld.shared.u32 %r10, [own+4];
  add.u32 %r6, %r6, %r7;
  add.u32 %r6, %r6, %r9;
  add.u32 %r6, %r6, %r10;
  cvt.u64.u32 %d6, %r2;
  add.u64 %d6, %d6, %d;
  st.global.u32 [%d6], %r6;"""
    d = np.empty(32, "u4")
    gpu = SimulatedGpu(kernel(["d"], body, declarations=SHARED))
    report = gpu.launch("test", 1, 32, [Uninitialised(d)], dynamic_shared_bytes=128)
    opposite = 31 - np.arange(32)
    np.testing.assert_array_equal(d, 4 * opposite * 2 + opposite + 7)
    assert report.static_shared_bytes == 256 + 128


def test_local_memory_belongs_to_the_thread() -> None:
    body = f"""{THREAD}
  .local .align 16 .b8 depot[32];
  mov.u64 %d1, depot;
  cvta.local.u64 %d2, %d1;
  st.local.v2.u32 [depot+8], {{%r1, 5}};
  st.u32 [%d2+16], %r1;
  ld.u32 %r2, [%d2+8];
  ld.local.u32 %r3, [%d1+12];
  ld.local.u32 %r4, [%d1+16];
  isspacep.local %p1, %d2;
  isspacep.shared %p2, %d2;
  selp.u32 %r5, 100, 0, %p1;
  selp.u32 %r6, 1000, 0, %p2;
  add.u32 %r2, %r2, %r3; add.u32 %r2, %r2, %r4; add.u32 %r2, %r2, %r5; add.u32 %r2, %r2, %r6;
  mul.wide.u32 %d3, %r1, 4;
  add.u64 %d3, %d3, %d;
  st.global.u32 [%d3], %r2;"""
    d = np.empty(64, "u4")
    report = SimulatedGpu(kernel(["d"], body)).launch("test", 1, 64, [Uninitialised(d)])
    np.testing.assert_array_equal(d, 2 * np.arange(64) + 105)
    assert report.local_bytes == 32


MODULE_VARIABLES = """
.const .align 4 .u32 table[4] = {10, 20, 0x1E, 40};
.global .align 8 .b8 counter[8] = {1, 0, 0, 0, 2};
.const .align 4 .f32 factor = 0f40000000;
"""


def test_module_variables() -> None:
    body = f"""{THREAD}
  and.b32 %r2, %r1, 3;
  mul.wide.u32 %d1, %r2, 4;
  mov.u64 %d2, table;
  add.u64 %d2, %d2, %d1;
  ld.const.u32 %r3, [%d2];
  ld.const.f32 %f1, [factor];
  cvt.rzi.u32.f32 %r4, %f1;
  ld.global.u32 %r5, [counter+4];
  add.u32 %r3, %r3, %r4; add.u32 %r3, %r3, %r5;
  setp.eq.u32 %p1, %r1, 0;
  @%p1 st.global.u32 [counter+4], 100;
  mul.wide.u32 %d3, %r1, 4;
  add.u64 %d3, %d3, %d;
  st.global.u32 [%d3], %r3;"""
    gpu = SimulatedGpu(kernel(["d"], body, declarations=MODULE_VARIABLES))
    for held in (2, 100):
        d = np.empty(32, "u4")
        gpu.launch("test", 1, 32, [Uninitialised(d)])
        np.testing.assert_array_equal(d, np.tile([10, 20, 30, 40], 8) + 2 + held)


def test_parameters_of_every_kind() -> None:
    text = """.version 8.0
.target sm_80
.address_size 64
.visible .entry test(.param .u64 .ptr .global .align 16 d, .param .align 8 .b8 packed[24], .param .u8 small,
                     .param .f32 number, .param .b16 half_number)
.maxntid 32, 1, 1
{
  .reg .b64 %d<8>; .reg .b32 %r<8>; .reg .f32 %f<2>; .reg .b16 %h<4>;
  ld.param.u64 %d1, [d];
  ld.param.v2.u32 {%r1, %r2}, [packed+8];
  mov.b64 %d2, packed;
  ld.param.u32 %r3, [%d2+20];
  ld.param.u8 %h1, [small];
  ld.param.f32 %f1, [number];
  ld.param.u16 %h2, [half_number];
  st.global.v2.u32 [%d1], {%r1, %r2};
  st.global.u32 [%d1+8], %r3;
  st.global.u8 [%d1+12], %h1;
  st.global.f32 [%d1+16], %f1;
  st.global.u16 [%d1+20], %h2;
}
"""
    d = np.zeros(24, "u1")
    gpu = SimulatedGpu(text)
    packed = struct.pack("6I", *range(6))
    gpu.launch("test", 1, 1, [d, packed, 200, 1.5, 0x3C00])
    assert struct.unpack("3I", d[:12]) == (2, 3, 5)
    assert d[12] == 200
    assert d[16:20].view("f4")[0] == 1.5
    assert d[20:22].view("f2")[0] == 1.0
    assert [p.offset for p in gpu.simulator.parameters("test")] == [0, 8, 32, 36, 40]
    assert gpu.simulator.max_threads("test") == 32


def test_special_registers() -> None:
    names = ["%tid.x", "%tid.y", "%tid.z", "%ntid.x", "%ctaid.x", "%ctaid.y", "%nctaid.x", "%laneid", "%warpid"]
    stores = "".join(f"  mov.u32 %r3, {name};\n  st.global.u32 [%d1+{4 * i}], %r3;\n" for i, name in enumerate(names))
    body = f"""
  mov.u32 %r4, %tid.x; mov.u32 %r5, %tid.y; mov.u32 %r6, %tid.z;
  mad.lo.u32 %r4, %r5, 8, %r4; mad.lo.u32 %r4, %r6, 24, %r4;
  mov.u32 %r7, %ctaid.x; mov.u32 %r8, %ctaid.y; mad.lo.u32 %r7, %r8, 3, %r7; mad.lo.u32 %r4, %r7, 48, %r4;
  mul.wide.u32 %d1, %r4, {4 * len(names)};
  add.u64 %d1, %d1, %d;
{stores}"""
    d = np.empty((2, 3, 2, 3, 8, len(names)), "u4")  # ctaid.y, ctaid.x, tid.z, tid.y, tid.x
    SimulatedGpu(kernel(["d"], body)).launch("test", [3, 2], [8, 3, 2], [Uninitialised(d)])
    cy, cx, z, y, x = np.meshgrid(*map(np.arange, d.shape[:-1]), indexing="ij")
    thread = x + 8 * y + 24 * z
    expected = [x, y, z, np.full_like(x, 8), cx, cy, np.full_like(x, 3), thread % 32, thread // 32]
    np.testing.assert_array_equal(d, np.stack(expected, -1))


@pytest.mark.parametrize(
    ("name", "compare"),
    [("eq", np.equal), ("lt", np.less), ("le", np.less_equal), ("gt", np.greater), ("ge", np.greater_equal)],
)
def test_lane_masks(name: str, compare: np.ufunc) -> None:
    got = run_lanes(f"mov.u32 {{d}}, %lanemask_{name};", {"a": np.zeros(32, "u4")}, {"d": "u4"})["d"]
    lanes = np.arange(32, dtype="u4")
    np.testing.assert_array_equal(got, (compare(lanes, lanes[:, None]) * (np.uint32(1) << lanes)).sum(1))
