"""bitsandbytes' NF4 on the CPU, bf16 activations."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import bitsandbytes
import torch
from contender import Contender, Kind
from rotation import Call
from torch import Tensor

GROUP_SIZE = 64


class BitsAndBytesNf4:
    """Its Linear4bit in inference mode."""

    def __init__(self, out_features: int, in_features: int) -> None:
        module = bitsandbytes.nn.Linear4bit(
            in_features, out_features, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4"
        )
        weight = torch.randn(out_features, in_features)
        module.weight = bitsandbytes.nn.Params4bit(
            weight, requires_grad=False, quant_type="nf4", blocksize=GROUP_SIZE, compress_statistics=False
        )
        self._module = module.to("cpu").eval()
        self._module(torch.zeros(1, in_features, dtype=torch.bfloat16))  # packs for the CPU at the first call
        self.weight_bytes = weight.numel() // 2 + 4 * weight.numel() // GROUP_SIZE

    def bind(self, x: Tensor) -> Call:
        """x as it is, bf16."""
        return functools.partial(self._module, x)


def contenders() -> Iterator[Contender]:
    """One fp32 scale per 64 inputs."""
    yield Contender("bitsandbytes nf4", Kind.PEER, 4, BitsAndBytesNf4, GROUP_SIZE, pool="bitsandbytes")
