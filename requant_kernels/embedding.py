"""QuantizedEmbedding: the drop-in for nn.Embedding, and the output head that shares its weight.

indices -> embed_tokens -> hidden states -> ... -> lm_head -> logits
                |                                     |
                +---------- one packed weight --------+        (tied: TiedHead has no tensors of its own)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from requant_kernels.formats import LayerSpec, UniformWeight
from requant_kernels.formats.rounding import round_uniform
from requant_kernels.formats.storage import FLOAT_DTYPES, check
from requant_kernels.linear import DenseSparseLinear

ROWS_AT_ONCE = 4096
"""Vocabularies are long: so many rows, a multiple of 16, are rounded at a time."""


class QuantizedEmbedding(DenseSparseLinear):
    """A uniform weight W [num_embeddings, embedding_dim] that is read row by row: y = W[indices].

    It is stored as a DenseSparseLinear without sparse part and bias; `project(x)` is x @ W.T. The rows come in `dtype`,
    which follows a move of the module to another dtype, while the buffers stay as they are.
    """

    dtype: torch.dtype

    def __init__(self, weight: UniformWeight, dtype: torch.dtype) -> None:
        """Raises ValueError unless `dtype` is fp32, fp16 or bf16."""
        check("dtype", dtype, FLOAT_DTYPES)
        super().__init__(weight)
        self.dtype = dtype

    @classmethod
    def from_spec(
        cls, spec: LayerSpec, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
    ) -> Self:
        """An empty embedding, to be filled by a loader. Raises ValueError if `spec` is not one of an embedding."""
        if spec.format != UniformWeight.format or spec.nnz or spec.bias:
            raise ValueError("an embedding must be uniform, without sparse part and bias")
        module = super().from_spec(spec, device, dtype)
        module.dtype = dtype
        return module

    @classmethod
    def from_embedding(cls, embedding: nn.Embedding, bits: int = 8, group_size: int = 128) -> Self:
        """Rounds to nearest."""
        return cls(round_rows(embedding.weight, bits, group_size), embedding.weight.dtype)

    @property
    def num_embeddings(self) -> int:
        """Rows of W."""
        return self.out_features

    @property
    def embedding_dim(self) -> int:
        """Columns of W."""
        return self.in_features

    def forward(self, indices: Tensor) -> Tensor:
        """indices [...] of int64 or int32 -> [..., embedding_dim] of `dtype`.

        Raises IndexError if an index is out of range.
        """
        weight = self.operands
        arguments = (*weight.dense, self.out_features, self.in_features, *weight.parameters, self.dtype)
        return torch.ops.requant.uniform_embedding(indices, *arguments)

    def project(self, x: Tensor) -> Tensor:
        """x [..., embedding_dim] -> x @ W.T [..., num_embeddings]."""
        return super().forward(x)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self.dtype = fn(torch.empty(0, dtype=self.dtype)).dtype
        return self

    def extra_repr(self) -> str:
        """Geometry and format."""
        return (
            f"{self.num_embeddings}, {self.embedding_dim}, bits={self.bits}, group_size={self.group_size}, "
            f"dtype={self.dtype}"
        )


class TiedHead(nn.Module):
    """The output head of a model with tied weights: logits = x @ W.T with the embedding's W, no tensor of its own."""

    embedding: QuantizedEmbedding

    def __init__(self, embedding: QuantizedEmbedding) -> None:
        super().__init__()
        # Past nn.Module's registration: the embedding belongs to another module, and is moved and saved with that.
        self.__dict__["embedding"] = embedding

    @property
    def in_features(self) -> int:
        """Columns of W."""
        return self.embedding.in_features

    @property
    def out_features(self) -> int:
        """Rows of W."""
        return self.embedding.out_features

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in_features] -> [..., out_features] of the same dtype."""
        return self.embedding.project(x)

    def extra_repr(self) -> str:
        """Geometry."""
        return f"in_features={self.in_features}, out_features={self.out_features}, tied"


def round_rows(weight: Tensor, bits: int, group_size: int) -> UniformWeight:
    """A tall weight [rows, columns] rounded to nearest, a part at a time."""
    rows, columns = weight.shape
    parts = [
        round_uniform(part.float(), bits=bits, group_size=group_size) for part in weight.detach().split(ROWS_AT_ONCE)
    ]
    zeros = [part.zero for part in parts if part.zero is not None]
    return UniformWeight(
        codes=torch.cat([part.codes for part in parts]),
        scale=torch.cat([part.scale for part in parts]),
        zero=torch.cat(zeros),
        out_features=rows,
        in_features=columns,
        bits=bits,
        group_size=group_size,
    )
