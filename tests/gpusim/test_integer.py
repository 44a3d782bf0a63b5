"""Integer and bit operations against numpy and plain Python, on random operands with edges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from operands import integers
from ptx_kernels import run_lanes

pytestmark = pytest.mark.simulator

TYPES = {"u16": "u2", "s16": "i2", "u32": "u4", "s32": "i4", "u64": "u8", "s64": "i8"}


def wrap(value: int, dtype: str) -> int:
    """The integer of this type that has the same low bits."""
    bits = 8 * np.dtype(dtype).itemsize
    value &= (1 << bits) - 1
    return value - (1 << bits) if dtype[0] == "i" and value >> (bits - 1) else value


def truncating_divide(a: int, b: int) -> int:
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def check(body: str, inputs: dict[str, np.ndarray], dtype: str, reference: Callable[..., int]) -> None:
    """Compares {d} with the reference on Python integers."""
    got = run_lanes(body, inputs, {"d": dtype})["d"]
    columns = [array.tolist() for array in inputs.values()]
    expected = np.array([wrap(reference(*row), dtype) for row in zip(*columns, strict=True)], dtype)
    np.testing.assert_array_equal(got, expected, err_msg=body)


BINARY: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul.lo": lambda a, b: a * b,
    "min": min,
    "max": max,
}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", BINARY)
def test_arithmetic(rng: np.random.Generator, name: str, kind: str) -> None:
    inputs = {"a": integers(rng, TYPES[kind]), "b": integers(rng, TYPES[kind])}
    check(f"{name}.{kind} {{d}}, {{a}}, {{b}};", inputs, TYPES[kind], BINARY[name])


@pytest.mark.parametrize("kind", TYPES)
def test_high_and_wide_products(rng: np.random.Generator, kind: str) -> None:
    dtype = TYPES[kind]
    bits = 8 * np.dtype(dtype).itemsize
    a, b, c = (integers(rng, dtype) for _ in range(3))
    check(f"mul.hi.{kind} {{d}}, {{a}}, {{b}};", {"a": a, "b": b}, dtype, lambda a, b: a * b >> bits)
    check(f"mad.lo.{kind} {{d}}, {{a}}, {{b}}, {{c}};", {"a": a, "b": b, "c": c}, dtype, lambda a, b, c: a * b + c)
    check(
        f"mad.hi.{kind} {{d}}, {{a}}, {{b}}, {{c}};",
        {"a": a, "b": b, "c": c},
        dtype,
        lambda a, b, c: (a * b >> bits) + c,
    )
    if bits < 64:
        wide = f"{dtype[0]}{bits // 4}"
        check(f"mul.wide.{kind} {{d}}, {{a}}, {{b}};", {"a": a, "b": b}, wide, lambda a, b: a * b)
        inputs = {"a": a, "b": b, "c": integers(rng, wide)}
        check(f"mad.wide.{kind} {{d}}, {{a}}, {{b}}, {{c}};", inputs, wide, lambda a, b, c: a * b + c)


@pytest.mark.parametrize("kind", TYPES)
def test_division(rng: np.random.Generator, kind: str) -> None:
    dtype = TYPES[kind]
    a, b = integers(rng, dtype), integers(rng, dtype)
    b[b == 0] = 3
    check(f"div.{kind} {{d}}, {{a}}, {{b}};", {"a": a, "b": b}, dtype, truncating_divide)
    check(f"rem.{kind} {{d}}, {{a}}, {{b}};", {"a": a, "b": b}, dtype, lambda a, b: a - truncating_divide(a, b) * b)


@pytest.mark.parametrize("kind", ["s16", "s32", "s64"])
def test_sign(rng: np.random.Generator, kind: str) -> None:
    inputs = {"a": integers(rng, TYPES[kind])}
    check(f"abs.{kind} {{d}}, {{a}};", inputs, TYPES[kind], abs)
    check(f"neg.{kind} {{d}}, {{a}};", inputs, TYPES[kind], lambda a: -a)


def test_saturation(rng: np.random.Generator) -> None:
    inputs = {"a": integers(rng, "i4"), "b": integers(rng, "i4")}

    def clamp(value: int) -> int:
        return max(-(1 << 31), min((1 << 31) - 1, value))

    check("add.sat.s32 {d}, {a}, {b};", inputs, "i4", lambda a, b: clamp(a + b))
    check("sub.sat.s32 {d}, {a}, {b};", inputs, "i4", lambda a, b: clamp(a - b))


@pytest.mark.parametrize("kind", ["u32", "s32"])
def test_24_bits_and_differences(rng: np.random.Generator, kind: str) -> None:
    dtype = TYPES[kind]
    inputs = {name: integers(rng, dtype) for name in "abc"}
    two = {name: inputs[name] for name in "ab"}

    def low(value: int) -> int:
        value &= 0xFFFFFF
        return value - (1 << 24) if kind == "s32" and value >> 23 else value

    check(f"mul24.lo.{kind} {{d}}, {{a}}, {{b}};", two, dtype, lambda a, b: low(a) * low(b))
    check(f"mul24.hi.{kind} {{d}}, {{a}}, {{b}};", two, dtype, lambda a, b: low(a) * low(b) >> 16)
    check(f"mad24.lo.{kind} {{d}}, {{a}}, {{b}}, {{c}};", inputs, dtype, lambda a, b, c: low(a) * low(b) + c)
    check(f"sad.{kind} {{d}}, {{a}}, {{b}}, {{c}};", inputs, dtype, lambda a, b, c: c + abs(a - b))


def test_carry_chains(rng: np.random.Generator) -> None:
    inputs = {name: integers(rng, "u4") for name in ("a", "b", "c", "e")}
    for first, second, reference in (
        ("add.cc.u32", "addc.u32", lambda a, b, c, e: ((c << 32) + a + (e << 32) + b) >> 32),
        ("sub.cc.u32", "subc.u32", lambda a, b, c, e: ((c << 32) + a - (e << 32) - b) >> 32),
    ):
        check(f"{first} %r1, {{a}}, {{b}}; {second} {{d}}, {{c}}, {{e}};", inputs, "u4", reference)
    check(
        "mad.lo.cc.u32 %r1, {a}, {b}, {c}; madc.hi.u32 {d}, {a}, {b}, {e};",
        inputs,
        "u4",
        lambda a, b, c, e: (a * b + c + (e << 32)) >> 32,
    )


def element(value: int, index: int, bits: int, signed: bool) -> int:
    part = value >> (index * bits) & ((1 << bits) - 1)
    return part - (1 << bits) if signed and part >> (bits - 1) else part


@pytest.mark.parametrize("left", ["u32", "s32"])
@pytest.mark.parametrize("right", ["u32", "s32"])
def test_dot_products(rng: np.random.Generator, left: str, right: str) -> None:
    inputs = {name: integers(rng, "u4") for name in "abc"}
    a_signed, b_signed = left == "s32", right == "s32"

    def dot4(a: int, b: int, c: int) -> int:
        return c + sum(element(a, i, 8, a_signed) * element(b, i, 8, b_signed) for i in range(4))

    def dot2(first: int) -> Callable[[int, int, int], int]:
        return lambda a, b, c: (
            c + sum(element(a, i, 16, a_signed) * element(b, first + i, 8, b_signed) for i in range(2))
        )

    check(f"dp4a.{left}.{right} {{d}}, {{a}}, {{b}}, {{c}};", inputs, "u4", dot4)
    check(f"dp2a.lo.{left}.{right} {{d}}, {{a}}, {{b}}, {{c}};", inputs, "u4", dot2(0))
    check(f"dp2a.hi.{left}.{right} {{d}}, {{a}}, {{b}}, {{c}};", inputs, "u4", dot2(2))


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_logic(rng: np.random.Generator, bits: int) -> None:
    dtype = f"u{bits // 8}"
    inputs = {"a": integers(rng, dtype), "b": integers(rng, dtype)}
    check(f"and.b{bits} {{d}}, {{a}}, {{b}};", inputs, dtype, lambda a, b: a & b)
    check(f"or.b{bits} {{d}}, {{a}}, {{b}};", inputs, dtype, lambda a, b: a | b)
    check(f"xor.b{bits} {{d}}, {{a}}, {{b}};", inputs, dtype, lambda a, b: a ^ b)
    one = {"a": inputs["a"]}
    check(f"not.b{bits} {{d}}, {{a}};", one, dtype, lambda a: ~a)
    check(f"cnot.b{bits} {{d}}, {{a}};", one, dtype, lambda a: int(a == 0))


@pytest.mark.parametrize("kind", TYPES)
def test_shifts(rng: np.random.Generator, kind: str) -> None:
    dtype = TYPES[kind]
    bits = 8 * np.dtype(dtype).itemsize
    a, amount = integers(rng, dtype), integers(rng, "u4")
    inputs = {"a": a, "n": amount}
    check(f"shr.{kind} {{d}}, {{a}}, {{n}};", inputs, dtype, lambda a, n: a >> min(n, bits))
    check(f"shl.b{bits} {{d}}, {{a}}, {{n}};", inputs, dtype, lambda a, n: a << n if n < bits else 0)
    for constant in (0, 1, 7, bits - 1, bits, 77):
        one = {"a": a}
        check(f"shr.{kind} {{d}}, {{a}}, {constant};", one, dtype, lambda a, n=constant: a >> min(n, bits))
        check(f"shl.b{bits} {{d}}, {{a}}, {constant};", one, dtype, lambda a, n=constant: a << n if n < bits else 0)


@pytest.mark.parametrize("mode", ["wrap", "clamp"])
def test_funnel_shifts(rng: np.random.Generator, mode: str) -> None:
    inputs = {"a": integers(rng, "u4"), "b": integers(rng, "u4"), "n": integers(rng, "u4")}

    def amount(n: int) -> int:
        return n & 31 if mode == "wrap" else min(n, 32)

    check(
        f"shf.l.{mode}.b32 {{d}}, {{a}}, {{b}}, {{n}};",
        inputs,
        "u4",
        lambda a, b, n: ((b << 32 | a) << amount(n)) >> 32,
    )
    check(f"shf.r.{mode}.b32 {{d}}, {{a}}, {{b}}, {{n}};", inputs, "u4", lambda a, b, n: (b << 32 | a) >> amount(n))


def test_lop3_of_every_table(rng: np.random.Generator) -> None:
    inputs = {name: integers(rng, "u4", 64) for name in "abc"}
    a, b, c = inputs.values()
    for table in range(256):
        got = run_lanes(f"lop3.b32 {{d}}, {{a}}, {{b}}, {{c}}, {table};", inputs, {"d": "u4"})["d"]
        expected = np.zeros_like(a)
        for index in range(8):
            if table >> index & 1:
                terms = [x if index >> bit & 1 else ~x for x, bit in ((a, 2), (b, 1), (c, 0))]
                expected |= terms[0] & terms[1] & terms[2]
        np.testing.assert_array_equal(got, expected, err_msg=f"table {table:#x}")


def permute(a: int, b: int, selectors: int) -> int:
    data = (b << 32 | a).to_bytes(8, "little")
    result = 0
    for i in range(4):
        selector = selectors >> (4 * i) & 15
        byte = data[selector & 7]
        if selector & 8:
            byte = 0xFF if byte & 0x80 else 0
        result |= byte << (8 * i)
    return result


def test_permute(rng: np.random.Generator) -> None:
    inputs = {name: integers(rng, "u4") for name in "abc"}
    check("prmt.b32 {d}, {a}, {b}, {c};", inputs, "u4", permute)
    two = {name: inputs[name] for name in "ab"}
    for selectors in (0x3210, 0x5410, 0x7632, 0x88FF, int(rng.integers(1 << 16))):
        check(f"prmt.b32 {{d}}, {{a}}, {{b}}, {selectors};", two, "u4", lambda a, b, s=selectors: permute(a, b, s))


PERMUTE_MODES = {  # the documented bytes of the result, from high to low, for c = 0 .. 3
    "f4e": ["3210", "4321", "5432", "6543"],
    "b4e": ["5670", "6701", "7012", "0123"],
    "rc8": ["0000", "1111", "2222", "3333"],
    "ecl": ["3210", "3211", "3222", "3333"],
    "ecr": ["0000", "1110", "2210", "3210"],
    "rc16": ["1010", "3232", "1010", "3232"],
}


@pytest.mark.parametrize("mode", PERMUTE_MODES)
def test_permute_modes(rng: np.random.Generator, mode: str) -> None:
    inputs = {name: integers(rng, "u4") for name in "abc"}
    selectors = [int(digits, 16) for digits in PERMUTE_MODES[mode]]
    check(f"prmt.b32.{mode} {{d}}, {{a}}, {{b}}, {{c}};", inputs, "u4", lambda a, b, c: permute(a, b, selectors[c & 3]))


@pytest.mark.parametrize("kind", ["u32", "s32", "u64", "s64"])
def test_bit_fields(rng: np.random.Generator, kind: str) -> None:
    dtype = TYPES[kind]
    bits = 8 * np.dtype(dtype).itemsize
    position, length = rng.integers(0, bits + 8, 512).astype("u4"), rng.integers(0, bits + 8, 512).astype("u4")

    def extract(a: int, first: int, count: int) -> int:
        unsigned = a & ((1 << bits) - 1)
        if count == 0:
            return 0
        sign = unsigned >> min(first + count - 1, bits - 1) & 1 if kind[0] == "s" else 0
        taken = [unsigned >> (first + i) & 1 if i < count and first + i < bits else sign for i in range(bits)]
        return sum(bit << i for i, bit in enumerate(taken))

    def insert(a: int, b: int, first: int, count: int) -> int:
        mask = (((1 << count) - 1) << first) & ((1 << bits) - 1)
        return (a << first & mask) | (b & ~mask)

    inputs = {"a": integers(rng, dtype), "p": position, "l": length}
    check(f"bfe.{kind} {{d}}, {{a}}, {{p}}, {{l}};", inputs, dtype, extract)
    inputs = {"a": integers(rng, dtype), "b": integers(rng, dtype), "p": position, "l": length}
    check(f"bfi.b{bits} {{d}}, {{a}}, {{b}}, {{p}}, {{l}};", inputs, dtype, insert)


@pytest.mark.parametrize("bits", [32, 64])
def test_counting_bits(rng: np.random.Generator, bits: int) -> None:
    a = integers(rng, f"u{bits // 8}")
    check(f"popc.b{bits} {{d}}, {{a}};", {"a": a}, "u4", lambda a: a.bit_count())
    check(f"clz.b{bits} {{d}}, {{a}};", {"a": a}, "u4", lambda a: bits - a.bit_length())
    check(f"brev.b{bits} {{d}}, {{a}};", {"a": a}, f"u{bits // 8}", lambda a: int(f"{a:0{bits}b}"[::-1], 2))
    check(f"bfind.u{bits} {{d}}, {{a}};", {"a": a}, "u4", lambda a: a.bit_length() - 1)
    check(f"bfind.shiftamt.u{bits} {{d}}, {{a}};", {"a": a}, "u4", lambda a: bits - a.bit_length() if a else -1)
    signed = {"a": a.view(f"i{bits // 8}")}
    check(f"bfind.s{bits} {{d}}, {{a}};", signed, "u4", lambda a: (a if a >= 0 else ~a).bit_length() - 1)


COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
UNSIGNED_NAMES = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons(rng: np.random.Generator, name: str, kind: str) -> None:
    a, b = integers(rng, TYPES[kind]), integers(rng, TYPES[kind])
    same = rng.random(len(a)) < 0.2
    b[same] = a[same]
    expected = COMPARISONS[name](a, b)
    body = (
        f"setp.{name}.{kind} %p1, {{a}}, {{b}}; selp.u32 {{d}}, 1, 0, %p1; set.{name}.u32.{kind} {{e}}, {{a}}, {{b}};"
    )
    got = run_lanes(body, {"a": a, "b": b}, {"d": "u4", "e": "u4"})
    np.testing.assert_array_equal(got["d"], expected)
    np.testing.assert_array_equal(got["e"], np.where(expected, 0xFFFFFFFF, 0))


@pytest.mark.parametrize("name", UNSIGNED_NAMES)
def test_unsigned_names_of_comparisons(rng: np.random.Generator, name: str) -> None:
    a, b = integers(rng, "u4"), integers(rng, "u4")
    got = run_lanes(f"setp.{name}.u32 %p1, {{a}}, {{b}}; selp.u32 {{d}}, 1, 0, %p1;", {"a": a, "b": b}, {"d": "u4"})
    np.testing.assert_array_equal(got["d"], COMPARISONS[UNSIGNED_NAMES[name]](a, b))


@pytest.mark.parametrize("combination", ["and", "or", "xor"])
def test_combined_predicates(rng: np.random.Generator, combination: str) -> None:
    a, b, c = (rng.integers(0, 4, 256).astype("u4") for _ in range(3))
    body = (
        "setp.lt.u32 %p1, {a}, 2;\n"
        f"setp.eq.{combination}.u32 %p2|%p3, {{b}}, {{c}}, !%p1;\n"
        f"{combination}.pred %p4, %p2, %p1; not.pred %p5, %p1;\n"
        "selp.u32 %r1, 1, 0, %p2; selp.u32 %r2, 2, 0, %p3; selp.u32 %r3, 4, 0, %p4; selp.u32 %r4, 8, 0, %p5;\n"
        "or.b32 %r1, %r1, %r2; or.b32 %r1, %r1, %r3; or.b32 {d}, %r1, %r4;"
    )
    function = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}[combination]
    p1 = a < 2
    p2, p3 = function(b == c, ~p1), function(b != c, ~p1)
    expected = p2 * 1 + p3 * 2 + function(p2, p1) * 4 + ~p1 * 8
    np.testing.assert_array_equal(run_lanes(body, {"a": a, "b": b, "c": c}, {"d": "u4"})["d"], expected)


def test_selection_by_sign(rng: np.random.Generator) -> None:
    inputs = {"a": integers(rng, "u4"), "b": integers(rng, "u4"), "c": integers(rng, "i4")}
    check("slct.u32.s32 {d}, {a}, {b}, {c};", inputs, "u4", lambda a, b, c: a if c >= 0 else b)
