import pytest
import torch

from requant_kernels.formats.rounding import (
    NF4,
    nearest_codes,
    round_to_quantiles,
    round_to_shared_table,
    round_uniform,
)


def rounded_one_by_one(weight, bits, group_size, symmetric):
    """Round-to-nearest, a weight at a time, with the same operations in fp32: a tie falls the same way."""
    result = torch.empty_like(weight)
    levels = 2**bits - 1
    step = weight.shape[1] if group_size == -1 else group_size
    for row in range(weight.shape[0]):
        for start in range(0, weight.shape[1], step):
            group = weight[row, start : start + step]
            if symmetric:
                scale, zero = group.abs().max() / 2 ** (bits - 1), torch.tensor(2.0 ** (bits - 1))
            else:
                low, high = group.min().clamp(max=0), group.max().clamp(min=0)
                scale = (high - low) / levels
            scale = scale.bfloat16().float()
            if not symmetric:
                zero = (-low / scale).round().clamp(0, levels)  # beyond, if the scale was rounded down
            for i, w in enumerate(group):
                code = (w / scale + zero).round().clamp(0, levels)
                result[row, start + i] = scale * (code - zero)
    return result


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group_size", [-1, 32, 64])
def test_round_uniform_equals_the_naive_loop(bits, symmetric, group_size):
    weight = torch.randn(5, 100)
    rounded = round_uniform(weight, bits=bits, group_size=group_size, symmetric=symmetric).dequantize()
    assert torch.allclose(rounded, rounded_one_by_one(weight, bits, group_size, symmetric), atol=1e-6)


def test_kept_positions_do_not_widen_a_group():
    weight = torch.rand(4, 64) - 0.5
    mask = torch.zeros(4, 64, dtype=torch.bool)
    mask[:, 7] = True
    with_outlier = weight.clone()
    with_outlier[:, 7] = 100
    plain = round_uniform(weight.masked_fill(mask, 0), bits=4, group_size=32, keep_mask=mask).dequantize()
    kept = round_uniform(with_outlier, bits=4, group_size=32, keep_mask=mask).dequantize()
    assert torch.equal(plain[~mask], kept[~mask])
    assert (kept[~mask] - weight[~mask]).abs().max() < 0.6 / 15


def test_a_group_on_one_side_of_zero_keeps_its_magnitude():
    weight = torch.rand(2, 64) + 5
    for signed in (weight, -weight):
        dense = round_uniform(signed, bits=4, group_size=32).dequantize()
        assert (dense - signed).abs().max() <= 6 / 15 / 2 + 0.05


def test_constant_and_fully_kept_groups_stay_finite():
    weight = torch.full((2, 64), 3.0)
    for mask in (None, torch.ones(2, 64, dtype=torch.bool)):
        for symmetric in (True, False):
            dense = round_uniform(weight, bits=3, group_size=32, symmetric=symmetric, keep_mask=mask).dequantize()
            assert dense.isfinite().all()
    assert (
        round_to_quantiles(weight, bits=2, keep_mask=torch.ones(2, 64, dtype=torch.bool)).dequantize().isfinite().all()
    )


def test_quantile_tables_have_the_nearest_entry_for_every_weight():
    weight = torch.randn(6, 300)
    lut = round_to_quantiles(weight, bits=3)
    codes, table, _ = lut.unpack()
    distance = (weight.unsqueeze(-1) - table.float().unsqueeze(1)).abs()
    assert torch.equal(distance.gather(-1, codes.long().unsqueeze(-1)).squeeze(-1), distance.amin(-1))


def test_kept_positions_do_not_pull_a_quantile_table():
    weight = torch.randn(3, 200)
    mask = torch.rand(3, 200) < 0.3
    far = weight.masked_fill(mask, 1e4)
    assert torch.equal(
        round_to_quantiles(weight, bits=3, keep_mask=mask).table, round_to_quantiles(far, bits=3, keep_mask=mask).table
    )


def test_nf4_is_scaled_by_the_largest_weight_of_a_group():
    weight = torch.randn(4, 96)
    shared = round_to_shared_table(weight, table="nf4", group_size=64)
    _, table, scale = shared.unpack()
    assert torch.allclose(table.float(), torch.tensor([NF4]), atol=4e-3)
    assert torch.equal(scale[:, 0], weight[:, :64].abs().amax(1).bfloat16())
    assert (shared.dequantize() - weight).abs().max() < 0.2 * weight.abs().max()


def test_nearest_codes_ties_go_to_the_lower_entry():
    table = torch.tensor([[0.0, 1.0, 3.0]])
    assert nearest_codes(torch.tensor([[-5.0, 0.5, 0.51, 2.0, 9.0]]), table).tolist() == [[0, 0, 1, 1, 2]]
