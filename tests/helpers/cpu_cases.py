"""Calls of the CPU kernels, for their tests."""

from __future__ import annotations

from collections.abc import Callable

import cases
import torch
from torch import Tensor

from requant_kernels import dispatch
from requant_kernels.backends import cpu
from requant_kernels.operands import WeightOperands


def linear(x: Tensor, weight: WeightOperands, bias: Tensor | None = None, activations: str = "16bit") -> Tensor:
    """With the kernel that serves so many tokens."""
    phase = next(phase for limit, phase in dispatch.CPU_PHASES if limit is None or x.shape[0] <= limit)
    kernel: Callable[..., Tensor] = cpu.BACKEND.kernels[weight.format, phase]
    return kernel(x, weight, bias, activations)


class CpuCase(cases.Case):
    """W = D + S of format `uniform` or `lut`."""

    def linear(
        self,
        x: Tensor,
        bias: Tensor | None = None,
        sparse_index: Tensor | None = None,
        activations: str = "16bit",
    ) -> Tensor:
        return linear(x, self.operands(sparse_index), bias, activations)

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        return cpu.BACKEND.kernels[self.dense.format, "dequantize"](self.operands(), dtype)


def assert_threads_do_not_matter(compute: Callable[[], Tensor]) -> None:
    """Not one bit of the result depends on their number."""
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(compute())
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def assert_bad_input_spoils_its_token_only(
    compute: Callable[[Tensor], Tensor], x: Tensor, token: int, place: int, bad: float
) -> None:
    """`bad` (a NaN or an infinity) as input `place` of a token."""
    spoiled = x.clone()
    spoiled[token, place] = bad
    y, clean = compute(spoiled), compute(x)
    assert not y[token].isfinite().any()
    others = torch.arange(x.shape[0]) != token
    assert torch.equal(y[others], clean[others])
