from __future__ import annotations

import math

import pytest
import torch
from requant.data import tokenize
from requant.errors import InputError
from requant.evaluate import perplexity
from tiny_model import TEXT, make_model, make_tokenizer

LONG_TEXT = "".join(f"{TEXT}{number} " for number in range(12))


def direct_losses(model: torch.nn.Module, part: torch.Tensor) -> torch.Tensor:
    """-log probability of every token of a window but the first, fp64."""
    with torch.no_grad():
        probabilities = model(part[None]).logits[0].double().softmax(dim=1)
    return -probabilities[:-1].gather(1, part[1:, None])[:, 0].log()


@pytest.mark.parametrize("windows", [None, 1, 3])
@pytest.mark.parametrize("bos", ["auto", "no", "yes"])
def test_adjacent_windows_against_a_direct_computation(bos: str, windows: int | None) -> None:
    model, tokenizer = make_model(initializer_range=0.1).float().train(), make_tokenizer()
    tokens = tokenize(tokenizer, LONG_TEXT)
    length = 20 if bos == "yes" else 21
    parts = tokens[: tokens.numel() // length * length].view(-1, length)[:windows]
    if bos == "yes":
        parts = torch.cat((torch.full((len(parts), 1), tokenizer.bos_token_id), parts), dim=1)
    losses = torch.cat([direct_losses(model, part) for part in parts])
    result = perplexity(model, tokenizer, LONG_TEXT, window=21, windows=windows, bos=bos)
    assert result.tokens == losses.numel() == 20 * len(parts)
    assert result.windows == len(parts)
    assert result.loss == pytest.approx(float(losses.mean()), rel=1e-5)
    assert result.value == pytest.approx(math.exp(float(losses.mean())), rel=1e-5)
    assert model.training


def test_stride_scores_every_token_once_with_the_context_there_is() -> None:
    model, tokenizer = make_model(initializer_range=0.1).float(), make_tokenizer()
    tokens = tokenize(tokenizer, LONG_TEXT)
    window, stride = 16, 5
    expected, scored = [], 0
    for start in range(0, tokens.numel(), stride):
        stop = min(start + window, tokens.numel())
        losses = direct_losses(model, tokens[start:stop])
        expected.append(losses[-(stop - scored) :] if scored else losses)
        scored = stop
        if stop == tokens.numel():
            break
    result = perplexity(model, tokenizer, LONG_TEXT, window=window, stride=stride, bos="no")
    assert result.tokens == tokens.numel() - 1 == torch.cat(expected).numel()
    assert result.loss == pytest.approx(float(torch.cat(expected).mean()), rel=1e-5)


def test_a_bf16_model_is_summed_in_full_precision() -> None:
    tokenizer = make_tokenizer()
    low, high = make_model(), make_model().float()
    values = [perplexity(model, tokenizer, LONG_TEXT, window=32).value for model in (low, high)]
    assert values[0] == pytest.approx(values[1], rel=0.02)


def test_bad_arguments_are_named() -> None:
    model, tokenizer = make_model(), make_tokenizer()
    cases = (
        ({"window": 4096}, "text is too short: .* expected at least 4096 for one window"),
        ({"window": 1}, "window must be at least 2, got 1"),
        ({"windows": 0}, "windows must be at least 1, got 0"),
        ({"stride": 0}, "stride must be at least 1, got 0"),
        ({"bos": "maybe"}, "bos must be one of auto, yes, no, got 'maybe'"),
    )
    for arguments, message in cases:
        with pytest.raises(InputError, match=message):
            perplexity(model, tokenizer, LONG_TEXT, **arguments)
    tokenizer.bos_token = None
    with pytest.raises(InputError, match="tokenizer without bos_token"):
        perplexity(model, tokenizer, LONG_TEXT, window=16, bos="yes")
