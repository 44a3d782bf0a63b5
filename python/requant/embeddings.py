"""The embedding and the output head in 8 or 4 bits, if the recipe asks for it: rounded to nearest, in groups.

They are quantized last and nothing is measured with them: neither Fisher information nor PQI knows of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from requant.errors import InputError
from requant.recipe import Recipe
from requant_kernels.embedding import QuantizedEmbedding, round_rows
from requant_kernels.linear import DenseSparseLinear

GROUP_SIZE = 128

Embeddings = Mapping[str, tuple[nn.Embedding | nn.Linear, int]]
"""Module name -> (module, bits)."""


def find_embeddings(model: nn.Module, recipe: Recipe) -> Embeddings:
    """What `recipe.embedding_bits` and `recipe.head_bits` ask to be quantized. Tied weights
    are one entry, the embedding, whichever of the two asks.

    Raises InputError if the model has no such module, or one that is more than an nn.Embedding or nn.Linear, if its
    config is wrong about tied weights, or if tied weights shall have different bits.
    """
    asked = {"embedding_bits": recipe.embedding_bits, "head_bits": recipe.head_bits}
    if not any(asked.values()):
        return {}
    if not isinstance(model, PreTrainedModel):
        raise InputError(f"embedding_bits and head_bits need a transformers model, got {type(model).__name__}")
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = isinstance(head, nn.Linear) and head.weight is embedding.weight
    said = bool(getattr(model.config.get_text_config(), "tie_word_embeddings", False))
    if said != tied:  # whoever loads the model later has only the config to go by
        raise InputError(
            f"embedding_bits and head_bits need a config that tells the truth: tie_word_embeddings is {said}, "
            f"but the head and the embedding {'share' if tied else 'do not share'} one weight"
        )
    names = {module: name for name, module in model.named_modules()}
    chosen: dict[Any, int] = {}
    for option, module, kind in (("embedding_bits", embedding, nn.Embedding), ("head_bits", head, nn.Linear)):
        bits = asked[option]
        if bits is None:
            continue
        if type(module) is not kind or (tied and (type(embedding) is not nn.Embedding or head.bias is not None)):
            raise InputError(
                f"{option}: expected {type(model).__name__} to have a plain nn.{kind.__name__} there, without a bias "
                f"if it is tied, got {type(module).__name__}"
            )
        if chosen.setdefault(embedding if tied else module, bits) != bits:
            raise InputError(
                f"embedding_bits and head_bits must be equal where both share one weight, got {recipe.embedding_bits} "
                f"and {recipe.head_bits}"
            )
    return {names[module]: (module, bits) for module, bits in chosen.items()}


def quantize_embedding(module: nn.Embedding | nn.Linear, bits: int, dtype: Any) -> DenseSparseLinear:
    """The module that takes its place; `dtype` is that of the rows of an embedding, and of the bias of a head."""
    weight = round_rows(module.weight, bits, GROUP_SIZE)
    if isinstance(module, nn.Embedding):
        return QuantizedEmbedding(weight, dtype)
    return DenseSparseLinear(weight, bias=None if module.bias is None else module.bias.detach().to(dtype))
