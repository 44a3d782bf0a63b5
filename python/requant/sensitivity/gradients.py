"""Loss and gradients of the loss on a fixed set of windows, one window at a time.

The loss is the mean cross-entropy of all predicted tokens (every token of a window but the first). Only the weights of
the given layers get gradients, and each gradient is consumed and freed as soon as it is complete, so that never more
than one or two matrices' gradients exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from requant.errors import InputError
from requant.progress import Advance
from requant.weights import Linears, logits_of

ROWS = 512
"""Logit rows turned into probabilities at a time."""


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy fp32 [tokens] of logits [tokens, vocabulary] (any float) and int64 targets [tokens]."""
    parts = zip(logits.split(ROWS), targets.split(ROWS), strict=True)
    return torch.cat([functional.cross_entropy(rows.float(), part, reduction="none") for rows, part in parts])


@torch.no_grad()
def mean_loss(model: nn.Module, windows: Tensor, advance: Advance = lambda amount: None) -> float:
    """Mean cross-entropy over all predicted tokens of windows int64 [samples, length], summed in fp64."""
    total = 0.0
    for window in windows:
        total += float(token_losses(logits_of(model, window)[:-1], window[1:]).double().sum())
        advance(1)
    return total / (windows.shape[0] * (windows.shape[1] - 1))


@contextmanager
def consuming_gradients(
    model: nn.Module, linears: Linears, consume: Callable[[str, Tensor], None]
) -> Iterator[Callable[[Tensor, int], float]]:
    """Yields `backward(window, predicted_tokens)`, which runs one window [length] forward and backward and returns
    its share of the loss, the sum over its tokens / predicted_tokens.

    consume(name, gradient [out, in]) is called for every layer. Flags and hooks are put back at the end. Raises
    InputError if the loss is not finite.
    """
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    hooks = []
    try:
        for parameter in flags:
            parameter.requires_grad_(False)
        for name, linear in linears.items():
            linear.weight.requires_grad_(True)

            def hook(weight: Tensor, name: str = name) -> None:
                gradient, weight.grad = weight.grad, None
                assert gradient is not None
                consume(name, gradient)

            hooks.append(linear.weight.register_post_accumulate_grad_hook(hook))

        def backward(window: Tensor, predicted_tokens: int) -> float:
            logits = logits_of(model, window)
            loss, gradient = _loss_and_logit_gradient(logits.detach(), window[1:], 1 / predicted_tokens)
            if not torch.isfinite(torch.tensor(loss)):
                raise InputError("the model's loss on the calibration text is not finite, expected a finite one")
            logits.backward(gradient)
            return loss

        yield backward
    finally:
        for handle in hooks:
            handle.remove()
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)
        for linear in linears.values():
            linear.weight.grad = None


def _loss_and_logit_gradient(logits: Tensor, targets: Tensor, scale: float) -> tuple[float, Tensor]:
    """scale x the summed cross-entropy, and its gradient [tokens, vocabulary] (0 in the last row, which predicts
    nothing). Written out, because autograd would hold two more copies of the logits.
    """
    total = 0.0
    gradient = torch.zeros_like(logits)
    starts = range(0, targets.numel(), ROWS)
    for start, part in zip(starts, targets.split(ROWS), strict=True):
        rows = slice(start, start + part.numel())
        log_probabilities = logits[rows].float().log_softmax(dim=1)
        total -= float(log_probabilities.gather(1, part[:, None]).double().sum())
        probabilities = log_probabilities.exp_()
        probabilities[torch.arange(part.numel(), device=part.device), part] -= 1
        gradient[rows] = probabilities.mul_(scale)
    return total * scale, gradient
