"""Random operands that include the edges of their type."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

COUNT = 512


def integers(rng: np.random.Generator, dtype: str, count: int = COUNT) -> np.ndarray:
    """All bit patterns alike, small numbers, and the extremes."""
    info = np.iinfo(dtype)
    values = rng.integers(info.min, info.max, count, dtype=dtype, endpoint=True)
    small = rng.random(count) < 0.3
    values[small] = rng.integers(0, 70, int(small.sum())).astype(dtype)
    edges = np.array([0, 1, info.max, info.min, info.max - 1, info.max // 2, info.max // 2 + 1], dtype)
    places = rng.random(count) < 0.2
    values[places] = rng.choice(edges, int(places.sum()))
    return values


def floats(rng: np.random.Generator, dtype: str, count: int = COUNT) -> np.ndarray:
    """Numbers around one, all bit patterns alike (NaN, infinity and subnormal numbers among them), and ties."""
    kind = np.dtype(dtype)
    bits = np.dtype(f"u{kind.itemsize}")
    values = rng.standard_normal(count).astype(kind)
    any_bits = rng.integers(0, np.iinfo(bits).max, count, dtype=bits, endpoint=True).view(kind)
    values = np.where(rng.random(count) < 0.4, any_bits, values)
    info = np.finfo(kind)
    edges = np.array([0, -0.0, 1, -1, np.inf, -np.inf, np.nan, info.max, info.tiny, info.smallest_subnormal, 0.5], kind)
    return np.where(rng.random(count) < 0.2, rng.choice(edges, count), values).astype(kind)


def bfloat16s(rng: np.random.Generator, count: int = COUNT) -> np.ndarray:
    """The same for bf16, as uint16."""
    return (floats(rng, "f4", count).view("u4") >> 16).astype("u2")


def bfloat16_to_float(bits: np.ndarray) -> np.ndarray:
    return (bits.astype("u4") << 16).view("f4")


def float_to_bfloat16(values: np.ndarray) -> np.ndarray:
    """float32 to bf16, to nearest even, as uint16."""
    bits = np.ascontiguousarray(values, "f4").view("u4")
    rounded = ((bits.astype("u8") + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("u2")
    return np.where(np.isnan(values), np.uint16(0x7FFF), rounded)


FORMATS = {"f2": (11, -24, 65504.0), "bf16": (8, -133, 3.3895313892515355e38), "f4": (24, -149, 3.4028234663852886e38)}


def round_exactly(value: Fraction, target: str) -> float:
    """A number in the format (digits, exponent of the smallest subnormal number, largest number), to nearest even."""
    digits, smallest, largest = FORMATS[target]
    if value == 0:
        return 0.0
    magnitude = abs(value)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    if Fraction(2) ** exponent > magnitude:
        exponent -= 1
    unit = Fraction(2) ** max(exponent - digits + 1, smallest)
    rounded = float(round(magnitude / unit) * unit) if magnitude < 2 * Fraction(largest) else np.inf
    if rounded > largest:
        rounded = np.inf
    return rounded if value > 0 else -rounded


def fused_multiply_add(a: np.ndarray, b: np.ndarray, c: np.ndarray, target: str) -> np.ndarray:
    """a * b + c with one rounding, as float64. The sign of a zero result is not defined here."""
    results = np.empty(len(a))
    for i, (x, y, z) in enumerate(zip(a.astype("f8"), b.astype("f8"), c.astype("f8"), strict=True)):
        if np.isfinite([x, y, z]).all():
            results[i] = round_exactly(Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z)), target)
        else:
            with np.errstate(all="ignore"):
                # Finite operands do not matter beside the others, so their products must not overflow.
                x, y, z = (np.sign(v) if np.isfinite(v) else v for v in (x, y, z))
                results[i] = x * y + z
    return results
