"""What is made of measured times: medians, shares of the machine's limits, ratios. No clocks here."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from contender import Contender, Kind
from probes import Limits

SPARSE_BITS = 32
"""Of one sparse entry: a 16-bit column and a 16-bit value."""


def ideal_speed_up(bits: float, group_size: int, sparse_percent: float) -> float:
    """16 / (b + 16/g + 32 s): how much less a layer reads than 16-bit weights, if reading were all that counts."""
    scale_bits = 16 / group_size if group_size > 0 else 0.0
    return 16 / (bits + scale_bits + SPARSE_BITS * sparse_percent / 100)


@dataclass(frozen=True)
class Row:
    """A contender's result for one shape and number of tokens. A contender's times are one per round; shares and
    ratios are taken within a round, and the median over rounds is what stands here.
    """

    shape: str
    tokens: int
    name: str
    kind: str
    stored_bits: float
    """Per weight, with scales, tables and sparse part."""
    median_ms: float
    low_ms: float
    high_ms: float
    """From low to high: the middle half."""
    gb_per_s: float
    """Of packed weights."""
    stream_percent: float
    """Of the bandwidth with one stream per thread."""
    read_percent: float
    """Of the bandwidth with several streams per thread."""
    gflops: float
    product_percent: float | None
    """Of the vdpbf16ps peak; None where the processor lacks it."""
    speed_up: float | None
    """Over the baseline; None if it was not measured."""
    best_peer: str | None
    """The fastest peer of no fewer bits."""
    over_best_peer: float | None
    ideal_speed_up: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """The median over rounds of a ratio taken within each round."""
    return statistics.median(above / below for above, below in zip(numerators, denominators, strict=True))


def middle_half(values: Sequence[float]) -> tuple[float, float]:
    """First and third quartile; the only value twice, if it is alone."""
    if len(values) == 1:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def best_peer(
    contender: Contender, contenders: Sequence[Contender], times_ms: Mapping[str, Sequence[float]]
) -> str | None:
    """The fastest of the others' layers with no fewer bits, the baseline among them; None if there is none."""
    peers = [
        other.name
        for other in contenders
        if other.kind in (Kind.PEER, Kind.BASELINE) and other.bits >= contender.bits and other is not contender
    ]
    return min(peers, key=lambda name: statistics.median(times_ms[name]), default=None)


def summarize(
    out_features: int,
    in_features: int,
    tokens: int,
    contenders: Sequence[Contender],
    weight_bytes: Mapping[str, int],
    times_ms: Mapping[str, Sequence[float]],
    limits: Sequence[Limits],
) -> list[Row]:
    """One row per contender. times_ms[name] and limits have one entry per round."""
    baseline = next((contender.name for contender in contenders if contender.kind is Kind.BASELINE), None)
    weights = out_features * in_features
    rows = []
    for contender in contenders:
        times = times_ms[contender.name]
        size = weight_bytes[contender.name]
        rates = [size / milliseconds / 1e6 for milliseconds in times]
        gflops = [2 * weights * tokens / milliseconds / 1e6 for milliseconds in times]
        peaks = [limit.gflops.get("vdpbf16ps", 0.0) for limit in limits]
        peer = best_peer(contender, contenders, times_ms)
        low, high = middle_half(times)
        rows.append(
            Row(
                shape=f"{out_features}x{in_features}",
                tokens=tokens,
                name=contender.name,
                kind=contender.kind.value,
                stored_bits=8 * size / weights,
                median_ms=statistics.median(times),
                low_ms=low,
                high_ms=high,
                gb_per_s=statistics.median(rates),
                stream_percent=100 * median_ratio(rates, [limit.stream_gb_per_s for limit in limits]),
                read_percent=100 * median_ratio(rates, [limit.read_gb_per_s for limit in limits]),
                gflops=statistics.median(gflops),
                product_percent=100 * median_ratio(gflops, peaks) if all(peaks) else None,
                speed_up=median_ratio(times_ms[baseline], times) if baseline is not None else None,
                best_peer=peer,
                over_best_peer=median_ratio(times_ms[peer], times) if peer is not None else None,
                ideal_speed_up=ideal_speed_up(contender.bits, contender.group_size, contender.sparse_percent),
            )
        )
    return rows
