"""Whole models: the random one, its quantized copies, and llama.cpp behind the same calls."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import end_to_end
import pytest
import torch
from llama_cpp_model import LlamaCppModel
from llama_shape import random_model
from quantized import FORMATS
from requant.speed import Contender, measure
from tiny_model import make_model
from transformers import LlamaConfig

from requant_kernels import DenseSparseLinear

SMALL = LlamaConfig(
    vocab_size=512,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    tie_word_embeddings=True,
)


def test_random_model_computes() -> None:
    model = random_model(SMALL)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    with torch.inference_mode():
        logits = model(torch.tensor([[1, 2, 3]])).logits
    assert logits.dtype == torch.bfloat16
    assert logits.isfinite().all()
    assert logits.float().std() > 0


def test_copy_shares_all_but_the_linear_layers() -> None:
    model = make_model()
    format = next(format for format in FORMATS if format.name == "uniform 4 bit")
    quantized = end_to_end.quantize(model, format, 0.5, head_bits=8)
    assert quantized.get_input_embeddings().weight is model.get_input_embeddings().weight
    assert isinstance(quantized.get_output_embeddings(), DenseSparseLinear)
    assert quantized.get_output_embeddings().bits == 8
    assert not any(isinstance(module, DenseSparseLinear) for module in model.modules())
    assert sum(isinstance(module, DenseSparseLinear) for module in quantized.modules()) > 1
    with torch.inference_mode():
        assert quantized(torch.tensor([[1, 2, 3]])).logits.isfinite().all()


def test_shared_tensors_are_stored_once() -> None:
    model = random_model(SMALL)
    assert end_to_end.stored_bytes(model) < 2 * sum(p.numel() for p in model.parameters()) + 1000


def test_llama_cpp_gets_the_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated: list[list[int]] = []

    class Llama:
        def __init__(self, **options: object) -> None:
            self.options = options

        def n_vocab(self) -> int:
            return 100

        def reset(self) -> None:
            evaluated.append([])

        def eval(self, tokens: list[int]) -> None:
            evaluated[-1] += tokens

    monkeypatch.setitem(sys.modules, "llama_cpp", SimpleNamespace(Llama=Llama))
    model = LlamaCppModel(Path("model.gguf"), threads=1, context=64)
    speeds = measure([Contender("llama.cpp", model)], prefill_tokens=16, decode_tokens=8)
    assert speeds["llama.cpp"].prefill_tokens == 16
    assert all(len(tokens) > 16 and max(tokens) < 100 for tokens in evaluated)


def test_llama_cpp_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(ImportError):
        LlamaCppModel(Path("model.gguf"), threads=1, context=64)
