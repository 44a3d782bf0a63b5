"""Times contenders in turns, so that a noisy machine is equally noisy for all."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

from contender import Contender
from probes import Limits, Probes
from rotation import Call, Rotation
from torch import Tensor

BURST_MS = 5.0
"""A contender's turn lasts at least this long."""
MOST_CALLS = 20
LONG_CALL_MS = 20.0
"""Threads that wake up at the start do not matter to calls this long."""
SETTLE_SECONDS = 0.08
"""Idle threads spin before they leave the processor to others: onnxruntime's for 55 ms, OpenMP's for 8."""


def calls_per_turn(call_ms: float) -> int:
    """As many as make a turn long enough to measure, but not so many that they would use up the copies."""
    return max(1, min(MOST_CALLS, math.ceil(BURST_MS / call_ms)))


def time_calls(call: Call, count: int) -> list[float]:
    """Milliseconds of each."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return times


def turn_ms(call: Call, expected_ms: float) -> float:
    """The median call of one turn. The first call wakes the threads and does not count, unless it is long."""
    if expected_ms < LONG_CALL_MS:
        call()
    return statistics.median(time_calls(call, calls_per_turn(expected_ms)))


def turns(contenders: Iterable[Contender]) -> Iterator[str]:
    """Names for one round: those that share threads next to each other, with a rest where the threads change."""
    for _, sharing in itertools.groupby(sorted(contenders, key=_pool), key=_pool):
        yield from (contender.name for contender in sharing)
        time.sleep(SETTLE_SECONDS)


def _pool(contender: Contender) -> str:
    return contender.pool


def measure(
    contenders: Sequence[Contender], rotations: Mapping[str, Rotation], x: Tensor, rounds: int, probes: Probes
) -> tuple[dict[str, list[float]], list[Limits]]:
    """(milliseconds by contender, limits of the machine), an entry for each round.

    Probes run between the rounds: a round's limits are the mean of those before it and after it.
    """
    calls = {contender.name: rotations[contender.name].bind(x) for contender in contenders}
    expected = {name: min(time_calls(calls[name], 2)) for name in turns(contenders)}
    times: dict[str, list[float]] = {name: [] for name in calls}
    probed = [probes.limits()]
    for _ in range(rounds):
        for name in turns(contenders):
            times[name].append(turn_ms(calls[name], expected[name]))
        probed.append(probes.limits())
    return times, [mean(before, after) for before, after in itertools.pairwise(probed)]


def mean(before: Limits, after: Limits) -> Limits:
    """Halfway between two probes."""
    return Limits(
        (before.stream_gb_per_s + after.stream_gb_per_s) / 2,
        (before.read_gb_per_s + after.read_gb_per_s) / 2,
        {name: (rate + after.gflops[name]) / 2 for name, rate in before.gflops.items()},
    )
