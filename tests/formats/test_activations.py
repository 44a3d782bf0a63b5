"""Rounding of inputs, one section at a time."""

import pytest
import torch
from torch import Tensor

from requant_kernels.formats.activations import round_activations


def sections(in_features: int, group_size: int) -> list[slice]:
    """As the module's picture has them."""
    found, begin = [], 0
    group = in_features if group_size < 0 else group_size
    while begin < in_features:
        group_end = min((begin // group + 1) * group, in_features)
        end = min(begin + 128, group_end)
        found.append(slice(begin, end))
        begin = end
    return found


def round_one(x: Tensor) -> Tensor:
    """One section of one token."""
    largest = x.abs().max()
    scale = largest / torch.tensor(127.0)
    return (x * (torch.tensor(127.0) / largest)).round() * scale


@pytest.mark.parametrize("group_size", [-1, 32, 64, 96, 128, 160, 256, 4096])
@pytest.mark.parametrize("in_features", [1, 32, 100, 128, 129, 300, 576])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_section_has_its_own_scale(group_size: int, in_features: int, dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, in_features).to(dtype)
    rounded = round_activations(x, group_size)
    assert rounded.dtype == torch.float32
    for place in sections(in_features, group_size):
        for token in range(6):
            part = x.view(6, -1)[token, place].float()
            assert torch.equal(rounded.view(6, -1)[token, place], round_one(part))


def test_the_picture_of_sections() -> None:
    assert sections(400, 160) == [slice(0, 128), slice(128, 160), slice(160, 288), slice(288, 320), slice(320, 400)]
    assert sections(200, 96) == [slice(0, 96), slice(96, 192), slice(192, 200)]


def test_ties_go_to_the_even_integer() -> None:
    x = torch.tensor([127.0, 0.5, 1.5, -2.5, -0.5, 126.5])
    assert round_activations(x, -1).tolist() == [127, 0, 2, -2, 0, 126]


def test_zeros_stay_and_what_is_tiny_becomes_zero() -> None:
    assert torch.equal(round_activations(torch.zeros(2, 200), 64), torch.zeros(2, 200))
    assert torch.equal(round_activations(torch.full((1, 200), 2.0**-101), 64), torch.zeros(1, 200))
    assert round_activations(torch.full((1, 200), 2.0**-100), 64).allclose(torch.tensor(2.0**-100), rtol=1e-6, atol=0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_bad_input_spoils_its_section(bad: float) -> None:
    x = torch.randn(2, 256)
    clean = round_activations(x, 128)
    x[1, 200] = bad
    rounded = round_activations(x, 128)
    assert rounded[1, 128:].isnan().all()
    rounded[1, 128:] = clean[1, 128:]
    assert torch.equal(rounded, clean)


def test_large_inputs_stay_finite() -> None:
    x = torch.tensor([3e38, -1e38, 1.0])
    assert (round_activations(x, -1) - x).abs().max() <= 3e38 / 254


def test_no_inputs() -> None:
    assert round_activations(torch.randn(0, 100), 32).shape == (0, 100)
