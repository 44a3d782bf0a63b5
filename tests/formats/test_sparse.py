import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from requant_kernels.formats import SparseWeight


@given(
    out_features=st.integers(1, 20),
    in_features=st.integers(1, 70),
    density=st.sampled_from([0.0, 0.1, 1.0]),
    dtype=st.sampled_from([torch.float16, torch.bfloat16]),
)
@settings(max_examples=30, deadline=None)
def test_from_dense_keeps_what_the_mask_says(out_features, in_features, density, dtype):
    residual = torch.randn(out_features, in_features)
    mask = torch.rand(out_features, in_features) < density
    sparse = SparseWeight.from_dense(residual, mask, dtype)
    sparse.validate()
    assert sparse.nnz == int(mask.sum())
    assert torch.equal(sparse.to_dense(), residual.to(dtype).float().masked_fill(~mask, 0))


def test_columns_are_16_bits_wide_up_to_65536_inputs():
    mask = torch.zeros(1, 65_537, dtype=torch.bool)
    mask[0, 65_535] = True
    residual = torch.ones(1, 65_537)
    short = SparseWeight.from_dense(residual[:, :65_536], mask[:, :65_536])
    assert short.columns.dtype == torch.uint16
    assert short.columns.tolist() == [65_535]
    assert SparseWeight.from_dense(residual, mask).columns.dtype == torch.int32


def test_true_and_paper_bytes():
    mask = torch.zeros(10, 100, dtype=torch.bool)
    mask[:, 0] = True
    sparse = SparseWeight.from_dense(torch.ones(10, 100), mask)
    assert sparse.stored_bytes == 11 * 4 + 10 * (2 + 2)
    assert sparse.paper_bits == 0.48


def test_a_residual_that_overflows_is_refused():
    with pytest.raises(ValueError, match=r"residual must be finite and fit torch.float16; largest is 70000"):
        SparseWeight.from_dense(torch.tensor([[7e4]]), torch.tensor([[True]]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"row_offsets": torch.tensor([1, 2, 3])}, "row_offsets must start at 0 and never fall"),
        ({"row_offsets": torch.tensor([0, 4, 3])}, "row_offsets must start at 0 and never fall"),
        ({"row_offsets": torch.tensor([0, 1, 2])}, "row_offsets must end at the number of values, 3"),
        ({"columns": torch.tensor([0, 10, 0])}, r"columns must lie in 0..9, found 0..10"),
        ({"columns": torch.tensor([-1, 1, 0])}, r"columns must lie in 0..9, found -1..1"),
        ({"columns": torch.tensor([5, 5, 0])}, "columns must rise strictly within each row"),
        ({"columns": torch.tensor([5, 4, 0])}, "columns must rise strictly within each row"),
        ({"values": torch.tensor([1.0, float("nan"), 1.0]).half()}, "values must be finite"),
    ],
)
def test_validate_finds_what_is_wrong(changes, message):
    parts = {
        "row_offsets": torch.tensor([0, 2, 3]),
        "columns": torch.tensor([0, 9, 0]),
        "values": torch.ones(3).half(),
    }
    SparseWeight(**parts, in_features=10).validate()
    with pytest.raises(ValueError, match=message):
        SparseWeight(**(parts | changes), in_features=10).validate()
