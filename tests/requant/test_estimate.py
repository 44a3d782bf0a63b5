from __future__ import annotations

import pytest
import torch
from requant.errors import InputError
from requant.estimate import SavedBytes, estimate
from requant.recipe import Recipe
from tiny_model import make_model


def test_parts_add_up_and_the_model_is_unchanged() -> None:
    model = make_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = estimate(model, Recipe(samples=2, sequence_length=32))
    sums = {kind: sum(v for name, v in result.parts.items() if name.endswith(kind)) for kind in ("bytes", "seconds")}
    assert result.memory_bytes == round(sums["bytes"])
    assert result.seconds == pytest.approx(sums["seconds"])
    assert all(value >= 0 for value in result.parts.values())
    for name, value in model.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name])
    assert all(each.grad is None for each in model.parameters())


def test_more_work_takes_longer_and_needs_no_less_memory() -> None:
    model = make_model()
    short = estimate(model, Recipe(samples=2, sequence_length=32, intervals=2))
    long = estimate(model, Recipe(samples=20, sequence_length=64, intervals=8))
    passes = "gradient passes seconds"
    assert long.parts[passes] > 10 * short.parts[passes]
    assert long.parts["activation bytes"] == pytest.approx(2 * short.parts["activation bytes"], rel=0.2)


def test_no_calibration_no_passes() -> None:
    parts = estimate(make_model(), Recipe(method="rtn")).parts
    assert parts["quantizing seconds"] > 0
    assert parts["accumulator bytes"] == 0
    assert "gradient passes seconds" not in parts


def test_saved_bytes_counts_activations_once_and_no_parameters() -> None:
    linear = torch.nn.Linear(64, 64, bias=False)
    x = torch.randn(10, 64, requires_grad=True)
    saved = SavedBytes(linear)
    saved.measure(lambda: linear(linear(x).exp()))
    # x, and the result of exp, which both exp and the second layer need.
    assert saved.bytes == 2 * 10 * 64 * 4


def test_bad_model_is_refused() -> None:
    with pytest.raises(InputError, match="nothing to quantize"):
        estimate(torch.nn.Sequential(torch.nn.Linear(3, 3)), Recipe())
