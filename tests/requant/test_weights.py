from __future__ import annotations

import contextlib

import pytest
import torch
from requant.errors import InputError
from requant.weights import OriginalWeights, find_linears, single_precision
from tiny_model import make_model
from torch import nn


@pytest.mark.parametrize("tied", [True, False])
def test_only_linears_of_decoder_blocks_are_found(tied: bool) -> None:
    found = find_linears(make_model(tied=tied))
    assert len(found) == 2 * 7
    assert all(name.startswith("model.layers.") for name in found)


def test_skip_patterns() -> None:
    found = find_linears(make_model(), skip=("*.self_attn.*", "model.layers.1.mlp.up_proj"))
    assert sorted(found) == sorted(
        ["model.layers.0.mlp.up_proj"]
        + [f"model.layers.{i}.mlp.{part}_proj" for i in (0, 1) for part in ("gate", "down")]
    )


def test_shared_weights_are_left_alone() -> None:
    model = make_model()
    layers = model.model.layers
    layers[1].mlp.up_proj.weight = layers[0].mlp.up_proj.weight
    assert not any("up_proj" in name for name in find_linears(model))


def test_nothing_to_quantize_and_bad_weights_are_named() -> None:
    with pytest.raises(InputError, match="Sequential has nothing to quantize"):
        find_linears(nn.Sequential(nn.Linear(4, 4)))
    with pytest.raises(InputError, match=r"none of \* matches"):
        find_linears(make_model(), skip=("*",))
    for value in (torch.nan, torch.inf):
        model = make_model()
        model.model.layers[1].self_attn.v_proj.weight.data[3, 5] = value
        with pytest.raises(InputError, match=r"weight of model\.layers\.1\.self_attn\.v_proj has NaN or infinite"):
            find_linears(model)


@pytest.mark.parametrize(
    ("exact", "dtype"), [("bfloat16", torch.bfloat16), ("float16", torch.float16), (None, torch.float32)]
)
def test_copies_are_exact_and_as_small_as_possible(exact: str | None, dtype: torch.dtype) -> None:
    linear = nn.Linear(40, 24)
    if exact is not None:
        linear.weight.data = linear.weight.data.to(getattr(torch, exact)).float()
    before = linear.weight.detach().clone()
    originals = OriginalWeights({"a": linear})
    assert originals._copies["a"].dtype == dtype
    inside = torch.ones(())
    with contextlib.suppress(KeyboardInterrupt), originals.replaced(lambda name: torch.zeros(24, 40)):
        inside = linear.weight.abs().sum()
        raise KeyboardInterrupt
    assert inside == 0
    assert torch.equal(linear.weight, before)
    assert torch.equal(originals["a"], before)


def test_single_precision_gives_every_dtype_back() -> None:
    model = make_model().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with contextlib.suppress(KeyboardInterrupt), single_precision(model):
        assert {each.dtype for each in model.parameters()} == {torch.float32}
        assert not model.training
        raise KeyboardInterrupt
    assert model.training
    assert all(
        each.dtype == before[name].dtype and torch.equal(each, before[name])
        for name, each in model.state_dict().items()
    )
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
