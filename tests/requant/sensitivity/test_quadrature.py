from __future__ import annotations

import pytest
from requant.errors import InputError
from requant.recipe import QUADRATURES
from requant.sensitivity.quadrature import quadrature_nodes

# The highest degree of polynomials that the rule integrates exactly, by number of intervals.
DEGREES = {
    "midpoint": lambda intervals: 1,
    "gauss_legendre": lambda intervals: 2 * intervals - 1,
    "trapezoid": lambda intervals: 1,
    "linspace": lambda intervals: 1,
    "left": lambda intervals: 0,
    "right": lambda intervals: 0,
}


@pytest.mark.parametrize("intervals", [2, 3, 4, 7])
@pytest.mark.parametrize("rule", QUADRATURES)
def test_exact_up_to_its_degree_and_no_further(rule: str, intervals: int) -> None:
    degree = DEGREES[rule](intervals)
    nodes = quadrature_nodes(rule, intervals)
    for power in range(degree + 2):
        value = sum(weight * t**power for t, weight in nodes)
        exact = 1 / (power + 1)
        if power <= degree:
            assert value == pytest.approx(exact, rel=1e-12)
        else:
            assert abs(value - exact) > 1e-9


@pytest.mark.parametrize("rule", QUADRATURES)
def test_nodes_rise_within_the_interval(rule: str) -> None:
    positions = [t for t, _ in quadrature_nodes(rule, 5)]
    assert positions == sorted(positions)
    assert positions[0] >= 0
    assert positions[-1] <= 1


def test_known_nodes() -> None:
    assert quadrature_nodes("midpoint", 2) == [(0.25, 0.5), (0.75, 0.5)]
    assert quadrature_nodes("left", 1) == [(0.0, 1.0)]
    assert quadrature_nodes("linspace", 3) == [(0.0, 1 / 3), (0.5, 1 / 3), (1.0, 1 / 3)]
    assert quadrature_nodes("trapezoid", 2) == [(0.0, 0.25), (0.5, 0.5), (1.0, 0.25)]


@pytest.mark.parametrize(("rule", "intervals"), [("simpson", 2), ("midpoint", 0), ("linspace", 1)])
def test_bad_arguments(rule: str, intervals: int) -> None:
    with pytest.raises(InputError):
        quadrature_nodes(rule, intervals)
