"""Covering arrays: few cases in which every two values of different factors meet."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import combinations, product
from typing import Any

Pair = tuple[str, Any, str, Any]

TRIES = 20
"""Cases that are drawn for each that is kept."""


def covering_array(factors: Mapping[str, Sequence[Any]], seed: int = 0) -> list[dict[str, Any]]:
    """Cases {factor: value} such that any two values of any two factors are together in one of them. Greedy: each case
    starts from a pair that is still missing, and of several random completions the one with most new pairs is kept.
    """
    generator = random.Random(seed)
    missing = [
        (first, one, second, other)
        for first, second in combinations(factors, 2)
        for one, other in product(factors[first], factors[second])
    ]
    generator.shuffle(missing)
    left = dict.fromkeys(missing)
    cases = []
    while left:
        first, one, second, other = next(iter(left))
        drawn = [
            {name: generator.choice(values) for name, values in factors.items()} | {first: one, second: other}
            for _ in range(TRIES)
        ]
        best = max(drawn, key=lambda case: sum(pair in left for pair in pairs(case)))
        for pair in pairs(best):
            left.pop(pair, None)
        cases.append(best)
    return cases


def pairs(case: Mapping[str, Any]) -> list[Pair]:
    """The pairs of values that meet in a case."""
    return [(*a, *b) for a, b in combinations(case.items(), 2)]
