"""Rules that turn an integral over 0 .. 1 into a weighted sum.

    rule             nodes t                                weights
    midpoint         (k - 1/2) / N, k = 1 .. N              1 / N
    gauss_legendre   roots of the N-th Legendre polynomial  Gauss-Legendre, exact for polynomials of degree 2 N - 1
    linspace         (k - 1) / (N - 1), k = 1 .. N          1 / N
    trapezoid        k / N, k = 0 .. N                      1 / N, half of it at both ends
    left, right      k / N, k = 0 .. N - 1 or 1 .. N        1 / N

`linspace` is not a proper quadrature: it is the plain mean over equally spaced points with both ends. The error of the
prediction published in arXiv 2503.01901, Table 3, decays as this rule's does, so that it is inferred to be the paper's.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from requant.errors import InputError

Nodes = list[tuple[float, float]]


def quadrature_nodes(rule: str, intervals: int) -> Nodes:
    """(t, weight) of every node, by ascending t; the weights sum to 1. Raises InputError on an unknown rule, fewer than
    one interval, or fewer than two with linspace.
    """
    if rule not in _RULES:
        raise InputError(f"quadrature must be one of {', '.join(_RULES)}, got {rule!r}")
    least = 2 if rule == "linspace" else 1
    if intervals < least:
        raise InputError(f"intervals must be at least {least} with {rule}, got {intervals}")
    return _RULES[rule](intervals)


def _equal(points: list[float]) -> Nodes:
    return [(point, 1 / len(points)) for point in points]


def _gauss_legendre(intervals: int) -> Nodes:
    points, weights = np.polynomial.legendre.leggauss(intervals)
    return [(float(point + 1) / 2, float(weight) / 2) for point, weight in zip(points, weights, strict=True)]


def _trapezoid(intervals: int) -> Nodes:
    ends = (0, intervals)
    return [(k / intervals, (0.5 if k in ends else 1) / intervals) for k in range(intervals + 1)]


_RULES: dict[str, Callable[[int], Nodes]] = {
    "midpoint": lambda intervals: _equal([(k + 0.5) / intervals for k in range(intervals)]),
    "gauss_legendre": _gauss_legendre,
    "linspace": lambda intervals: _equal([k / (intervals - 1) for k in range(intervals)]),
    "trapezoid": _trapezoid,
    "left": lambda intervals: _equal([k / intervals for k in range(intervals)]),
    "right": lambda intervals: _equal([(k + 1) / intervals for k in range(intervals)]),
}
