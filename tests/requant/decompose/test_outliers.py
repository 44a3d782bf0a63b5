from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from requant.decompose.outliers import interquartile_counts, power_law_counts, select_outliers, total_count


@settings(max_examples=200, deadline=None)
@given(
    matrices=st.lists(st.tuples(st.integers(1, 5000), st.floats(0, 1e3)), min_size=1, max_size=30),
    percent=st.floats(0, 100),
    exponent=st.floats(0, 4),
)
def test_counts_are_possible_and_sum_exactly(
    matrices: list[tuple[int, float]], percent: float, exponent: float
) -> None:
    sizes, sensitivity = [size for size, _ in matrices], [value for _, value in matrices]
    counts = power_law_counts(sensitivity, sizes, percent, exponent)
    assert sum(counts) == round(percent / 100 * sum(sizes))
    assert all(0 <= count <= size for count, size in zip(counts, sizes, strict=True))
    highest = 10 * sum(counts) / sum(sizes)
    assert all(count <= highest * size + 1 for count, size in zip(counts, sizes, strict=True))


def test_exponent_zero_is_an_even_share_and_one_is_proportional() -> None:
    sizes = [10_000, 20_000, 10_000]
    assert power_law_counts([1.0, 2.0, 3.0], sizes, 1.0, 0.0) == [100, 200, 100]
    assert power_law_counts([1.0, 2.0, 3.0], sizes, 1.0, 1.0) == [50, 200, 150]


def test_excess_over_the_limit_goes_to_the_others_in_proportion() -> None:
    counts = power_law_counts([1000.0, 1.0, 3.0], [10_000] * 3, 1.0, 1.0, limit=2.0)
    assert counts == [200, 25, 75]


def test_no_sensitivity_at_all_is_an_even_share() -> None:
    assert power_law_counts([0.0, 0.0], [1000, 3000], 1.0, 2.0) == [10, 30]


def test_interquartile_rule_against_a_search_for_its_constant() -> None:
    weights = {"a": torch.randn(200, 100), "b": torch.randn(100, 100) * 3 + 0.5, "c": torch.randn(50, 400) ** 3}
    counts = interquartile_counts(weights.__getitem__, list(weights), 0.45)
    assert sum(counts) == total_count([weight.numel() for weight in weights.values()], 0.45)

    def counts_for(constant: float) -> list[int]:
        result = []
        for weight in weights.values():
            first, third = torch.quantile(weight.flatten(), torch.tensor([0.25, 0.75])).tolist()
            reach = constant * (third - first)
            threshold = max(abs(first - reach), abs(third + reach))
            result.append(int((weight.abs() >= threshold).sum()))
        return result

    low, high = 0.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(counts_for(middle)) > sum(counts) else (low, middle)
    assert all(abs(ours - theirs) <= 1 for ours, theirs in zip(counts, counts_for(high), strict=True))


def test_outliers_are_the_largest_magnitudes() -> None:
    weight = torch.randn(30, 40)
    found = select_outliers(weight, 17)
    assert torch.equal(found, weight.abs().flatten().topk(17).indices.sort().values)
    assert select_outliers(torch.tensor([[2.0, -2.0, 2.0]]), 2).tolist() == [0, 1]


@pytest.mark.parametrize("count", [0, 6])
def test_none_and_all(count: int) -> None:
    assert select_outliers(torch.randn(2, 3), count).numel() == count
