"""Diagonal Fisher information: per weight, the sum over samples of the squared gradient of the sample's loss.

As in SqueezeLLM (arXiv 2306.07629): squared per sample, then summed, in fp32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from requant.progress import Advance
from requant.sensitivity.gradients import consuming_gradients
from requant.weights import Linears


def fisher_information(
    model: nn.Module, windows: Tensor, linears: Linears, advance: Advance = lambda amount: None
) -> dict[str, Tensor]:
    """fp32 [out, in] per layer, from one forward and backward pass per window of int64 [samples, length].

    The loss of a sample is the mean over its predicted tokens.
    """
    information = {name: torch.zeros_like(linear.weight, requires_grad=False) for name, linear in linears.items()}

    def consume(name: str, gradient: Tensor) -> None:
        information[name].addcmul_(gradient, gradient)

    with consuming_gradients(model, linears, consume) as backward:
        for window in windows:
            backward(window, windows.shape[1] - 1)
            advance(1)
    return information
