"""The table of what rounded inputs cost."""

from __future__ import annotations

import activation_error
import pytest
import torch


def test_some_channels_are_large_in_every_token() -> None:
    inputs = list(activation_error.make_inputs(3, 200).values())
    ratio = inputs[1] / inputs[0]
    assert sorted(ratio[0].round().tolist()) == [1.0] * 196 + [20.0] * 4
    assert torch.equal(ratio[0].round(), ratio[2].round())


@pytest.mark.parametrize("name", ["uniform 2 bit", "lut 4 bit", "nf4"])
def test_errors_are_those_of_rounding(name: str) -> None:
    gaussian, large = activation_error.measure(name, 512, 64, sparse_percent=0.5)
    weights, bf16, int8 = (float(cell.removesuffix(" %")) for cell in gaussian[3:])
    assert bf16 < 0.3 < int8 < 1.0 < weights
    assert float(large[5].removesuffix(" %")) > 1.5 * int8
