"""torch's 4-bit product for CPUs, bf16 activations: what torchao uses there."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
from contender import Contender, Kind
from rotation import Call
from torch import Tensor

GROUP_SIZE = 128
_INNER_TILES = 2


class TorchInt4:
    """Packed codes, and scale and zero per group."""

    def __init__(self, out_features: int, in_features: int) -> None:
        codes = torch.randint(0, 16, (out_features, in_features), dtype=torch.int32)
        self._packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, _INNER_TILES)
        self._scales_and_zeros = torch.rand(in_features // GROUP_SIZE, out_features, 2).to(torch.bfloat16)
        self.weight_bytes = self._packed.nbytes + self._scales_and_zeros.nbytes

    def bind(self, x: Tensor) -> Call:
        """x as it is, bf16."""
        product = torch.ops.aten._weight_int4pack_mm_for_cpu
        return functools.partial(product, x, self._packed, GROUP_SIZE, self._scales_and_zeros)


def contenders() -> Iterator[Contender]:
    """4 bits, scale and zero per 128 inputs."""
    yield Contender("torch int4pack", Kind.PEER, 4, TorchInt4, GROUP_SIZE)
