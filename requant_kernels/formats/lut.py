"""Dense format `lut`: codes are indices into a table of values.

w[row, input] = table[row][code[row, input]]                              one table per output row (SqueezeLLM)
w[row, input] = table[0][code[row, input]] * scale[row, group]            one shared table and a scale per group (NF4)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from requant_kernels.formats import tile16
from requant_kernels.formats.storage import FLOAT_DTYPES, bits_per_weight, check, named_tensors, stored_bytes
from requant_kernels.formats.uniform import check_group_size


@dataclass(frozen=True, eq=False)
class LutWeight:
    """A packed weight. `codes` int32 `tile16.packed_shape`; `table` [out_padded, 2^bits] or [1, 2^bits]; `scale`
    [out_padded / 16, groups * 16] or None; table and scale in bf16, fp16 or fp32.
    """

    codes: Tensor
    table: Tensor
    scale: Tensor | None
    out_features: int
    in_features: int
    bits: int
    group_size: int

    format: ClassVar[str] = "lut"
    supported_bits: ClassVar[tuple[int, ...]] = (2, 3, 4)

    @classmethod
    def pack(
        cls, codes: Tensor, table: Tensor, scale: Tensor | None = None, *, bits: int, group_size: int = -1
    ) -> LutWeight:
        """Packs codes [out, in] (integers below 2^bits) with table [out or 1, 2^bits] and scale [out, groups] or None.

        Raises ValueError on unsupported bits, group_size or dtypes, or shapes that do not belong together.
        """
        check("bits", bits, cls.supported_bits)
        check_group_size(group_size)
        check("table.dtype", table.dtype, FLOAT_DTYPES)
        out_features, in_features = codes.shape
        if table.ndim != 2 or table.shape[1] != 2**bits or table.shape[0] not in (1, out_features):
            raise ValueError(f"table must have shape [{out_features} or 1, {2**bits}], got {list(table.shape)}")
        if scale is not None:
            check("scale.dtype", scale.dtype, FLOAT_DTYPES)
            expected = (out_features, tile16.group_count(in_features, group_size))
            if tuple(scale.shape) != expected:
                raise ValueError(f"scale must have shape {expected}, got {tuple(scale.shape)}")
        # A table of one row is the shared one, whatever out_features is: padding it would change its meaning.
        rows = 1 if table.shape[0] == 1 else tile16.round_up(out_features, tile16.TILE_ROWS)
        padded = table.new_zeros((rows, 2**bits))
        padded[: table.shape[0]] = table
        return cls(
            codes=tile16.pack_codes(codes, bits),
            table=padded,
            scale=None if scale is None else tile16.pack_groups(scale),
            out_features=out_features,
            in_features=in_features,
            bits=bits,
            group_size=group_size,
        )

    @property
    def shared_table(self) -> bool:
        """Whether all rows use one table."""
        return self.table.shape[0] == 1

    def unpack(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """(codes uint8 [out, in], table [out or 1, 2^bits], scale [out, groups] or None)."""
        codes = tile16.unpack_codes(self.codes, self.bits, self.out_features, self.in_features)
        table = self.table if self.shared_table else self.table[: self.out_features]
        return codes, table, None if self.scale is None else tile16.unpack_groups(self.scale, self.out_features)

    def dequantize(self) -> Tensor:
        """fp32 [out_features, in_features]."""
        codes, table, scale = self.unpack()
        rows = table.float().expand(self.out_features, -1)
        weight = rows.gather(1, codes.long())
        if scale is not None:
            weight *= scale.float()[:, tile16.group_of_input(self.in_features, self.group_size, codes.device)]
        return weight

    def tensors(self) -> dict[str, Tensor]:
        """The stored tensors by operator argument name, absent ones left out."""
        return named_tensors(codes=self.codes, table=self.table, scale=self.scale)

    @property
    def stored_bytes(self) -> int:
        """Bytes of all stored tensors."""
        return stored_bytes(self.tensors())

    @property
    def true_bits(self) -> float:
        """Stored bits per logical weight: codes, tables, scales and padding."""
        return bits_per_weight(self.stored_bytes, self.out_features, self.in_features)

    @property
    def paper_bits(self) -> float:
        """bits + 16 per group scale; the tables are not counted (arXiv 2503.01901's accounting)."""
        if self.scale is None:
            return float(self.bits)
        return self.bits + 16 * tile16.group_count(self.in_features, self.group_size) / self.in_features
