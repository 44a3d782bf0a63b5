"""cvt between all types and in all rounding modes, against exact references."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from operands import bfloat16_to_float, bfloat16s, float_to_bfloat16, floats, integers, round_exactly
from ptx_kernels import run_lanes

pytestmark = [pytest.mark.simulator, pytest.mark.filterwarnings("ignore:.*encountered in.*:RuntimeWarning")]

INTEGERS = {"u8": "u1", "s8": "i1", "u16": "u2", "s16": "i2", "u32": "u4", "s32": "i4", "u64": "u8", "s64": "i8"}
FLOATS = {"f16": "f2", "f32": "f4", "f64": "f8"}


@pytest.mark.parametrize("source", INTEGERS)
@pytest.mark.parametrize("target", INTEGERS)
def test_integers(rng: np.random.Generator, source: str, target: str) -> None:
    a = integers(rng, INTEGERS[source])
    info = np.iinfo(INTEGERS[target])
    body = f"cvt.{target}.{source} {{d}}, {{a}};"
    got = run_lanes(body, {"a": a}, {"d": INTEGERS[target]})["d"]
    np.testing.assert_array_equal(got, a.astype(INTEGERS[target]))
    got = run_lanes(body.replace("cvt", "cvt.sat"), {"a": a}, {"d": INTEGERS[target]})["d"]
    expected = [min(max(value, int(info.min)), int(info.max)) for value in a.tolist()]
    np.testing.assert_array_equal(got, np.array(expected, INTEGERS[target]))


def test_short_integers_fill_wider_registers(rng: np.random.Generator) -> None:
    a = integers(rng, "u4")
    body = "cvt.s32.s8 {d}, {a}; cvt.u32.u8 {e}, {a}; cvt.u32.u16 {f}, {a};"
    got = run_lanes(body, {"a": a}, {"d": "i4", "e": "u4", "f": "u4"})
    np.testing.assert_array_equal(got["d"], a.astype("i1"))
    np.testing.assert_array_equal(got["e"], a & 0xFF)
    np.testing.assert_array_equal(got["f"], a & 0xFFFF)


ROUNDINGS: dict[str, Callable[[float], float]] = {
    "rni": round,
    "rzi": math.trunc,
    "rmi": math.floor,
    "rpi": math.ceil,
}


@pytest.mark.parametrize("source", FLOATS)
@pytest.mark.parametrize("target", INTEGERS)
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_floats_to_integers(rng: np.random.Generator, rounding: str, target: str, source: str) -> None:
    a = floats(rng, FLOATS[source])
    a[:200] *= 100
    a[200:250] = rng.integers(-20, 20, 50) + 0.5
    info = np.iinfo(INTEGERS[target])
    nan = 0
    if source == "f64" or target in ("s64", "u64"):
        nan = int(info.min) if target[0] == "s" else 1 << (info.bits - 1)

    def convert(value: float) -> int:
        if math.isnan(value):
            return nan
        if math.isinf(value):
            return int(info.max) if value > 0 else int(info.min)
        return min(max(int(ROUNDINGS[rounding](value)), int(info.min)), int(info.max))

    got = run_lanes(f"cvt.{rounding}.{target}.{source} {{d}}, {{a}};", {"a": a}, {"d": INTEGERS[target]})["d"]
    np.testing.assert_array_equal(got, np.array([convert(float(v)) for v in a], INTEGERS[target]))


@pytest.mark.parametrize("source", INTEGERS)
@pytest.mark.parametrize("target", FLOATS)
def test_integers_to_floats(rng: np.random.Generator, source: str, target: str) -> None:
    a = integers(rng, INTEGERS[source])
    got = run_lanes(f"cvt.rn.{target}.{source} {{d}}, {{a}};", {"a": a}, {"d": FLOATS[target]})["d"]
    if target == "f64":
        expected = np.array([float(value) for value in a.tolist()])
    else:
        expected = np.array([round_exactly(Fraction(value), FLOATS[target]) for value in a.tolist()])
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("source", FLOATS)
@pytest.mark.parametrize("target", FLOATS)
def test_floats(rng: np.random.Generator, source: str, target: str) -> None:
    a = floats(rng, FLOATS[source])
    rounding = ".rn" if FLOATS[target] < FLOATS[source] else ""
    got = run_lanes(f"cvt{rounding}.{target}.{source} {{d}}, {{a}};", {"a": a}, {"d": FLOATS[target]})["d"]
    np.testing.assert_array_equal(got, a.astype(FLOATS[target]))


def neighbour(values: np.ndarray, direction: float) -> np.ndarray:
    return np.nextafter(values, values.dtype.type(direction))


@pytest.mark.parametrize(("target", "source"), [("f16", "f32"), ("f32", "f64"), ("f16", "f64"), ("f32", "s32")])
@pytest.mark.parametrize("rounding", ["rz", "rm", "rp"])
def test_directed_rounding(rng: np.random.Generator, rounding: str, target: str, source: str) -> None:
    a = integers(rng, "i4") if source == "s32" else floats(rng, FLOATS[source])
    got = run_lanes(f"cvt.{rounding}.{target}.{source} {{d}}, {{a}};", {"a": a}, {"d": FLOATS[target]})["d"]
    exact, nearest = a.astype("f8"), a.astype(FLOATS[target])
    below = np.where(nearest.astype("f8") > exact, neighbour(nearest, -np.inf), nearest)
    above = np.where(nearest.astype("f8") < exact, neighbour(nearest, np.inf), nearest)
    expected = {"rm": below, "rp": above, "rz": np.where(exact > 0, below, above)}[rounding]
    np.testing.assert_array_equal(got, np.where(np.isnan(exact), np.nan, expected))


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_floats_to_whole_floats(rng: np.random.Generator, rounding: str) -> None:
    a = floats(rng, "f4")
    a[:100] = rng.integers(-20, 20, 100) + 0.5
    function = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}[rounding]
    got = run_lanes(f"cvt.{rounding}.f32.f32 {{d}}, {{a}};", {"a": a}, {"d": "f4"})["d"]
    np.testing.assert_array_equal(got, function(a))


def test_bfloat16(rng: np.random.Generator) -> None:
    a, b = floats(rng, "f4"), bfloat16s(rng)
    got = run_lanes("cvt.rn.bf16.f32 {d}, {a}; cvt.f32.bf16 {e}, {b};", {"a": a, "b": b}, {"d": "u2", "e": "f4"})
    np.testing.assert_array_equal(got["d"], float_to_bfloat16(a))
    np.testing.assert_array_equal(got["e"], bfloat16_to_float(b))


def test_pairs(rng: np.random.Generator) -> None:
    a, b = floats(rng, "f4"), floats(rng, "f4")
    body = (
        "cvt.rn.f16x2.f32 {d}, {a}, {b}; cvt.rn.bf16x2.f32 {e}, {a}, {b};"
        "cvt.rz.f16x2.f32 {f}, {a}, {b}; cvt.rn.relu.f16x2.f32 {g}, {a}, {b};"
    )
    got = run_lanes(body, {"a": a, "b": b}, dict.fromkeys("defg", "u4"))
    halves = {name: [(got[name] >> shift & 0xFFFF).astype("u2") for shift in (16, 0)] for name in "defg"}
    for part, source in enumerate((a, b)):
        nearest = source.astype("f2")
        np.testing.assert_array_equal(halves["d"][part].view("f2"), nearest)
        np.testing.assert_array_equal(halves["e"][part], float_to_bfloat16(source))
        too_large = np.abs(nearest.astype("f8")) > np.abs(source.astype("f8"))
        np.testing.assert_array_equal(halves["f"][part].view("f2"), np.where(too_large, neighbour(nearest, 0), nearest))
        np.testing.assert_array_equal(halves["g"][part].view("f2"), np.where(nearest < 0, 0, nearest))


def test_saturation_to_the_unit_interval(rng: np.random.Generator) -> None:
    a = floats(rng, "f4")
    got = run_lanes("cvt.rn.sat.f16.f32 {d}, {a};", {"a": a}, {"d": "f2"})["d"]
    np.testing.assert_array_equal(got, np.where(np.isnan(a), 0, np.clip(a, 0, 1)).astype("f2"))


def test_tf32(rng: np.random.Generator) -> None:
    a = rng.standard_normal(256).astype("f4")
    got = run_lanes("cvt.rna.tf32.f32 %r1, {a}; mov.b32 {d}, %r1;", {"a": a.view("u4")}, {"d": "u4"})["d"].view("f4")
    np.testing.assert_allclose(got, a, rtol=2**-11)
    np.testing.assert_array_equal(got.view("u4") & 0x1FFF, 0)
