"""mma, ldmatrix, stmatrix and movmatrix against matrix products and the documented fragments."""

from __future__ import annotations

import numpy as np
import pytest
from operands import bfloat16_to_float, float_to_bfloat16
from ptx_kernels import kernel
from simulated_gpu import SimulatedGpu, Uninitialised, read_only

pytestmark = pytest.mark.simulator

LANES = np.arange(32)
GROUP, IN_GROUP = LANES // 4, LANES % 4

# Fragments by the manual: element e of register i in lane (g, q), where n elements share a register.


def a_fragment(matrix: np.ndarray, per_register: int) -> np.ndarray:
    """[lanes, registers * n] from [16, K]."""
    registers = matrix.size // (32 * per_register)
    columns = []
    for i in range(registers):
        for e in range(per_register):
            k = per_register * IN_GROUP + e + 4 * per_register * (i // 2)
            columns.append(matrix[GROUP + 8 * (i % 2), k])
    return np.stack(columns, 1)


def b_fragment(matrix: np.ndarray, per_register: int) -> np.ndarray:
    """[lanes, registers * n] from [K, 8]."""
    columns = []
    for i in range(matrix.size // (32 * per_register)):
        for e in range(per_register):
            columns.append(matrix[per_register * IN_GROUP + e + 4 * per_register * i, GROUP])
    return np.stack(columns, 1)


def c_fragment(matrix: np.ndarray) -> np.ndarray:
    """[lanes, 4] from [16, 8]."""
    return np.stack([matrix[GROUP + 8 * (i // 2), 2 * IN_GROUP + i % 2] for i in range(4)], 1)


def run_mma(instruction: str, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Fragments [32, registers] as 32-bit words; returns that of D."""
    counts = [c.shape[1], a.shape[1], b.shape[1], c.shape[1]]
    names = [[f"%r{10 + 8 * i + j}" for j in range(count)] for i, count in enumerate(counts)]
    body = "  mov.u32 %r1, %tid.x;\n"
    for operand, registers in zip("abc", names[1:], strict=True):
        body += f"  mul.wide.u32 %d1, %r1, {4 * len(registers)};\n  add.u64 %d1, %d1, %{operand};\n"
        body += "".join(f"  ld.global.u32 {name}, [%d1+{4 * i}];\n" for i, name in enumerate(registers))
    vectors = ", ".join("{" + ", ".join(registers) + "}" for registers in names)
    body += f"  {instruction} {vectors};\n  mul.wide.u32 %d1, %r1, {4 * counts[0]};\n  add.u64 %d1, %d1, %d;\n"
    body += "".join(f"  st.global.u32 [%d1+{4 * i}], {name};\n" for i, name in enumerate(names[0]))
    d = np.empty((32, counts[0]), "u4")
    report = SimulatedGpu(kernel(["a", "b", "c", "d"], body)).launch(
        "test", 1, 32, [*map(read_only, (a, b, c)), Uninitialised(d)]
    )
    assert report.matrix_products == 1
    return d


def words(fragment: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(fragment).view("u4")


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_products_of_16_bits(rng: np.random.Generator, kind: str, depth: int) -> None:
    a, b, c = (rng.standard_normal(shape).astype("f4") for shape in ((16, depth), (depth, 8), (16, 8)))
    if kind == "f16":
        a, b = a.astype("f2"), b.astype("f2")
        exact = a.astype("f8") @ b.astype("f8") + c
        fragments = a_fragment(a, 2), b_fragment(b, 2)
    else:
        a, b = float_to_bfloat16(a), float_to_bfloat16(b)
        exact = bfloat16_to_float(a).astype("f8") @ bfloat16_to_float(b).astype("f8") + c
        fragments = a_fragment(a, 2), b_fragment(b, 2)
    instruction = f"mma.sync.aligned.m16n8k{depth}.row.col.f32.{kind}.{kind}.f32"
    d = run_mma(instruction, *map(words, fragments), words(c_fragment(c)))
    np.testing.assert_allclose(d.view("f4"), c_fragment(exact), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("depth", [8, 16])
def test_products_summed_in_half(rng: np.random.Generator, depth: int) -> None:
    a, b, c = (rng.standard_normal(shape).astype("f2") for shape in ((16, depth), (depth, 8), (16, 8)))
    exact = (a.astype("f8") @ b.astype("f8") + c.astype("f8")).astype("f2")
    instruction = f"mma.sync.aligned.m16n8k{depth}.row.col.f16.f16.f16.f16"
    d = run_mma(instruction, words(a_fragment(a, 2)), words(b_fragment(b, 2)), words(c_fragment(c)))
    np.testing.assert_allclose(d.view("f2"), c_fragment(exact).astype("f4"), rtol=2**-10, atol=2**-10)


@pytest.mark.parametrize("depth", [16, 32])
@pytest.mark.parametrize("left", ["s8", "u8"])
@pytest.mark.parametrize("right", ["s8", "u8"])
def test_products_of_8_bits(rng: np.random.Generator, left: str, right: str, depth: int) -> None:
    dtypes = {"s8": "i1", "u8": "u1"}
    a = rng.integers(0, 256, (16, depth)).astype("u1").view(dtypes[left])
    b = rng.integers(0, 256, (depth, 8)).astype("u1").view(dtypes[right])
    c = rng.integers(-(2**30), 2**30, (16, 8)).astype("i4")
    exact = a.astype("i4") @ b.astype("i4") + c
    instruction = f"mma.sync.aligned.m16n8k{depth}.row.col.s32.{left}.{right}.s32"
    d = run_mma(instruction, words(a_fragment(a, 4)), words(b_fragment(b, 4)), words(c_fragment(c)))
    np.testing.assert_array_equal(d.view("i4"), c_fragment(exact))


def test_saturated_sums() -> None:
    a, b = np.full((16, 16), 127, "i1"), np.full((16, 8), 127, "i1")
    c = np.full((16, 8), 2**31 - 1, "i4")
    for suffix, expected in ((".satfinite", 2**31 - 1), ("", 2**31 - 1 + 16 * 127 * 127 - 2**32)):
        instruction = f"mma.sync.aligned.m16n8k16.row.col{suffix}.s32.s8.s8.s32"
        d = run_mma(instruction, words(a_fragment(a, 4)), words(b_fragment(b, 4)), words(c_fragment(c)))
        np.testing.assert_array_equal(d.view("i4"), expected)


def test_products_of_tf32(rng: np.random.Generator) -> None:
    a, b, c = (rng.standard_normal(shape).astype("f4") for shape in ((16, 8), (8, 8), (16, 8)))
    short = [(matrix.view("u4") & 0xFFFFE000).view("f4").astype("f8") for matrix in (a, b)]
    instruction = "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"
    d = run_mma(instruction, words(a_fragment(a, 1)), words(b_fragment(b, 1)), words(c_fragment(c)))
    np.testing.assert_allclose(d.view("f4"), c_fragment(short[0] @ short[1] + c), rtol=1e-6, atol=1e-6)


def test_infinities_and_nans_spread() -> None:
    a, b, c = np.ones((16, 16), "f2"), np.ones((16, 8), "f2"), np.zeros((16, 8), "f4")
    a[3, 5], a[7, 1], b[2, 4] = np.inf, np.nan, -np.inf
    instruction = "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"
    d = run_mma(instruction, words(a_fragment(a, 2)), words(b_fragment(b, 2)), words(c_fragment(c)))
    with np.errstate(invalid="ignore"):
        expected = a.astype("f8") @ b.astype("f8")
    np.testing.assert_array_equal(d.view("f4"), c_fragment(expected))


SHARED = ".shared .align 16 .b8 tile[512];\n"


def run_matrix_access(rng: np.random.Generator, access: str) -> tuple[np.ndarray, np.ndarray]:
    """Copies 512 bytes to shared memory, runs the lines (row address of the lane in %r5, fragments %r10 .. %r13), and
    returns the bytes given and the fragments."""
    body = f"""
  mov.u32 %r1, %tid.x;
  mul.wide.u32 %d1, %r1, 16;
  add.u64 %d1, %d1, %a;
  ld.global.v4.u32 {{%r10, %r11, %r12, %r13}}, [%d1];
  shl.b32 %r2, %r1, 4;
  mov.u32 %r3, tile;
  add.u32 %r5, %r3, %r2;
  st.shared.v4.u32 [%r5], {{%r10, %r11, %r12, %r13}};
  bar.warp.sync -1;
{access}
  mul.wide.u32 %d1, %r1, 16;
  add.u64 %d1, %d1, %d;
  st.global.v4.u32 [%d1], {{%r10, %r11, %r12, %r13}};"""
    a = rng.integers(0, 2**16, (4, 8, 8)).astype("u2")
    d = np.empty((32, 4), "u4")
    SimulatedGpu(kernel(["a", "d"], body, declarations=SHARED)).launch("test", 1, 32, [read_only(a), Uninitialised(d)])
    return a, d


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("transposed", ["", ".trans"])
def test_loading_matrices(rng: np.random.Generator, transposed: str, count: int) -> None:
    registers = ", ".join(f"%r{10 + i}" for i in range(count))
    a, d = run_matrix_access(
        rng, f"  ldmatrix.sync.aligned.m8n8.x{count}{transposed}.shared.b16 {{{registers}}}, [%r5];"
    )
    for i in range(count):
        matrix = a[i].T if transposed else a[i]
        expected = matrix[GROUP, 2 * IN_GROUP] | matrix[GROUP, 2 * IN_GROUP + 1].astype("u4") << 16
        np.testing.assert_array_equal(d[:, i], expected)


@pytest.mark.parametrize("transposed", ["", ".trans"])
def test_storing_matrices(rng: np.random.Generator, transposed: str) -> None:
    # What is stored in the fragments' order comes back as rows.
    a, d = run_matrix_access(
        rng,
        f"""
  ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{%r10, %r11, %r12, %r13}}, [%r5];
  bar.warp.sync -1;
  stmatrix.sync.aligned.m8n8.x4{transposed}.shared.b16 [%r5], {{%r10, %r11, %r12, %r13}};
  bar.warp.sync -1;
  ld.shared.v4.u32 {{%r10, %r11, %r12, %r13}}, [%r5];""",
    )
    got = d.view("u2").reshape(4, 8, 8)
    np.testing.assert_array_equal(got, a.transpose(0, 2, 1) if transposed else a)


def test_transposing_a_matrix(rng: np.random.Generator) -> None:
    a, d = run_matrix_access(
        rng,
        """
  ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r20}, [%r5];
  movmatrix.sync.aligned.m8n8.trans.b16 %r10, %r20;""",
    )
    expected = a[0].T[GROUP, 2 * IN_GROUP] | a[0].T[GROUP, 2 * IN_GROUP + 1].astype("u4") << 16
    np.testing.assert_array_equal(d[:, 0], expected)
