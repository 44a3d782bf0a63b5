"""The sparse index of the GPU backends, read back entry by entry."""

import pytest
import torch

from requant_kernels.backends import sparse_tiles
from requant_kernels.formats import SparseWeight


def read_back(index: torch.Tensor, dtype: torch.dtype, out_features: int, in_features: int) -> torch.Tensor:
    """The dense matrix of an index, by the picture in the module."""
    dense = torch.zeros(out_features, in_features)
    slices, count = sparse_tiles.slice_count(in_features), sparse_tiles.offset_count(out_features, in_features)
    offsets, entries = index[:count].tolist(), index[count:]
    values = (entries >> 16).to(torch.int16).view(dtype).float()
    for place in range(count - 1):
        tile, slice = divmod(place, slices)
        keys = []
        for number in range(offsets[place], offsets[place + 1]):
            row, input = 16 * tile + (int(entries[number]) >> 12 & 15), 256 * slice + (int(entries[number]) & 255)
            assert int(entries[number]) & 4095 == input % 4096
            assert dense[row, input] == 0
            dense[row, input] = values[number]
            keys.append((input, row))
        assert keys == sorted(keys)
    return dense


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (16, 256), (17, 257), (40, 5000), (3, 70000)], ids=str)
def test_every_entry_is_found_in_its_slice(shape: tuple[int, int], dtype: torch.dtype) -> None:
    mask = torch.rand(shape) < 0.01
    mask[::5] = False
    mask[-1, -1] = True
    mask[shape[0] // 2, :5000] = True
    sparse = SparseWeight.from_dense(torch.randn(shape) + 4 * torch.randn(shape).sign(), mask, dtype)
    index = sparse_tiles.prepare_sparse(sparse.row_offsets, sparse.columns, sparse.values, *shape)
    assert index.dtype == torch.int32
    assert index.numel() == sparse_tiles.offset_count(*shape) + sparse.nnz
    assert torch.equal(read_back(index, dtype, *shape), sparse.to_dense())


def test_no_entries_leave_only_offsets() -> None:
    empty = SparseWeight.from_dense(torch.zeros(20, 300), torch.zeros(20, 300, dtype=torch.bool))
    index = sparse_tiles.prepare_sparse(empty.row_offsets, empty.columns, empty.values, 20, 300)
    assert torch.equal(index, torch.zeros(5, dtype=torch.int32))


@pytest.mark.parametrize(
    ("row_offsets", "columns", "message"),
    [
        ([0, 2, 1, 3], [1, 2, 0], "never fall"),
        ([1, 1, 2, 3], [1, 2, 0], "start at 0"),
        ([0, 1, 2, 4], [1, 2, 0], "end at the number of values, 3"),
        ([0, 1, 3], [1, 2, 0], "must be 4 numbers"),
        ([0, 1, 2, 3], [1, 2, 64], r"0\.\.63, found 1\.\.64"),
        ([0, 1, 2, 3], [1, -2, 3], r"0\.\.63, found -2\.\.3"),
        ([0, 2, 2, 3], [2, 2, 3], "rise strictly"),
    ],
)
def test_a_wrong_csr_is_refused(row_offsets: list[int], columns: list[int], message: str) -> None:
    values = torch.ones(len(columns), dtype=torch.float16)
    tensors = (torch.tensor(row_offsets, dtype=torch.int32), torch.tensor(columns, dtype=torch.int32), values)
    with pytest.raises(ValueError, match=message):
        sparse_tiles.prepare_sparse(*tensors, 3, 64)
