import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from requant_kernels.formats import LutWeight


@pytest.mark.parametrize("bits", LutWeight.supported_bits)
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("scaled", [True, False])
@given(out_features=st.integers(2, 40), in_features=st.integers(1, 200), group_size=st.sampled_from([-1, 32, 64]))
@settings(max_examples=10, deadline=None)
def test_dequantize_looks_up_and_scales(bits, shared, scaled, out_features, in_features, group_size):
    groups = 1 if group_size == -1 else -(-in_features // group_size)
    codes = torch.randint(0, 2**bits, (out_features, in_features), dtype=torch.uint8)
    table = torch.randn(1 if shared else out_features, 2**bits, dtype=torch.bfloat16)
    scale = torch.rand(out_features, groups) if scaled else None
    weight = LutWeight.pack(codes, table, scale, bits=bits, group_size=group_size)
    assert weight.shared_table == shared
    dense = weight.dequantize()
    for row, column in [(0, 0), (out_features - 1, in_features - 1), (out_features // 2, in_features // 2)]:
        expected = table[0 if shared else row, int(codes[row, column])].float()
        if scale is not None:
            expected *= scale[row, 0 if group_size == -1 else column // group_size]
        assert dense[row, column] == expected
    unpacked = weight.unpack()
    assert torch.equal(unpacked[0], codes)
    assert torch.equal(unpacked[1], table)
    assert unpacked[2] is None if scale is None else torch.equal(unpacked[2], scale)


def test_bits_count_tables_only_in_true_bits():
    codes = torch.zeros(32, 256, dtype=torch.uint8)
    per_row = LutWeight.pack(codes, torch.zeros(32, 8, dtype=torch.bfloat16), bits=3)
    assert per_row.paper_bits == 3
    assert per_row.true_bits == 3 + 16 * 8 / 256
    shared = LutWeight.pack(codes[:, :128], torch.zeros(1, 8).half(), torch.ones(32, 2).half(), bits=3, group_size=64)
    assert shared.paper_bits == 3.25


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": 8, "table": torch.zeros(4, 256)}, "bits must be one of 2, 3, 4, got 8"),
        ({"table": torch.zeros(4, 8)}, r"table must have shape \[4 or 1, 16\], got \[4, 8\]"),
        ({"table": torch.zeros(3, 16)}, r"table must have shape \[4 or 1, 16\], got \[3, 16\]"),
        ({"table": torch.zeros(4, 16, dtype=torch.int32)}, "table.dtype must be one of"),
        ({"scale": torch.ones(4, 1)}, r"scale must have shape \(4, 2\), got \(4, 1\)"),
    ],
)
def test_what_does_not_belong_together_is_refused(changes, message):
    arguments = {
        "codes": torch.zeros(4, 64, dtype=torch.uint8),
        "table": torch.zeros(4, 16),
        "scale": torch.ones(4, 2),
        "bits": 4,
        "group_size": 32,
    } | changes
    with pytest.raises(ValueError, match=message):
        LutWeight.pack(**arguments)
