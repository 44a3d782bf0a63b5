"""Embedding and head in few bits: chosen, quantized, saved once, loaded bit for bit."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from requant.embeddings import find_embeddings
from requant.errors import InputError
from requant.estimate import estimate
from requant.pipeline import quantize
from requant.recipe import Recipe
from tiny_model import logits, make_model, make_tokenizer
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM

from requant_kernels import DenseSparseLinear, QuantizedEmbedding
from requant_kernels.checkpoint import CheckpointError, read_weight_headers, save_checkpoint, validate_structure, verify
from requant_kernels.embedding import TiedHead

EMBEDDING, HEAD = "model.embed_tokens", "lm_head"


def run(model: nn.Module, **fields: Any) -> Any:
    return quantize(model, make_tokenizer(), None, Recipe(method="rtn", bits=4, **fields)).model


@pytest.mark.parametrize(
    ("tied", "fields", "expected"),
    [
        (True, {"head_bits": 8}, {EMBEDDING: 8}),
        (True, {"embedding_bits": 4}, {EMBEDDING: 4}),
        (True, {"embedding_bits": 4, "head_bits": 4}, {EMBEDDING: 4}),
        (False, {"head_bits": 8}, {HEAD: 8}),
        (False, {"embedding_bits": 8}, {EMBEDDING: 8}),
        (False, {"embedding_bits": 4, "head_bits": 8}, {EMBEDDING: 4, HEAD: 8}),
        (True, {}, {}),
    ],
)
def test_what_is_asked_for_is_quantized_and_survives_saving(
    tmp_path: Path, tied: bool, fields: dict[str, int], expected: dict[str, int]
) -> None:
    original = make_model(tied=tied)
    model = run(make_model(tied=tied), **fields)
    assert isinstance(model.lm_head, TiedHead) == (tied and bool(fields))
    first = logits(model)
    assert torch.equal(logits(copy.deepcopy(model)), first)
    model.tie_weights()
    assert torch.equal(logits(model), first)
    save_checkpoint(model, None, tmp_path / "out")
    config = verify(tmp_path / "out").config
    assert len(config.modules) == 14 + len(expected)
    for name, bits in expected.items():
        spec = config.modules[name]
        assert (spec.format, spec.bits, spec.group_size, spec.nnz) == ("uniform", bits, 128, 0)
    stored = read_weight_headers(tmp_path / "out")
    for name in (EMBEDDING, HEAD):
        assert (f"{name}.codes" in stored) == (name in expected)
        assert (f"{name}.weight" in stored) == (name not in expected and not (tied and name == HEAD))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(logits(loaded), first)
    save_checkpoint(loaded, None, tmp_path / "again")
    for file in (tmp_path / "out").iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()
    base = AutoModel.from_pretrained(tmp_path / "out")
    tokens = torch.arange(9)[None]
    assert torch.equal(base(tokens).last_hidden_state, loaded.model(tokens).last_hidden_state)
    settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 1}
    assert torch.equal(loaded.generate(tokens, **settings), model.generate(tokens, **settings))
    for name, bits in expected.items():
        weight = original.get_submodule(name).weight.float()
        error = (model.get_submodule(name).dequantize() - weight).norm() / weight.norm()
        assert error < (0.01 if bits == 8 else 0.15)


def test_tied_weights_are_held_once_in_any_dtype(tmp_path: Path) -> None:
    model = run(make_model(), head_bits=8)
    assert model.lm_head.embedding is model.model.embed_tokens
    assert not any(name.startswith("lm_head") for name in model.state_dict())
    save_checkpoint(model, None, tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert loaded.model.embed_tokens(torch.arange(3)).dtype == torch.float32
    assert logits(loaded).dtype == torch.float32
    assert torch.allclose(logits(loaded), logits(model).float(), atol=0.05)
    half = loaded.to(torch.bfloat16)
    assert torch.equal(half.model.embed_tokens(torch.arange(3)), model.model.embed_tokens(torch.arange(3)))
    x = torch.randn(2, 64)
    assert torch.equal(half.lm_head(x), model.lm_head(x))


def test_a_head_with_a_bias_and_a_checkpoint_dtype(tmp_path: Path) -> None:
    model = make_model(tied=False)
    model.lm_head = nn.Linear(64, 300)
    model = run(model, head_bits=8, dtype="float32")
    assert isinstance(model.lm_head, DenseSparseLinear)
    assert model.lm_head.bias.dtype == torch.float32


def test_an_embedding_of_another_kind_in_the_checkpoint_is_refused(tmp_path: Path) -> None:
    model = run(make_model(tied=False), embedding_bits=8)
    layer = model.model.layers[0].self_attn.q_proj
    spec = DenseSparseLinear.from_linear(nn.Linear(64, 300, bias=False), bits=8).spec
    assert layer.spec.nnz == 0 < spec.nnz
    model.config.quantization_config.checkpoint.modules[EMBEDDING] = spec
    model.save_pretrained(tmp_path / "out")
    with pytest.raises(CheckpointError, match=EMBEDDING):
        AutoModelForCausalLM.from_pretrained(tmp_path / "out")


def test_impossible_wishes_are_refused_before_the_work() -> None:
    with pytest.raises(InputError, match="must be equal where both share one weight, got 4 and 8"):
        run(make_model(), embedding_bits=4, head_bits=8)
    with pytest.raises(InputError, match="head_bits must be one of 4, 8, None, got 3"):
        Recipe(head_bits=3)
    with pytest.raises(InputError, match="need a transformers model, got Sequential"):
        find_embeddings(nn.Sequential(), Recipe(head_bits=8))

    class Scaled(nn.Embedding):
        pass

    for tied in (True, False):
        model = make_model(tied=tied)
        model.model.embed_tokens.__class__ = Scaled
        with pytest.raises(InputError, match=r"embedding_bits: expected LlamaForCausalLM to have a plain nn.Embedding"):
            find_embeddings(model, Recipe(embedding_bits=8))
    model = make_model()
    model.lm_head.bias = nn.Parameter(torch.zeros(300))
    with pytest.raises(InputError, match=r"head_bits: expected .* without a bias if it is tied"):
        find_embeddings(model, Recipe(head_bits=8))


@pytest.mark.parametrize("tied", [True, False])
def test_a_config_that_is_wrong_about_tied_weights_is_refused(tied: bool) -> None:
    model = make_model(tied=tied)
    model.config.tie_word_embeddings = not tied
    with pytest.raises(InputError, match=f"tie_word_embeddings is {not tied}, but the head and the embedding"):
        find_embeddings(model, Recipe(embedding_bits=8))


def test_the_estimate_knows_of_it(tmp_path: Path) -> None:
    parts = estimate(make_model(), Recipe(method="rtn", head_bits=8)).parts
    assert parts["embedding and head bytes"] == 300 * 64
    assert parts["embedding and head seconds"] > 0
    assert isinstance(run(make_model(), head_bits=8).get_input_embeddings(), QuantizedEmbedding)
    assert "embedding and head bytes" not in estimate(make_model(), Recipe(method="rtn")).parts
    save_checkpoint(run(make_model(), head_bits=8), None, tmp_path / "out")
    assert validate_structure(tmp_path / "out").config.recipe["head_bits"] == 8
