from __future__ import annotations

import itertools

import pytest
import torch
from requant.quantizers import Statistics, make_quantizer
from requant.quantizers.squeezellm import SqueezeLLM, cluster_rows
from requant.recipe import Recipe
from sklearn.cluster import KMeans


def heavy_tailed(rows: int, columns: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights with many ties, and Fisher information over many orders of magnitude: what a real model has."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn((rows, columns), generator=generator).bfloat16().float()
    fisher = torch.randn((rows, columns), generator=generator).mul(2).exp().mul(1e-12)
    return weight, fisher


def cost(values: torch.Tensor, mass: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Weighted squared distance to the nearest entry, fp64 [rows]."""
    distance = (values.double()[:, :, None] - table.double()[:, None, :]).square().amin(dim=2)
    return (distance * mass.double()).sum(dim=1)


def exact_cost(values: torch.Tensor, mass: torch.Tensor, clusters: int) -> float:
    """Of one row, by dynamic programming over all intervals of the sorted row."""
    values, order = values.double().sort()
    mass = mass.double()[order]
    sums = [torch.cat((torch.zeros(1), (mass * values**power).cumsum(0))) for power in range(3)]
    total, first, second = (each[None, :] - each[:, None] for each in sums)
    within = torch.where(total > 0, second - first**2 / total, 0.0)
    within[torch.ones_like(within, dtype=torch.bool).tril(-1)] = torch.inf
    best = within[0]
    for _ in range(clusters - 1):
        best = (best[:, None] + within).amin(dim=0)
    return float(best[-1])


def test_exact_reference_against_all_partitions() -> None:
    values, mass = torch.randn(9), torch.rand(9)
    ordered, order = values.sort()
    best = torch.inf
    for cuts in itertools.combinations(range(1, 9), 2):
        parts = zip(ordered.tensor_split(cuts), mass[order].tensor_split(cuts), strict=True)
        best = min(best, sum(float((m * (v - (m * v).sum() / m.sum()) ** 2).sum()) for v, m in parts))
    assert exact_cost(values, mass, 3) == pytest.approx(best, rel=1e-4)


@pytest.mark.parametrize(("bits", "columns"), [(2, 300), (3, 576), (4, 576), (3, 1000)])
def test_cost_is_within_one_percent_of_the_optimum_and_below_scikit_learn(bits: int, columns: int) -> None:
    values, mass = heavy_tailed(6, columns, seed=bits)
    ours = cost(values, mass, cluster_rows(values, mass, 2**bits))
    exact = torch.tensor([exact_cost(*row, 2**bits) for row in zip(values, mass, strict=True)], dtype=torch.float64)
    assert (ours >= exact * (1 - 1e-5)).all()
    assert ours.sum() <= 1.01 * exact.sum()
    assert (ours / exact).mean() <= 1.01
    theirs = 0.0
    for row_values, row_mass in zip(values, mass, strict=True):
        model = KMeans(2**bits, n_init=10, random_state=0)
        # Scaled, because scikit-learn stops early on tiny sample weights.
        model.fit(row_values[:, None].numpy(), sample_weight=(row_mass / row_mass.max()).numpy())
        theirs += float(model.inertia_) * float(row_mass.max())
    assert ours.sum() <= theirs


@pytest.mark.parametrize("columns", [1, 5, 8, 40, 63])
def test_short_rows_are_solved_exactly(columns: int) -> None:
    values, mass = torch.randn(20, columns), torch.rand(20, columns)
    ours = cost(values, mass, cluster_rows(values, mass, 8))
    exact = torch.tensor([exact_cost(*row, 8) for row in zip(values, mass, strict=True)], dtype=torch.float64)
    spread = (mass * values.square()).sum(dim=1)
    assert ((ours - exact).abs() <= 1e-5 * spread.double()).all()


def test_tables_rise_are_bf16_and_codes_are_the_nearest_stored_entry() -> None:
    weight, fisher = heavy_tailed(50, 200, seed=1)
    dense = SqueezeLLM(3).quantize(weight, Statistics(fisher))
    codes, table, scale = dense.unpack()
    assert scale is None
    assert table.dtype == torch.bfloat16
    assert (table.float().diff(dim=1) >= 0).all()
    distance = (weight[:, :, None] - table.float()[:, None, :]).abs()
    chosen = distance.gather(2, codes.long()[:, :, None])[..., 0]
    assert torch.equal(chosen, distance.amin(dim=2))


def test_kept_positions_have_no_influence_but_codes() -> None:
    weight, fisher = heavy_tailed(30, 120, seed=2)
    keep = torch.rand(weight.shape) < 0.1
    spiked = torch.where(keep, weight * 50, weight)
    fisher_spiked = torch.where(keep, fisher * 1e6, fisher)
    kept = SqueezeLLM(3).quantize(spiked, Statistics(fisher_spiked), keep_mask=keep)
    silent = cluster_rows(spiked, fisher.masked_fill(keep, 0.0), 8).bfloat16()
    assert torch.equal(kept.unpack()[1], silent)
    ours = exact = 0.0
    for row, table in enumerate(kept.unpack()[1].float()):
        values, mass = weight[row][~keep[row]], fisher[row][~keep[row]]
        ours += float(cost(values[None], mass[None], table[None]))
        exact += exact_cost(values, mass, 8)
    assert ours <= 1.1 * exact  # if one kept weight of each row counted, 30-60 % more


@pytest.mark.parametrize("keep_all", [False, True])
def test_rows_without_mass_count_every_weight_the_same(keep_all: bool) -> None:
    weight = torch.randn(4, 90)
    fisher = torch.ones_like(weight) if keep_all else torch.zeros_like(weight)
    keep = torch.ones_like(weight, dtype=torch.bool) if keep_all else None
    table = SqueezeLLM(2).quantize(weight, Statistics(fisher), keep_mask=keep).unpack()[1]
    assert torch.equal(table, cluster_rows(weight, torch.ones_like(weight), 4).bfloat16())


def test_equal_weights_and_signed_zeros() -> None:
    weight = torch.tensor([[0.5] * 100, [0.0, -0.0] * 50])
    dense = SqueezeLLM(4).quantize(weight, Statistics(torch.rand(2, 100)))
    assert torch.equal(dense.dequantize(), weight)


def test_the_result_does_not_depend_on_the_order_of_columns_or_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, fisher = heavy_tailed(40, 150, seed=3)
    order = torch.randperm(150)
    quantizer = make_quantizer(Recipe(bits=3))
    plain = quantizer.quantize(weight, Statistics(fisher)).dequantize()
    shuffled = quantizer.quantize(weight[:, order], Statistics(fisher[:, order])).dequantize()
    assert torch.equal(plain[:, order], shuffled)
    monkeypatch.setattr("requant.quantizers.squeezellm.CHUNK_ELEMENTS", 7 * 150)
    monkeypatch.setattr("requant.quantizers.squeezellm.COST_ELEMENTS", 1)
    assert torch.equal(plain, quantizer.quantize(weight, Statistics(fisher)).dequantize())


def test_missing_fisher_information_is_refused() -> None:
    with pytest.raises(ValueError, match="needs the Fisher information"):
        SqueezeLLM(3).quantize(torch.randn(4, 4), Statistics())
