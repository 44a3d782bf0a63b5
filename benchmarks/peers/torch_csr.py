"""Our dense part with torch's sparse product beside it: the naive way to add a sparse part."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
from contender import Contender, Kind
from quantized import FORMATS, SPARSE_PERCENT, Format, random_layer
from rotation import Call
from torch import Tensor

DENSE = ("uniform 2 bit", "uniform 4 bit")


class DenseBesideCsr:
    """x [tokens, in] -> dense(x) + (S @ x.T).T, with S in fp32, the only dtype that MKL's sparse product takes."""

    def __init__(self, out_features: int, in_features: int, format: Format) -> None:
        self._dense = random_layer(format, 0.0, out_features, in_features)
        entries = torch.randn(out_features, in_features)
        entries[torch.rand(out_features, in_features) >= SPARSE_PERCENT / 100] = 0
        sparse = entries.to_sparse_csr()
        self._shape = sparse.shape
        # MKL takes 32-bit indices; 64-bit ones would be converted in every call.
        self._parts = (sparse.crow_indices().int(), sparse.col_indices().int(), sparse.values())
        self.weight_bytes = self._dense.stored_bytes + sum(part.nbytes for part in self._parts)

    def bind(self, x: Tensor) -> Call:
        """x in bf16 for the dense part, in fp32 for the sparse one."""
        columns = x.float().T.contiguous()
        sparse = torch.sparse_csr_tensor(*self._parts, self._shape)
        return lambda: self._dense(x) + (sparse @ columns).T.to(x.dtype)


def contenders() -> Iterator[Contender]:
    """Beside 2 and 4 bits."""
    for format in FORMATS:
        if format.name in DENSE:
            make = functools.partial(DenseBesideCsr, format=format)
            name = f"{format.name} + {SPARSE_PERCENT:g} % sparse by torch CSR"
            yield Contender(name, Kind.NAIVE, format.bits, make, format.group_size, SPARSE_PERCENT)
