"""The sparse part S: a CSR matrix of residuals `w - dense value` at the positions that are kept in 16 bits.

    row_offsets int32 [out + 1]   0 | 2 | 2 | 5 | ...                     row r owns entries row_offsets[r] ..< [r + 1]
    columns     [nnz]             7  130 | (row 1 is empty) | 0  64  65   ascending within a row, no duplicates
    values      [nnz]             fp16 or bf16

Because the values are residuals, D + S reproduces a kept weight up to the rounding of the value, and D alone is still
a meaningful weight. Columns are uint16 as long as in_features <= 65,536, else int32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from requant_kernels.formats.storage import check, named_tensors, stored_bytes

VALUE_DTYPES = (torch.float16, torch.bfloat16)
SHORT_COLUMNS = 65_536
PAPER_BITS_PER_ENTRY = 48


def columns_dtype(in_features: int) -> torch.dtype:
    """uint16 where every column index fits, else int32."""
    return torch.uint16 if in_features <= SHORT_COLUMNS else torch.int32


@dataclass(frozen=True, eq=False)
class SparseWeight:
    """CSR as in the module's picture; the logical shape is [row_offsets.numel() - 1, in_features]."""

    row_offsets: Tensor
    columns: Tensor
    values: Tensor
    in_features: int

    @classmethod
    def from_dense(cls, residual: Tensor, mask: Tensor, values_dtype: torch.dtype = torch.float16) -> SparseWeight:
        """Keeps residual [out, in] (any float) where mask [out, in] (bool) is true, rounded to `values_dtype`.

        Raises ValueError on mismatched shapes, an unsupported dtype, or a residual that overflows it.
        """
        check("values_dtype", values_dtype, VALUE_DTYPES)
        if residual.shape != mask.shape or residual.ndim != 2:
            raise ValueError(f"mask must have the shape of residual, {list(residual.shape)}, got {list(mask.shape)}")
        counts = mask.sum(dim=1)
        row_offsets = torch.zeros(mask.shape[0] + 1, dtype=torch.int32, device=mask.device)
        row_offsets[1:] = counts.cumsum(0)
        values = residual[mask].to(values_dtype)
        if not bool(values.isfinite().all()):
            raise ValueError(
                f"residual must be finite and fit {values_dtype}; largest is {float(residual[mask].abs().max())}"
            )
        columns = mask.nonzero()[:, 1].to(torch.int32).to(columns_dtype(mask.shape[1]))
        return cls(row_offsets, columns, values, mask.shape[1])

    @property
    def out_features(self) -> int:
        """Rows of the logical shape."""
        return self.row_offsets.numel() - 1

    @property
    def nnz(self) -> int:
        """How many entries are stored."""
        return self.values.numel()

    def rows_and_columns(self) -> tuple[Tensor, Tensor]:
        """int64 (row, column) of every entry, in order."""
        counts = self.row_offsets.diff().long()
        rows = torch.repeat_interleave(torch.arange(self.out_features, device=counts.device), counts)
        return rows, self.columns.to(torch.int64)

    def to_dense(self) -> Tensor:
        """fp32 [out_features, in_features]."""
        dense = torch.zeros((self.out_features, self.in_features), device=self.values.device)
        dense[self.rows_and_columns()] = self.values.float()
        return dense

    def validate(self) -> None:
        """Raises ValueError unless offsets are monotone from 0 to nnz, columns are in range, ascending and unique in
        each row, and values are finite.
        """
        offsets = self.row_offsets.long()
        if offsets.numel() < 1 or int(offsets[0]) != 0 or bool((offsets.diff() < 0).any()):
            raise ValueError("row_offsets must start at 0 and never fall")
        if int(offsets[-1]) != self.nnz or self.columns.numel() != self.nnz:
            raise ValueError(
                f"row_offsets must end at the number of values, {self.nnz}, and columns must have as many entries: "
                f"got {int(offsets[-1])} and {self.columns.numel()}"
            )
        rows, columns = self.rows_and_columns()
        if self.nnz and not (int(columns.min()) >= 0 and int(columns.max()) < self.in_features):
            raise ValueError(
                f"columns must lie in 0..{self.in_features - 1}, found {int(columns.min())}..{int(columns.max())}"
            )
        if bool(((columns.diff() <= 0) & (rows.diff() == 0)).any()):
            raise ValueError("columns must rise strictly within each row")
        if not bool(self.values.isfinite().all()):
            raise ValueError("values must be finite")

    def tensors(self) -> dict[str, Tensor]:
        """The stored tensors by operator argument name."""
        return named_tensors(row_offsets=self.row_offsets, columns=self.columns, values=self.values)

    @property
    def stored_bytes(self) -> int:
        """Bytes of all stored tensors."""
        return stored_bytes(self.tensors())

    @property
    def paper_bits(self) -> float:
        """48 bits per entry spread over the weights (16-bit value + 32-bit index; arXiv 2503.01901's accounting)."""
        weights = self.out_features * self.in_features
        return PAPER_BITS_PER_ENTRY * self.nnz / weights if weights else 0.0
