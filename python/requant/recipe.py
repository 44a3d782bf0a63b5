"""Recipe: everything that determines a quantized model, given the model and the calibration text."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from requant.errors import InputError


@dataclass(frozen=True)
class MethodDefaults:
    """What a base method supports, and what it uses where the recipe says None."""

    bits: tuple[int, ...]
    group_size: int
    outlier_percent: float
    significant_percent: float
    grouped: bool
    """Whether group_size may be chosen; otherwise there is one table per row."""


METHODS: dict[str, MethodDefaults] = {
    "rtn": MethodDefaults((2, 3, 4, 8), 128, 0.0, 0.0, grouped=True),
    "squeezellm": MethodDefaults((2, 3, 4), -1, 0.45, 0.05, grouped=False),
}
QUADRATURES = ("midpoint", "linspace", "gauss_legendre", "trapezoid", "left", "right")
EMBEDDING_BITS = (4, 8)
OUTLIER_RULES = ("power_law", "iqr")
CHECKPOINT_DTYPES = ("bfloat16", "float16", "float32")
VALUES_DTYPES = ("float16", "bfloat16")


@dataclass(frozen=True)
class Recipe:
    """A frozen description of a quantized model. Percentages are percent of all quantized weights (0.45 = 0.45 %).

    None in `group_size`, `outlier_percent` and `significant_percent` is replaced by the method's default on
    construction. Raises InputError, naming the field, its value and what was expected.
    """

    method: str = "squeezellm"
    bits: int = 3
    group_size: int | None = None
    """rtn: inputs that share a scale, a multiple of 32, or -1 for a whole row. squeezellm: always -1."""
    symmetric: bool = False
    """rtn: no zero points."""
    outlier_percent: float | None = None
    outlier_rule: str = "power_law"
    """How outliers are shared out among matrices: "power_law" (inferred) or "iqr" (SqueezeLLM's)."""
    outlier_exponents: tuple[float, ...] = (0.0, 0.5, 1.0, 1.5, 2.0)
    """Exponents t of the power law to try; the one of least calibration loss is kept (inferred)."""
    outlier_limit: float = 10.0
    """No matrix gives more than this many times its even share of outliers (inferred)."""
    significant_percent: float | None = None
    significant_steps: int = 2
    intervals: int = 4
    quadrature: str = "midpoint"
    samples: int = 16
    sequence_length: int = 512
    seed: int = 0
    dtype: str | None = None
    """Checkpoint dtype of everything that is not quantized; None is the model's own."""
    values_dtype: str = "float16"
    """Stored dtype of the sparse values."""
    head_bits: int | None = None
    """Bits of the output head, rounded to nearest in groups of 128; None leaves it in `dtype`. A head that is tied to
    the input embedding takes that along: one weight serves both."""
    embedding_bits: int | None = None
    """The same for the input embedding."""
    skip: tuple[str, ...] = ()
    """Shell patterns of module names to leave alone, such as "*.mlp.gate"."""

    def __post_init__(self) -> None:
        _require(self, "method", self.method in METHODS, _one_of(METHODS))
        defaults = METHODS[self.method]
        for name in ("group_size", "outlier_percent", "significant_percent"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, getattr(defaults, name))
        for name in ("outlier_exponents", "skip"):
            value = getattr(self, name)
            _require(self, name, isinstance(value, (tuple, list)), "a list")
            object.__setattr__(self, name, tuple(value))
        for name, (is_valid, expected) in _RULES.items():
            _require(self, name, is_valid(getattr(self, name)), expected)
        _require(self, "bits", self.bits in defaults.bits, f"{_one_of(defaults.bits)} for {self.method}")
        if not defaults.grouped:
            _require(self, "group_size", self.group_size == -1, f"-1 for {self.method}, which has a table per row")
            _require(self, "symmetric", not self.symmetric, f"false for {self.method}")
        total = self.outlier_percent + self.significant_percent  # type: ignore[operator]
        if total > 100:
            raise InputError(f"outlier_percent + significant_percent must be at most 100, got {total:g}")
        if self.quadrature == "linspace":
            _require(self, "intervals", self.intervals >= 2, "at least 2 with linspace")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, every field."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> Recipe:
        """The inverse of `to_dict`; absent fields take their defaults. Raises InputError on an unknown field."""
        known = {field.name for field in fields(cls)}
        for name in entries:
            if name not in known:
                raise InputError(f"unknown recipe field {name!r}, expected {_one_of(sorted(known))}")
        return cls(**entries)

    @property
    def hash(self) -> str:
        """16 hexadecimal digits that depend on every field and nothing else."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _one_of(values: Any) -> str:
    return "one of " + ", ".join(str(value) for value in values)


def _require(recipe: Recipe, name: str, condition: bool, expected: str) -> None:
    if not condition:
        raise InputError(f"{name} must be {expected}, got {getattr(recipe, name)!r}")


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _count(least: int) -> tuple[Callable[[Any], bool], str]:
    return lambda value: _is_integer(value) and value >= least, f"an integer of at least {least}"


def _choice(*values: Any) -> tuple[Callable[[Any], bool], str]:
    return lambda value: value in values, _one_of(values)


_PERCENT = (lambda value: _is_number(value) and 0 <= value <= 100, "a number from 0 to 100")
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "bits": (_is_integer, "an integer"),
    "group_size": (
        lambda value: _is_integer(value) and (value == -1 or (value > 0 and value % 32 == 0)),
        "-1 (a whole row) or a positive multiple of 32",
    ),
    "symmetric": (lambda value: isinstance(value, bool), "true or false"),
    "outlier_percent": _PERCENT,
    "outlier_rule": _choice(*OUTLIER_RULES),
    "outlier_exponents": (
        lambda value: len(value) > 0 and all(_is_number(each) and 0 <= each <= 10 for each in value),
        "one or more numbers from 0 to 10",
    ),
    "outlier_limit": (lambda value: _is_number(value) and value >= 1, "a number of at least 1"),
    "significant_percent": _PERCENT,
    "significant_steps": _count(1),
    "intervals": _count(1),
    "quadrature": _choice(*QUADRATURES),
    "samples": _count(1),
    "sequence_length": _count(2),
    "seed": (lambda value: _is_integer(value) and 0 <= value < 2**63, "an integer from 0 to 2^63 - 1"),
    "head_bits": _choice(*EMBEDDING_BITS, None),
    "embedding_bits": _choice(*EMBEDDING_BITS, None),
    "dtype": _choice(*CHECKPOINT_DTYPES, None),
    "values_dtype": _choice(*VALUES_DTYPES),
    "skip": (lambda value: all(isinstance(each, str) and each for each in value), "a list of module name patterns"),
}
