"""How long a run of the table will take, said before it starts."""

from __future__ import annotations

from collections.abc import Sequence

from contender import Contender
from probes import Limits
from rotation import copies_for
from turns import LONG_CALL_MS, SETTLE_SECONDS, calls_per_turn

# What an average contender makes of the machine; only estimates depend on it.
SHARE_OF_READING = 0.4
SHARE_OF_PRODUCTS = 0.6
COPIES_GB_PER_SECOND = 0.6
PROBE_SECONDS = 0.15
UNTIMED_CALLS = 2


def call_ms(contender: Contender, weights: int, tokens: int, limits: Limits) -> float:
    """The larger of reading and multiplying."""
    reading = weights * contender.bits / 8e6 / (SHARE_OF_READING * limits.read_gb_per_s)
    multiplying = 2 * weights * tokens / 1e6 / (SHARE_OF_PRODUCTS * max(limits.gflops["fma"], 1.0))
    return max(reading, multiplying)


def total_seconds(
    shapes: Sequence[tuple[int, int]],
    tokens: Sequence[int],
    contenders: Sequence[Contender],
    rounds: int,
    rotated: int,
    limits: Limits,
) -> float:
    """Of making the layers and measuring them."""
    pools = len({contender.pool for contender in contenders})
    total = 0.0
    for out_features, in_features in shapes:
        weights = out_features * in_features
        for contender in contenders:
            size = int(weights * contender.bits / 8)
            total += copies_for(size, rotated) * size / 1e9 / COPIES_GB_PER_SECOND
            for count in tokens:
                each = call_ms(contender, weights, count, limits)
                calls = calls_per_turn(each) + (each < LONG_CALL_MS)
                total += each * (rounds * calls + UNTIMED_CALLS) / 1000
        total += len(tokens) * (rounds + 1) * (PROBE_SECONDS + pools * SETTLE_SECONDS)
    return total
