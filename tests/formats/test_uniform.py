import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from requant_kernels.formats import UniformWeight


@pytest.mark.parametrize("bits", UniformWeight.supported_bits)
@pytest.mark.parametrize("with_zero", [True, False])
@given(
    out_features=st.integers(1, 40),
    in_features=st.integers(1, 200),
    group_size=st.sampled_from([-1, 32, 64, 128]),
    dtype=st.sampled_from([torch.bfloat16, torch.float16, torch.float32]),
)
@settings(max_examples=15, deadline=None)
def test_dequantize_is_scale_times_code_minus_zero(bits, with_zero, out_features, in_features, group_size, dtype):
    groups = 1 if group_size == -1 else -(-in_features // group_size)
    codes = torch.randint(0, 2**bits, (out_features, in_features), dtype=torch.uint8)
    scale = torch.rand(out_features, groups).to(dtype)
    zero = (torch.rand(out_features, groups) * 2**bits).to(dtype) if with_zero else None
    weight = UniformWeight.pack(codes, scale, zero, bits=bits, group_size=group_size)
    dense = weight.dequantize()
    assert dense.dtype == torch.float32
    for row, column in [(0, 0), (out_features - 1, in_features - 1), (out_features // 2, in_features // 2)]:
        group = 0 if group_size == -1 else column // group_size
        level = float(zero[row, group]) if zero is not None else 2 ** (bits - 1)
        expected = float(scale[row, group]) * (int(codes[row, column]) - level)
        assert float(dense[row, column]) == pytest.approx(expected, rel=1e-6, abs=1e-7)
    unpacked = weight.unpack()
    assert torch.equal(unpacked[0], codes)
    assert torch.equal(unpacked[1], scale)
    assert unpacked[2] is None if zero is None else torch.equal(unpacked[2], zero)


def test_bits_count_what_is_stored_and_what_the_paper_counts():
    codes = torch.zeros(32, 256, dtype=torch.uint8)
    scale = torch.ones(32, 2, dtype=torch.bfloat16)
    asymmetric = UniformWeight.pack(codes, scale, scale, bits=4, group_size=128)
    assert asymmetric.stored_bytes == 32 * 256 // 2 + 2 * 32 * 2 * 2
    assert asymmetric.true_bits == asymmetric.paper_bits == 4.25
    assert UniformWeight.pack(codes, scale, bits=4, group_size=128).paper_bits == 4.125


def test_a_ragged_last_group_counts_as_a_group():
    codes = torch.zeros(16, 576, dtype=torch.uint8)
    scale = torch.ones(16, 5)
    assert UniformWeight.pack(codes, scale, scale, bits=3, group_size=128).paper_bits == 3 + 32 * 5 / 576


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": 5}, "bits must be one of 2, 3, 4, 8, got 5"),
        ({"group_size": 48}, "group_size must be -1 or a positive multiple of 32, got 48"),
        ({"group_size": 0}, "group_size must be -1 or a positive multiple of 32, got 0"),
        ({"scale": torch.ones(4, 1)}, r"scale must have shape \(4, 2\), got \(4, 1\)"),
        ({"scale": torch.ones(4, 2, dtype=torch.float64)}, "scale.dtype must be one of"),
        ({"zero": torch.ones(4, 2, dtype=torch.float16)}, "zero must have the dtype of scale"),
    ],
)
def test_what_does_not_belong_together_is_refused(changes, message):
    arguments = {
        "codes": torch.zeros(4, 64, dtype=torch.uint8),
        "scale": torch.ones(4, 2),
        "zero": torch.ones(4, 2),
        "bits": 4,
        "group_size": 32,
    } | changes
    with pytest.raises(ValueError, match=message):
        UniformWeight.pack(**arguments)
