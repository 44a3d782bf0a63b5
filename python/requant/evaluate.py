"""Perplexity of a language model on a text."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from requant.data import tokenize
from requant.errors import InputError
from requant.progress import Progress, SilentProgress
from requant.sensitivity.gradients import token_losses
from requant.weights import logits_of

BOS_CHOICES = ("auto", "yes", "no")


@dataclass(frozen=True)
class Perplexity:
    """exp(`loss`), with `loss` the mean cross-entropy in nats over `tokens` predicted tokens in `windows` windows."""

    value: float
    loss: float
    tokens: int
    windows: int


@torch.inference_mode()
def perplexity(
    model: nn.Module,
    tokenizer: Any,
    text: str,
    *,
    window: int = 2048,
    windows: int | None = None,
    bos: str = "auto",
    stride: int | None = None,
    progress: Progress | None = None,
) -> Perplexity:
    """exp of the mean cross-entropy, summed in fp64.

    The text is tokenized once and cut into adjacent windows of `window` tokens; a remainder is dropped, and in each
    window every token but the first is predicted. `windows` limits their number. With `stride` the windows overlap,
    starting every `stride` tokens, the last one possibly short, and in each only the tokens that no window before it
    predicted are scored.

    bos: "auto" leaves special tokens to the tokenizer, which sees the text once; "no" adds none; "yes" begins every
    window with the tokenizer's bos_token (it takes the place of one token of text).

    Raises InputError if the text is shorter than one window (with stride: two tokens), or on a bad argument.
    """
    for name, value, least in (("window", window, 2), ("windows", windows, 1), ("stride", stride, 1)):
        if value is not None and value < least:
            raise InputError(f"{name} must be at least {least}, got {value}")
    if bos not in BOS_CHOICES:
        raise InputError(f"bos must be one of {', '.join(BOS_CHOICES)}, got {bos!r}")
    prefix = torch.empty(0, dtype=torch.int64)
    if bos == "yes":
        if tokenizer.bos_token_id is None:
            raise InputError("bos must be auto or no for a tokenizer without bos_token, got 'yes'")
        prefix = torch.tensor([tokenizer.bos_token_id])
    tokens = tokenize(tokenizer, text, add_special_tokens=bos == "auto")
    length = window - prefix.numel()
    needed = length if stride is None else 2
    if tokens.numel() < needed:
        raise InputError(f"text is too short: {tokens.numel()} tokens, expected at least {needed} for one window")

    device = next(model.parameters()).device
    training = model.training
    model.eval()
    total, scored, done = 0.0, 0, 0
    spans = list(_spans(tokens.numel(), length, stride))[:windows]
    try:
        with (progress or SilentProgress()).task("perplexity", len(spans)) as advance:
            for start, stop, first_new in spans:
                part = torch.cat((prefix, tokens[start:stop])).to(device)
                new = min(stop - first_new, part.numel() - 1)
                total += _summed_loss(model, part, new)
                scored, done = scored + new, done + 1
                advance(1)
    finally:
        model.train(training)
    loss = total / scored
    return Perplexity(value=math.exp(min(loss, 700.0)), loss=loss, tokens=scored, windows=done)


def _spans(tokens: int, length: int, stride: int | None) -> Iterator[tuple[int, int, int]]:
    """(start, stop, first token that is not scored yet) of every window."""
    if stride is None:
        for start in range(0, tokens - length + 1, length):
            yield start, start + length, start
        return
    scored = 0
    for start in range(0, tokens, stride):
        stop = min(start + length, tokens)
        yield start, stop, scored
        scored = stop
        if stop == tokens:
            return


def _summed_loss(model: nn.Module, part: Tensor, new: int) -> float:
    """Cross-entropy of the last `new` tokens of a window int64 [length], given all before them."""
    logits = logits_of(model, part)[-new - 1 : -1]
    return float(token_losses(logits, part[-new:]).double().sum())
