"""Speed measurements: every contender gets its figures, and derived figures agree with each other."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from requant.speed import LEAST_ROUNDS, Contender, Speed, decode_step, measure
from tiny_model import make_model, quantize_quickly


def test_derived_figures() -> None:
    speed = Speed(prefill_tokens=512, decode_tokens=100, prefill_ms=256.0, decode_step_ms=20.0)
    assert speed.prefill_tokens_per_second == 2000
    assert speed.decode_tokens_per_second == 50
    assert speed.decode_ms == 2000
    assert speed.total_ms == speed.to_dict()["total_ms"] == 2256


def test_contenders_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    contenders = [Contender("plain", make_model()), Contender("quantized", quantize_quickly(make_model()), "reference")]
    for contender in contenders:
        forward = contender.model.forward

        def note(
            *arguments: object, name: str = contender.name, forward: object = forward, **options: object
        ) -> object:
            tokens = arguments[0]
            if isinstance(tokens, torch.Tensor) and tokens.shape[1] == 16:
                order.append(name)
            return forward(*arguments, **options)

        monkeypatch.setattr(contender.model, "forward", note)
    speeds = measure(contenders, prefill_tokens=16, decode_tokens=4)
    assert list(speeds) == ["plain", "quantized"]
    assert all(speed.prefill_ms > 0 and speed.decode_step_ms > 0 for speed in speeds.values())
    assert order[-2 * LEAST_ROUNDS + 2 :] == ["plain", "quantized"] * (LEAST_ROUNDS - 1)


@torch.no_grad()
def test_a_decode_step_carries_on_from_the_one_before() -> None:
    model = make_model().float().eval()
    tokens = torch.arange(6)[None]
    output = model(tokens[:, :4], use_cache=True)
    for step in (4, 5):
        output = decode_step(model, tokens[:, step : step + 1], output)
    torch.testing.assert_close(output.logits[:, -1], model(tokens).logits[:, -1])


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_the_cache_has_the_name_that_transformers_gives_it(name: str) -> None:
    def model(token: torch.Tensor, **options: object) -> dict[str, object]:
        return options

    kept = object()
    options = decode_step(model, torch.zeros(1, 1), SimpleNamespace(**{name: kept}))
    assert options == {"use_cache": True, name: kept}
