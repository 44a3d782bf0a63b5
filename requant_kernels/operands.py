"""What a kernel is given of a weight: the operator's arguments, sorted into one tuple."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from requant_kernels.formats import DENSE_FORMATS, DenseWeight, SparseWeight


class WeightOperands(NamedTuple):
    """W = D + S, [out_features, in_features]. `dense` are the tensors of D in the order of the operator's schema, codes
    first; `row_offsets`, `columns` and `values` are S or all None; `sparse_index` is what the backend derived from S at
    load, if it did.
    """

    format: str
    dense: tuple[Tensor | None, ...]
    row_offsets: Tensor | None
    columns: Tensor | None
    values: Tensor | None
    sparse_index: Tensor | None
    out_features: int
    in_features: int
    parameters: tuple[Any, ...]
    """What else the format needs to know, in the order of the operator's schema: bits, group_size."""

    @property
    def codes(self) -> Tensor:
        """The packed codes."""
        codes = self.dense[0]
        assert codes is not None
        return codes

    @property
    def dense_weight(self) -> DenseWeight:
        """D as an object of its format."""
        kind: Any = DENSE_FORMATS[self.format]
        return kind(*self.dense, self.out_features, self.in_features, *self.parameters)

    @property
    def sparse_weight(self) -> SparseWeight | None:
        """S as an object, or None."""
        if self.row_offsets is None or self.columns is None or self.values is None:
            return None
        return SparseWeight(self.row_offsets, self.columns, self.values, self.in_features)

    def linear_arguments(self, bias: Tensor | None, activations: str) -> tuple[Any, ...]:
        """The arguments of the format's linear operator after x."""
        sparse = (self.row_offsets, self.columns, self.values, self.sparse_index)
        return *self.dense, *sparse, bias, self.out_features, *self.parameters, activations

    def dequantize_arguments(self, dtype: torch.dtype) -> tuple[Any, ...]:
        """The arguments of the format's dequantize operator."""
        sparse = (self.row_offsets, self.columns, self.values)
        return *self.dense, *sparse, self.out_features, self.in_features, *self.parameters, dtype

    def contiguous(self) -> WeightOperands:
        """The same with every tensor contiguous."""
        tensors = (*self.dense, self.row_offsets, self.columns, self.values, self.sparse_index)
        packed = tuple(None if tensor is None else tensor.contiguous() for tensor in tensors)
        return self._replace(
            dense=packed[:-4], row_offsets=packed[-4], columns=packed[-3], values=packed[-2], sparse_index=packed[-1]
        )
