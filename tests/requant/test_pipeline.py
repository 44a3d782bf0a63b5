from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from requant.errors import InputError
from requant.pipeline import QuantizeResult, quantize
from requant.plan import Plan
from requant.progress import Advance
from requant.recipe import Recipe
from tiny_model import TEXT, logits, make_model, make_tokenizer

from requant_kernels import DenseSparseLinear

SMALL: dict[str, Any] = {"samples": 3, "sequence_length": 16, "intervals": 2, "seed": 5, "outlier_exponents": (0, 1)}
LONG_TEXT = TEXT * 30


def run(model: torch.nn.Module | None = None, **fields: Any) -> QuantizeResult:
    return quantize(model or make_model(initializer_range=0.1), make_tokenizer(), LONG_TEXT, Recipe(**SMALL | fields))


def layers_of(result: QuantizeResult) -> dict[str, DenseSparseLinear]:
    return {name: each for name, each in result.model.named_modules() if isinstance(each, DenseSparseLinear)}


RECIPES: list[dict[str, Any]] = [
    {},
    {"outlier_rule": "iqr", "significant_steps": 1, "quadrature": "gauss_legendre"},
    {"outlier_percent": 0.0, "significant_percent": 1.0},
    {"outlier_percent": 2.0, "significant_percent": 0.0, "outlier_exponents": (1.0,), "values_dtype": "bfloat16"},
    {"outlier_percent": 0.0, "significant_percent": 0.0},
    {"method": "rtn", "bits": 4, "group_size": 64, "outlier_percent": 0.5, "significant_percent": 0.5},
    {"method": "rtn", "bits": 8, "symmetric": True, "dtype": "float32"},
]


@pytest.mark.parametrize("fields", RECIPES, ids=lambda fields: "-".join(map(str, fields.values())))
def test_counts_are_exact_and_two_runs_give_the_same_bytes(fields: dict[str, Any]) -> None:
    first, second = run(**fields), run(**fields)
    recipe = first.recipe
    layers = layers_of(first)
    assert len(layers) == 14
    weights = sum(layer.in_features * layer.out_features for layer in layers.values())
    outliers = sum(layer.outliers for layer in layers.values())
    significant = sum(layer.significant for layer in layers.values())
    assert outliers == round(recipe.outlier_percent / 100 * weights)
    assert significant == round(recipe.significant_percent / 100 * weights)
    assert sum(layer.sparse.nnz for layer in layers.values() if layer.sparse) == outliers + significant
    assert sum(first.report["outliers"].values()) == outliers
    ours, theirs = first.model.state_dict(), second.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert first.report["provenance"] == second.report["provenance"]
    json.dumps(first.report, allow_nan=False)
    assert logits(first.model).isfinite().all()


def test_the_rest_of_the_model_gets_the_checkpoint_dtype() -> None:
    for given, asked, expected in ((torch.bfloat16, None, torch.bfloat16), (torch.float32, "bfloat16", torch.bfloat16)):
        model = make_model()
        for parameter in model.parameters():
            parameter.data = parameter.data.to(given)
        embedding = model.model.embed_tokens.weight.detach().clone()
        result = run(model, method="rtn", dtype=asked)
        assert {each.dtype for each in result.model.parameters()} == {expected}
        assert torch.equal(model.model.embed_tokens.weight.float(), embedding.float())
        assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
        assert layers_of(result)["model.layers.0.self_attn.q_proj"].bias.dtype == expected
        assert model.model.rotary_emb.inv_freq.dtype == torch.float32


def test_rtn_needs_neither_text_nor_tokenizer() -> None:
    result = quantize(make_model(), None, None, Recipe(method="rtn"))
    assert len(layers_of(result)) == 14


def test_losses_are_reported_and_the_best_exponent_is_used() -> None:
    result = run(outlier_percent=3.0, outlier_exponents=(0.0, 1.0, 2.0), significant_steps=1)
    trials = result.report["outlier_trials"]
    assert set(trials) == {"0", "1", "2"}
    best = min(trials, key=trials.get)
    alone = run(outlier_percent=3.0, outlier_exponents=(float(best),), significant_steps=1)
    assert alone.report["outliers"] == result.report["outliers"]
    changes = result.report["loss_changes"]
    assert len(changes) == 2
    assert result.report["losses"]["original"] > 0
    # The last measurement starts from the chosen trial: the same loss, computed again.
    assert changes[1]["actual"] + result.report["losses"]["original"] == pytest.approx(trials[best])


def test_keeping_weights_lowers_the_calibration_loss() -> None:
    kept = run(outlier_percent=1.0, significant_percent=5.0, significant_steps=2, bits=2)
    before, after = (change["actual"] for change in kept.report["loss_changes"][1:])
    assert after < before


class Interrupting:
    """Progress that is interrupted in the given task."""

    def __init__(self, name: str) -> None:
        self.name = name

    @contextmanager
    def task(self, name: str, total: float) -> Iterator[Advance]:
        def advance(amount: float) -> None:
            if name == self.name:
                raise KeyboardInterrupt

        yield advance


@pytest.mark.parametrize("where", ["Fisher information", "quantizing", "PQI of all weights", "loss with outliers",
                                   "PQI of what is left", "packing"])  # fmt: skip
def test_an_interrupt_leaves_the_model_as_it_was(where: str) -> None:
    model = make_model().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flags = {name: each.requires_grad for name, each in model.named_parameters()}
    with pytest.raises(KeyboardInterrupt):
        quantize(model, make_tokenizer(), LONG_TEXT, Recipe(**SMALL, dtype="float32"), progress=Interrupting(where))
    after = model.state_dict()
    assert after.keys() == before.keys()
    for name, value in after.items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name])
    assert {name: each.requires_grad for name, each in model.named_parameters()} == flags
    assert model.training


def test_bad_input_is_named() -> None:
    model = make_model()
    with pytest.raises(InputError, match="calibration text is too short"):
        quantize(model, make_tokenizer(), "short", Recipe())
    model.model.layers[0].mlp.down_proj.weight.data[0, 0] = torch.nan
    with pytest.raises(InputError, match=r"model\.layers\.0\.mlp\.down_proj has NaN"):
        quantize(model, make_tokenizer(), LONG_TEXT, Recipe(method="rtn"))


@pytest.mark.parametrize("fields", RECIPES, ids=lambda fields: "-".join(map(str, fields.values())))
def test_the_plan_is_what_happens(fields: dict[str, Any]) -> None:
    done: dict[str, float] = {}

    class Counting:
        @contextmanager
        def task(self, name: str, total: float) -> Iterator[Advance]:
            amounts: list[float] = []
            yield amounts.append
            assert sum(amounts) == total
            done[name] = done.get(name, 0) + total

    recipe = Recipe(**SMALL | fields)
    quantize(make_model(), make_tokenizer(), LONG_TEXT, recipe, progress=Counting())
    plan = Plan.of(recipe)
    gradients = sum(value for name, value in done.items() if name.startswith(("PQI", "Fisher")))
    losses = sum(value for name, value in done.items() if "loss" in name)
    assert gradients == plan.gradient_passes * recipe.samples
    assert losses == plan.loss_passes * recipe.samples
    assert done["quantizing"] == plan.quantize_passes * 14
