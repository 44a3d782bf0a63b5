from __future__ import annotations

import pytest
import torch
from requant.decompose.selection import largest_scores, split_evenly

Chosen = set[tuple[str, int]]


def reference(scores: dict[str, torch.Tensor], count: int) -> Chosen:
    flat = []
    for index, (name, score) in enumerate(scores.items()):
        flat += [(-value, index, position, name) for position, value in enumerate(score.flatten().tolist())]
    return {(name, position) for _, _, position, name in sorted(flat)[:count]}


def chosen(scores: dict[str, torch.Tensor], count: int, excluded: dict[str, torch.Tensor] | None = None) -> Chosen:
    found = largest_scores(scores.__getitem__, list(scores), count, excluded)
    assert all((positions.diff() > 0).all() for positions in found.values())
    return {(name, position) for name, positions in found.items() for position in positions.tolist()}


@pytest.mark.parametrize("count", [0, 1, 7, 50, 299, 300])
@pytest.mark.parametrize("kind", ["spread", "tied", "zeros", "one bin"])
def test_against_a_sort(kind: str, count: int) -> None:
    raw = {name: torch.rand(shape) for name, shape in {"a": (5, 20), "b": (10, 10), "c": (4, 25)}.items()}
    scores = {
        "spread": {name: score.mul(40).sub(20).exp() for name, score in raw.items()},
        "tied": {name: score.mul(4).round() for name, score in raw.items()},
        "zeros": {name: torch.where(score < 0.9, -0.0, score) for name, score in raw.items()},
        "one bin": {name: 1 + score * 1e-5 for name, score in raw.items()},
    }[kind]
    assert chosen(scores, count) == reference(scores, count)


def test_against_topk_on_many() -> None:
    score = torch.randn(300, 500).square()
    found = largest_scores(lambda name: score, ["only"], 1234)["only"]
    assert torch.equal(found, score.flatten().topk(1234).indices.sort().values)


def test_excluded_positions_are_never_taken() -> None:
    scores = {"a": torch.rand(8, 8), "b": torch.rand(8, 8)}
    excluded = {name: score.flatten().topk(10).indices for name, score in scores.items()}
    found = chosen(scores, 40, excluded)
    assert len(found) == 40
    assert not found & {(name, int(position)) for name, positions in excluded.items() for position in positions}
    with pytest.raises(ValueError, match="at most the number of eligible weights, 108, got 109"):
        largest_scores(scores.__getitem__, ["a", "b"], 109, excluded)


@pytest.mark.parametrize("value", [-1.0, torch.nan])
def test_scores_that_have_no_order_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="scores of a must not be negative or NaN"):
        largest_scores(lambda name: torch.tensor([[1.0, value]]), ["a"], 1)


def test_split_evenly() -> None:
    assert split_evenly(10, 3) == [3, 3, 4]
    assert split_evenly(2, 3) == [0, 0, 2]
    assert split_evenly(7, 1) == [7]
