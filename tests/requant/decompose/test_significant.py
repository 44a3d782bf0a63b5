from __future__ import annotations

import torch
from requant.decompose.selection import Positions
from requant.decompose.significant import Score, change_score, detach_significant, random_score


def test_steps_measure_again_and_never_take_a_weight_twice() -> None:
    names = ["a", "b"]
    score = {name: torch.rand(20, 20) for name in names}
    outliers = {name: score[name].flatten().topk(15).indices for name in names}
    seen: list[int] = []

    def measure(significant: Positions) -> Score:
        seen.append(sum(positions.numel() for positions in significant.values()))
        return lambda name: score[name]

    found = detach_significant(measure, names, 50, 3, outliers)
    assert seen == [0, 16, 32]
    assert sum(positions.numel() for positions in found.values()) == 50
    for name in names:
        assert found[name].unique().numel() == found[name].numel()
        assert not set(found[name].tolist()) & set(outliers[name].tolist())
    # With scores that do not change, steps make no difference.
    once = detach_significant(measure, names, 50, 1, outliers)
    assert all(torch.equal(found[name], once[name]) for name in names)


def test_controls() -> None:
    weight = {"a": torch.randn(4, 5), "b": torch.randn(2, 3)}
    changed = {name: each + 0.5 for name, each in weight.items()}
    assert torch.allclose(change_score(weight.__getitem__, changed.__getitem__)("a"), torch.full((4, 5), 0.5))
    score = random_score(["a", "b"], lambda name: weight[name].shape, seed=3)
    assert torch.equal(score("b"), score("b"))
    assert score("a").shape == (4, 5)
    assert not torch.equal(score("b").flatten(), score("a").flatten()[:6])
