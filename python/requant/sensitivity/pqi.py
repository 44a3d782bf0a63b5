"""The Post-quantization Integral (arXiv 2503.01901).

With F the loss, w the weights, q the quantized weights and d = q - w,

    F(q) - F(w)  =  integral over t = 0 .. 1 of < gradient of F at w + t d,  d >
                 ~  sum_i  g_i d_i         g = sum over nodes (t, weight) of weight x gradient of F at w + t d

The terms of the sum are the signed PQI of each weight, and their sum predicts the loss change exactly but for the
quadrature. Their absolute values rank the weights (taking the absolute value after averaging over samples is inferred).

Everything is fp32: a bf16 point w + t d would swallow most of t d.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from requant.progress import Advance
from requant.sensitivity.gradients import consuming_gradients
from requant.sensitivity.quadrature import quadrature_nodes
from requant.weights import Linears, OriginalWeights


@dataclass(frozen=True, eq=False)
class PathIntegral:
    """The result: what each weight contributes to the loss change, and their sum."""

    signed: dict[str, Tensor]
    """fp32 [out, in] per layer: the signed PQI."""
    predicted: float
    """Predicted loss change: the sum of all signed PQI, in fp64."""

    def absolute(self, name: str) -> Tensor:
        """fp32 [out, in]: the PQI by which the weights of a layer are ranked."""
        return self.signed[name].abs()


def post_quantization_integral(
    model: nn.Module,
    windows: Tensor,
    linears: Linears,
    originals: OriginalWeights,
    quantized: Callable[[str], Tensor],
    *,
    quadrature: str = "midpoint",
    intervals: int = 4,
    advance: Advance = lambda amount: None,
) -> PathIntegral:
    """Integrates along the straight path from the original to the quantized weights of all layers together.

    windows int64 [samples, length]; quantized(name) -> fp32 [out, in] is called once per node and once at the end. One
    forward and backward pass per node and window. The weights are restored exactly, also if it fails.
    """
    accumulated = {name: torch.zeros_like(linear.weight, requires_grad=False) for name, linear in linears.items()}
    predicted_tokens = windows.shape[0] * (windows.shape[1] - 1)
    with originals.replaced(originals.__getitem__):
        for position, weight in quadrature_nodes(quadrature, intervals):
            originals.assign(partial(_point_on_path, originals, quantized, position))
            with consuming_gradients(model, linears, partial(_accumulate, accumulated, weight)) as backward:
                for window in windows:
                    backward(window, predicted_tokens)
                    advance(1)
    predicted = 0.0
    for name, gradient in accumulated.items():
        signed = gradient.mul_(quantized(name) - originals[name])
        predicted += float(signed.double().sum())
    return PathIntegral(accumulated, predicted)


def _point_on_path(
    originals: OriginalWeights, quantized: Callable[[str], Tensor], position: float, name: str
) -> Tensor:
    original = originals[name]
    return original.add_(quantized(name) - original, alpha=position)


def _accumulate(accumulated: dict[str, Tensor], weight: float, name: str, gradient: Tensor) -> None:
    accumulated[name].add_(gradient, alpha=weight)
