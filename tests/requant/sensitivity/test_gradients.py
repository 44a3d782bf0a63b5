from __future__ import annotations

import pytest
import torch
from requant.errors import InputError
from requant.sensitivity.fisher import fisher_information
from requant.sensitivity.gradients import consuming_gradients, mean_loss
from requant.weights import find_linears
from tiny_model import make_model


def setup() -> tuple[torch.nn.Module, torch.Tensor]:
    return make_model(initializer_range=0.1).float(), torch.randint(300, (3, 24))


def test_loss_and_gradients_are_those_of_autograd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("requant.sensitivity.gradients.ROWS", 7)
    model, windows = setup()
    linears = find_linears(model)
    expected_loss = model(windows, labels=windows).loss
    expected_loss.backward()
    expected = {name: linear.weight.grad for name, linear in linears.items()}
    model.zero_grad()
    found = {name: torch.zeros_like(each) for name, each in expected.items()}
    with consuming_gradients(model, linears, lambda name, gradient: found[name].add_(gradient)) as backward:
        loss = sum(backward(window, 3 * 23) for window in windows)
    assert loss == pytest.approx(expected_loss.item(), rel=1e-5)
    assert mean_loss(model, windows) == pytest.approx(expected_loss.item(), rel=1e-5)
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, rtol=1e-3, atol=1e-7)


def test_flags_hooks_and_gradients_are_put_back_after_an_interrupt() -> None:
    model, windows = setup()
    model.model.norm.weight.requires_grad_(False)
    flags = {name: each.requires_grad for name, each in model.named_parameters()}

    def consume(name: str, gradient: torch.Tensor) -> None:
        raise KeyboardInterrupt

    with (
        pytest.raises(KeyboardInterrupt),
        consuming_gradients(model, find_linears(model), consume) as backward,
    ):
        backward(windows[0], 23)
    assert {name: each.requires_grad for name, each in model.named_parameters()} == flags
    assert all(each.grad is None for each in model.parameters())
    model(windows, labels=windows).loss.backward()
    assert model.model.layers[0].mlp.up_proj.weight.grad is not None


def test_loss_that_is_not_finite_is_refused() -> None:
    model, windows = setup()
    model.model.norm.weight.data.fill_(torch.inf)
    with (
        pytest.raises(InputError, match="loss on the calibration text is not finite"),
        consuming_gradients(model, find_linears(model), lambda name, gradient: None) as backward,
    ):
        backward(windows[0], 23)


def test_fisher_information_squares_per_sample() -> None:
    model, windows = setup()
    linears = find_linears(model)
    found = fisher_information(model, windows, linears)
    for name, linear in linears.items():
        expected = torch.zeros_like(linear.weight)
        for window in windows:
            model.zero_grad()
            model(window[None], labels=window[None]).loss.backward()
            expected += linear.weight.grad**2
        assert torch.allclose(found[name], expected, rtol=1e-3, atol=1e-12)
