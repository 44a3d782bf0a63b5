"""torch's own linear in bf16, which speed-ups are relative to, and in fp32."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
from contender import Contender, Kind
from rotation import Call
from torch import Tensor
from torch.nn import functional


class TorchLinear:
    """[out_features, in_features] in one dtype."""

    def __init__(self, out_features: int, in_features: int, dtype: torch.dtype) -> None:
        self._weight = torch.randn(out_features, in_features).to(dtype)
        self.weight_bytes = self._weight.nbytes

    def bind(self, x: Tensor) -> Call:
        """x in the weight's dtype."""
        return functools.partial(functional.linear, x.to(self._weight.dtype), self._weight)


def contenders() -> Iterator[Contender]:
    """bf16 and fp32."""
    yield Contender("torch bf16", Kind.BASELINE, 16, functools.partial(TorchLinear, dtype=torch.bfloat16))
    yield Contender("torch fp32", Kind.PEER, 32, functools.partial(TorchLinear, dtype=torch.float32))
