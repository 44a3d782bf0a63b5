from __future__ import annotations

import pytest
import torch
from requant.quantizers import Statistics
from requant.quantizers.rtn import RoundToNearest


def naive(weight: torch.Tensor, bits: int, group_size: int, symmetric: bool, keep: torch.Tensor) -> torch.Tensor:
    """Group by group, value by value, against the stored levels."""
    result = torch.empty_like(weight)
    length = weight.shape[1] if group_size == -1 else group_size
    top = 2**bits - 1
    for row in range(weight.shape[0]):
        for start in range(0, weight.shape[1], length):
            group = weight[row, start : start + length]
            counted = group[~keep[row, start : start + length]]
            low, high = (extreme(torch.cat((counted, torch.zeros(1)))) for extreme in (torch.min, torch.max))
            span = max(-low, high) / 2 ** (bits - 1) if symmetric else (high - low) / top
            scale = max(float(span), 1e-5 / top)
            scale = float(torch.tensor(scale).bfloat16())
            zero = 2.0 ** (bits - 1) if symmetric else min(max(round(float(-low / scale)), 0), top)
            for offset, value in enumerate(group.tolist()):
                code = min(max(round(value / scale + zero), 0), top)
                result[row, start + offset] = scale * (code - zero)
    return result


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(("in_features", "group_size"), [(128, 64), (96, 64), (100, 32), (70, -1), (20, 32)])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_against_a_naive_loop(bits: int, in_features: int, group_size: int, symmetric: bool) -> None:
    weight = torch.randn(9, in_features)
    keep = torch.rand(weight.shape) < 0.05
    weight[keep] *= 20
    dense = RoundToNearest(bits, group_size, symmetric).quantize(weight, Statistics(), keep_mask=keep)
    expected = naive(weight, bits, group_size, symmetric, keep)
    # A value on the border of two codes may go either way by the last bit of a division.
    wrong = (dense.dequantize() - expected).abs() > 1e-6
    assert int(wrong.sum()) <= 1


def test_kept_positions_do_not_widen_the_levels() -> None:
    weight = torch.randn(4, 64)
    keep = torch.zeros_like(weight, dtype=torch.bool)
    keep[:, 7] = True
    spiked = weight.clone()
    spiked[:, 7] = 1000.0
    quantizer = RoundToNearest(3, 64)
    plain, kept = (quantizer.quantize(each, Statistics(), keep_mask=keep).dequantize() for each in (weight, spiked))
    assert torch.equal(plain[~keep], kept[~keep])
    without = quantizer.quantize(spiked, Statistics()).dequantize()
    assert (without - spiked)[~keep].abs().mean() > 3 * (kept - spiked)[~keep].abs().mean()


def test_a_group_that_is_kept_whole_is_finite() -> None:
    dense = RoundToNearest(4, 32).quantize(
        torch.randn(3, 64), Statistics(), keep_mask=torch.ones(3, 64, dtype=torch.bool)
    )
    assert dense.dequantize().isfinite().all()
