"""What a benchmark compares: a name, facts for the table, and how to make a layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from rotation import Layer


class Kind(StrEnum):
    """How a contender takes part in comparisons."""

    BASELINE = "baseline"
    """What speed-ups are relative to."""
    OURS = "ours"
    PEER = "peer"
    NAIVE = "naive"
    """Our dense part with a sparse product of torch's beside it: what fusing is worth."""


@dataclass(frozen=True)
class Contender:
    """One row of the table."""

    name: str
    kind: Kind
    bits: float
    """Of a weight's code; 16 and 32 for floats."""
    make: Callable[[int, int], Layer]
    """(out_features, in_features) -> a layer with random weights."""
    group_size: int = -1
    """Inputs that share a 16-bit scale; -1 if there is one per row at most."""
    sparse_percent: float = 0.0
    pool: str = "torch"
    """Whose threads compute. When the pool changes, the threads of the last one need time to fall asleep."""
