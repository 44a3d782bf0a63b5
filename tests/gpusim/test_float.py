"""Floating-point arithmetic against numpy and exact fractions, on random operands with edges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from operands import bfloat16_to_float, bfloat16s, float_to_bfloat16, floats, fused_multiply_add
from ptx_kernels import run_lanes

pytestmark = [pytest.mark.simulator, pytest.mark.filterwarnings("ignore:.*encountered in.*:RuntimeWarning")]


class Format:
    """How a type is drawn, stored and read as float64."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.storage = {"f16": "f2", "bf16": "u2", "f32": "f4", "f64": "f8"}[name]
        self.target = {"f16": "f2", "bf16": "bf16", "f32": "f4", "f64": "f8"}[name]

    def draw(self, rng: np.random.Generator, count: int = 512) -> np.ndarray:
        return bfloat16s(rng, count) if self.name == "bf16" else floats(rng, self.storage, count)

    def wide(self, stored: np.ndarray) -> np.ndarray:
        return (bfloat16_to_float(stored) if self.name == "bf16" else stored).astype("f8")

    def stored(self, values: np.ndarray) -> np.ndarray:
        """Float64 to the type, to nearest even; exact in float32 for bf16."""
        return float_to_bfloat16(values.astype("f4")) if self.name == "bf16" else values.astype(self.storage)


def pack(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return low.view("u2").astype("u4") | high.view("u2").astype("u4") << 16


def assert_same(got: np.ndarray, expected: np.ndarray, body: str, signed_zeros: bool = True) -> None:
    """Equal values, NaN with NaN, and zeros of the same sign."""
    np.testing.assert_array_equal(got, expected, err_msg=body)
    if signed_zeros:
        numbers = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(got[numbers]), np.signbit(expected[numbers]), err_msg=body)


def check(
    rng: np.random.Generator, kind: str, body: str, count: int, reference: Callable[..., np.ndarray], **options: Any
) -> None:
    """Runs the body on one type, and packed where there is such a type; `reference` works on float64."""
    form = Format(kind)
    names = "abc"[:count]
    low, high = ([form.draw(rng) for _ in names] for _ in range(2))
    expected = [form.stored(reference(*map(form.wide, operands))) for operands in (low, high)]
    got = run_lanes(body.format(t=kind), dict(zip(names, low, strict=True)), {"d": form.storage})["d"]
    assert_same(form.wide(got), form.wide(expected[0]), body, **options)
    if kind in ("f16", "bf16"):
        packed = {name: pack(*pair) for name, *pair in zip(names, low, high, strict=True)}
        both = run_lanes(body.format(t=kind + "x2"), packed, {"d": "u4"})["d"]
        for part, wanted in zip((both & 0xFFFF, both >> 16), expected, strict=True):
            assert_same(form.wide(part.astype("u2").view(form.storage)), form.wide(wanted), body, **options)


@pytest.mark.parametrize("kind", ["f16", "f32", "f64"])
@pytest.mark.parametrize(("name", "function"), [("add", np.add), ("sub", np.subtract), ("mul", np.multiply)])
def test_sums_and_products(rng: np.random.Generator, name: str, function: Callable[..., np.ndarray], kind: str) -> None:
    # In float64 they are exact for f16, and good enough to be rounded once more for f32.
    check(rng, kind, f"{name}.rn.{{t}} {{{{d}}}}, {{{{a}}}}, {{{{b}}}};", 2, function)


@pytest.mark.parametrize(
    ("name", "operands"),
    [
        ("add", lambda a, b: (a, np.ones_like(a), b)),
        ("sub", lambda a, b: (a, np.ones_like(a), -b)),
        ("mul", lambda a, b: (a, b, np.zeros_like(a))),
    ],
)
def test_sums_and_products_of_bf16(
    rng: np.random.Generator, name: str, operands: Callable[..., tuple[np.ndarray, ...]]
) -> None:
    def reference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return fused_multiply_add(*operands(a, b), "bf16")

    check(rng, "bf16", f"{name}.rn.{{t}} {{{{d}}}}, {{{{a}}}}, {{{{b}}}};", 2, reference, signed_zeros=False)


@pytest.mark.parametrize(("kind", "target"), [("f16", "f2"), ("bf16", "bf16"), ("f32", "f4")])
def test_fused_multiply_add(rng: np.random.Generator, kind: str, target: str) -> None:
    body = "fma.rn.{t} {{d}}, {{a}}, {{b}}, {{c}};"
    check(rng, kind, body, 3, lambda a, b, c: fused_multiply_add(a, b, c, target), signed_zeros=False)


def test_fused_multiply_add_rounds_once() -> None:
    # 1.0078125 * 1.5 lies in the middle between two bf16 numbers; an addend far below decides.
    addends = np.tile(np.array([2**-100, -(2**-100)], "f4"), 16)
    inputs = {name: float_to_bfloat16(np.full(32, value, "f4")) for name, value in (("a", 1.0078125), ("b", 1.5))}
    got = run_lanes("fma.rn.bf16 {d}, {a}, {b}, {c};", inputs | {"c": float_to_bfloat16(addends)}, {"d": "u2"})["d"]
    np.testing.assert_array_equal(bfloat16_to_float(got), np.where(addends > 0, 1.515625, 1.5078125))
    # The last bits of a product of floats must survive.
    a, c = np.full(32, np.float32(1 + 2**-12)), np.full(32, np.float32(-(1 + 2**-11)))
    got = run_lanes("fma.rn.f32 {d}, {a}, {a}, {c};", {"a": a, "c": c}, {"d": "f4"})["d"]
    np.testing.assert_array_equal(got, np.float32(2**-24))


@pytest.mark.parametrize("kind", ["f16", "bf16", "f32"])
def test_sign_bits(rng: np.random.Generator, kind: str) -> None:
    check(rng, kind, "neg.{t} {{d}}, {{a}};", 1, np.negative)
    check(rng, kind, "abs.{t} {{d}}, {{a}};", 1, np.abs)


def extremum(maximum: bool, propagates: bool) -> Callable[..., np.ndarray]:
    def reference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        less = (a < b) | ((a == b) & np.signbit(a) & ~np.signbit(b))
        chosen = np.where(less != maximum, a, b)
        either, both = np.isnan(a) | np.isnan(b), np.isnan(a) & np.isnan(b)
        if propagates:
            return np.where(either, np.nan, chosen)
        return np.where(both, np.nan, np.where(np.isnan(a), b, np.where(np.isnan(b), a, chosen)))

    return reference


@pytest.mark.parametrize("kind", ["f16", "bf16", "f32"])
@pytest.mark.parametrize("name", ["min", "max"])
@pytest.mark.parametrize("modifier", ["", ".NaN"])
def test_extrema(rng: np.random.Generator, name: str, modifier: str, kind: str) -> None:
    reference = extremum(name == "max", modifier == ".NaN")
    check(rng, kind, f"{name}{modifier}.{{t}} {{{{d}}}}, {{{{a}}}}, {{{{b}}}};", 2, reference)


def test_flushing_of_subnormal_numbers(rng: np.random.Generator) -> None:
    a = floats(rng, "f4")
    a[:128] = rng.integers(1, 1 << 23, 128).astype("u4").view("f4")
    b = np.ones(len(a), "f4")
    flushed = np.where(np.abs(a) < np.finfo("f4").tiny, np.copysign(np.float32(0), a), a)
    got = run_lanes("mul.ftz.f32 {d}, {a}, {b}; mul.f32 {e}, {a}, {b};", {"a": a, "b": b}, {"d": "f4", "e": "f4"})
    assert_same(got["d"], flushed, "mul.ftz.f32")
    assert_same(got["e"], a, "mul.f32")


def test_saturation_and_relu(rng: np.random.Generator) -> None:
    a, b, c = (floats(rng, "f4") for _ in range(3))
    got = run_lanes("add.sat.f32 {d}, {a}, {b};", {"a": a, "b": b}, {"d": "f4"})["d"]
    total = (a + b).astype("f4")
    np.testing.assert_array_equal(got, np.where(np.isnan(total), 0, np.clip(total, 0, 1)))
    a, b, c = (floats(rng, "f2") for _ in range(3))
    got = run_lanes("fma.rn.relu.f16 {d}, {a}, {b}, {c};", {"a": a, "b": b, "c": c}, {"d": "f2"})["d"]
    total = fused_multiply_add(a, b, c, "f2")
    np.testing.assert_array_equal(got, np.where(np.isnan(total), np.nan, np.maximum(total, 0)))


SPECIAL: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "ex2.approx.f32": np.exp2,
    "lg2.approx.f32": np.log2,
    "rcp.approx.f32": lambda a: 1 / a,
    "rcp.rn.f32": lambda a: 1 / a,
    "sqrt.approx.f32": np.sqrt,
    "sqrt.rn.f32": np.sqrt,
    "rsqrt.approx.f32": lambda a: 1 / np.sqrt(a),
    "tanh.approx.f32": np.tanh,
}


@pytest.mark.parametrize("name", SPECIAL)
def test_special_functions(rng: np.random.Generator, name: str) -> None:
    a = floats(rng, "f4")
    got = run_lanes(f"{name} {{d}}, {{a}};", {"a": a}, {"d": "f4"})["d"]
    # Beyond what a float holds, the reference is infinite or zero, too.
    np.testing.assert_allclose(got, SPECIAL[name](a.astype("f8")).astype("f4"), rtol=3e-7)


def test_sine_and_cosine(rng: np.random.Generator) -> None:
    a = (rng.standard_normal(512) * 10).astype("f4")
    got = run_lanes("sin.approx.f32 {d}, {a}; cos.approx.f32 {e}, {a};", {"a": a}, {"d": "f4", "e": "f4"})
    np.testing.assert_allclose(got["d"], np.sin(a.astype("f8")), atol=1e-6)
    np.testing.assert_allclose(got["e"], np.cos(a.astype("f8")), atol=1e-6)


@pytest.mark.parametrize("name", ["div.rn.f32", "div.full.f32", "div.approx.f32"])
def test_division(rng: np.random.Generator, name: str) -> None:
    a, b = floats(rng, "f4"), floats(rng, "f4")
    got = run_lanes(f"{name} {{d}}, {{a}}, {{b}};", {"a": a, "b": b}, {"d": "f4"})["d"]
    assert_same(got, a / b, name)


def test_copied_signs_and_classes(rng: np.random.Generator) -> None:
    a, b = floats(rng, "f4"), floats(rng, "f4")
    got = run_lanes("copysign.f32 {d}, {a}, {b};", {"a": a, "b": b}, {"d": "f4"})["d"]
    assert_same(got, np.copysign(b, a), "copysign")
    tiny = np.finfo("f4").tiny
    classes = {
        "finite": np.isfinite(a),
        "infinite": np.isinf(a),
        "number": ~np.isnan(a),
        "notanumber": np.isnan(a),
        "normal": np.isfinite(a) & (np.abs(a) >= tiny),
        "subnormal": (a != 0) & (np.abs(a) < tiny),
    }
    for name, expected in classes.items():
        got = run_lanes(f"testp.{name}.f32 %p1, {{a}}; selp.u32 {{d}}, 1, 0, %p1;", {"a": a}, {"d": "u4"})["d"]
        np.testing.assert_array_equal(got, expected, err_msg=name)


ORDERED = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}


@pytest.mark.parametrize("kind", ["f16", "bf16", "f32", "f64"])
def test_comparisons(rng: np.random.Generator, kind: str) -> None:
    form = Format(kind)
    a, b = form.draw(rng), form.draw(rng)
    same = rng.random(len(a)) < 0.2
    b[same] = a[same]
    x, y = form.wide(a), form.wide(b)
    unordered = np.isnan(x) | np.isnan(y)
    expected = {name: function(x, y) & ~unordered for name, function in ORDERED.items()}
    expected |= {name + "u": function(x, y) | unordered for name, function in ORDERED.items()}
    expected |= {"num": ~unordered, "nan": unordered}
    for name, holds in expected.items():
        body = f"setp.{name}.{kind} %p1, {{a}}, {{b}}; selp.u32 {{d}}, 1, 0, %p1;"
        got = run_lanes(body, {"a": a, "b": b}, {"d": "u4"})["d"]
        np.testing.assert_array_equal(got, holds, err_msg=body)


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_packed_comparisons(rng: np.random.Generator, kind: str) -> None:
    form = Format(kind)
    a, b = [[form.draw(rng) for _ in range(2)] for _ in range(2)]
    inputs = {"a": pack(*a), "b": pack(*b)}
    body = (
        f"set.lt.{kind}x2.{kind}x2 {{d}}, {{a}}, {{b}}; set.ge.u32.{kind}x2 {{e}}, {{a}}, {{b}};"
        f"setp.gt.{kind}x2 %p1|%p2, {{a}}, {{b}}; selp.u32 %r1, 1, 0, %p1; selp.u32 %r2, 2, 0, %p2;"
        "or.b32 {f}, %r1, %r2;"
    )
    got = run_lanes(body, inputs, {"d": "u4", "e": "u4", "f": "u4"})
    x, y = [form.wide(part) for part in a], [form.wide(part) for part in b]
    one = 0x3C00 if kind == "f16" else 0x3F80
    np.testing.assert_array_equal(got["d"], sum(np.where(x[i] < y[i], one, 0) << 16 * i for i in range(2)))
    np.testing.assert_array_equal(got["e"], sum(np.where(x[i] >= y[i], 0xFFFF, 0) << 16 * i for i in range(2)))
    np.testing.assert_array_equal(got["f"], (x[0] > y[0]) * 1 + (x[1] > y[1]) * 2)
