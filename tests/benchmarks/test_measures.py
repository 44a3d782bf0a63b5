"""Figures made of measured times."""

from __future__ import annotations

import pytest
from contender import Contender, Kind
from measures import best_peer, ideal_speed_up, median_ratio, middle_half, summarize
from probes import Limits


def contender(name: str, kind: Kind, bits: float, **options: float) -> Contender:
    return Contender(name, kind, bits, lambda out_features, in_features: pytest.fail("no layer is made"), **options)


BASELINE = contender("torch", Kind.BASELINE, 16)
FOUR = contender("four", Kind.PEER, 4)
TWO = contender("two", Kind.PEER, 2)
OURS = contender("ours", Kind.OURS, 3, group_size=128, sparse_percent=0.5)
TIMES = {"torch": [8.0, 8.0, 20.0], "four": [4.0, 5.0, 5.0], "two": [1.0, 1.0, 1.0], "ours": [2.0, 2.5, 2.0]}


@pytest.mark.parametrize(
    ("bits", "group_size", "sparse_percent", "expected"),
    [(16, -1, 0.0, 1.0), (4, 128, 0.0, 16 / 4.125), (3, -1, 0.5, 16 / 3.16), (2, 32, 100.0, 16 / 34.5)],
)
def test_ideal_speed_up(bits: float, group_size: int, sparse_percent: float, expected: float) -> None:
    assert ideal_speed_up(bits, group_size, sparse_percent) == pytest.approx(expected)


def test_ratios_are_taken_within_rounds() -> None:
    # The ratio of the medians would be 3: in the slow round both were slow.
    assert median_ratio([2.0, 30.0, 3.0], [1.0, 10.0, 1.0]) == 3.0
    assert median_ratio([1.0, 100.0, 100.0], [1.0, 100.0, 50.0]) == 1.0


def test_middle_half() -> None:
    assert middle_half([5.0]) == (5.0, 5.0)
    assert middle_half([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 4.0)


def test_best_peer_has_no_fewer_bits() -> None:
    everyone = [BASELINE, FOUR, TWO, OURS]
    assert best_peer(OURS, everyone, TIMES) == "four"
    assert best_peer(FOUR, everyone, TIMES) == "torch"
    assert best_peer(BASELINE, everyone, TIMES) is None


def test_summary() -> None:
    limits = [Limits(1.0, 2.0, {"vdpbf16ps": 100.0}), Limits(1.0, 2.0, {"vdpbf16ps": 100.0}), Limits(2.0, 4.0, {})]
    limits[2].gflops["vdpbf16ps"] = 100.0
    sizes = dict.fromkeys(TIMES, 1_000_000)
    rows = summarize(1000, 2000, 10, [BASELINE, FOUR, TWO, OURS], sizes, TIMES, limits)
    ours = rows[-1]
    assert (ours.shape, ours.tokens, ours.name, ours.kind) == ("1000x2000", 10, "ours", "ours")
    assert ours.stored_bits == 4.0
    assert (ours.median_ms, ours.speed_up, ours.best_peer, ours.over_best_peer) == (2.0, 4.0, "four", 2.0)
    assert ours.gb_per_s == pytest.approx(0.5)
    assert (ours.stream_percent, ours.read_percent) == (pytest.approx(40.0), pytest.approx(20.0))
    assert ours.gflops == pytest.approx(20.0)
    assert ours.product_percent == pytest.approx(20.0)
    assert ours.ideal_speed_up == pytest.approx(16 / 3.285)


def test_summary_without_baseline_and_without_the_instruction() -> None:
    limits = [Limits(1.0, 1.0, {"vdpbf16ps": 0.0})] * 3
    (ours,) = summarize(16, 32, 1, [OURS], {"ours": 192}, TIMES, limits)
    assert (ours.speed_up, ours.best_peer, ours.over_best_peer, ours.product_percent) == (None, None, None, None)
