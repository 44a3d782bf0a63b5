from __future__ import annotations

from functools import partial

import pytest
import torch
from requant.quantizers import Statistics
from requant.quantizers.rtn import RoundToNearest
from requant.sensitivity.gradients import mean_loss
from requant.sensitivity.pqi import post_quantization_integral
from requant.weights import OriginalWeights, find_linears
from tiny_model import make_model


class Case:
    """A model sharp enough that rounding it to 3 bits matters, and its quantized weights."""

    def __init__(self) -> None:
        self.model = make_model(initializer_range=0.2).float()
        self.windows = torch.randint(300, (3, 32))
        self.linears = find_linears(self.model)
        self.originals = OriginalWeights(self.linears)
        quantizer = RoundToNearest(3, 32)
        self.quantized = {
            name: quantizer.quantize(linear.weight.detach(), Statistics()).dequantize()
            for name, linear in self.linears.items()
        }
        self.integrate = partial(
            post_quantization_integral,
            self.model,
            self.windows,
            self.linears,
            self.originals,
            self.quantized.__getitem__,
        )

    def loss(self, weights: dict[str, torch.Tensor]) -> float:
        with self.originals.replaced(weights.__getitem__):
            return mean_loss(self.model, self.windows)

    def actual(self) -> float:
        return self.loss(self.quantized) - mean_loss(self.model, self.windows)


def test_predicted_change_approaches_the_actual_one() -> None:
    case = Case()
    actual = case.actual()
    errors = [abs(case.integrate(intervals=count).predicted - actual) / abs(actual) for count in (2, 4, 8, 32)]
    assert errors[3] < 0.01
    assert errors[3] < errors[1] < errors[0] or errors[0] < 0.01
    assert errors[2] < 0.03


def test_gauss_legendre_needs_fewer_nodes() -> None:
    case = Case()
    actual = case.actual()
    assert case.integrate(quadrature="gauss_legendre", intervals=8).predicted == pytest.approx(actual, rel=0.01)


def test_signed_terms_sum_to_the_prediction_and_single_matrices_count_once() -> None:
    case = Case()
    integral = case.integrate(intervals=2)
    assert sum(float(each.double().sum()) for each in integral.signed.values()) == pytest.approx(integral.predicted)
    name = next(iter(case.linears))
    assert torch.equal(integral.absolute(name), integral.signed[name].abs())
    unchanged = case.quantized[name] == case.originals[name]
    assert not integral.signed[name][unchanged].any()


def test_one_left_node_is_the_gradient_at_the_original_weights() -> None:
    case = Case()
    integral = case.integrate(quadrature="left", intervals=1)
    case.model(case.windows, labels=case.windows).loss.backward()
    for name, linear in case.linears.items():
        expected = linear.weight.grad * (case.quantized[name] - case.originals[name])
        assert torch.allclose(integral.signed[name], expected, rtol=1e-3, atol=1e-8)


def test_weights_are_restored_bit_by_bit_even_after_an_interrupt() -> None:
    case = Case()
    before = {name: linear.weight.detach().clone() for name, linear in case.linears.items()}

    def interrupt(amount: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        case.integrate(intervals=2, advance=interrupt)
    case.integrate(intervals=2)
    for name, linear in case.linears.items():
        assert torch.equal(linear.weight, before[name])


def test_progress_counts_every_pass() -> None:
    amounts: list[float] = []
    Case().integrate(intervals=3, advance=amounts.append)
    assert sum(amounts) == 3 * 3
