"""Dense format `uniform`: evenly spaced levels with a scale and an optional zero point per group of inputs.

    w[row, input] = scale[row, group] * (code[row, input] - zero[row, group])        group = input // group_size

An absent `zero` stands for the middle code, 2^(bits - 1). `zero` is a float: it need not be a code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from requant_kernels.formats import tile16
from requant_kernels.formats.storage import FLOAT_DTYPES, bits_per_weight, check, named_tensors, stored_bytes


@dataclass(frozen=True, eq=False)
class UniformWeight:
    """A packed weight. `codes` int32 `tile16.packed_shape`; `scale`, `zero` [out_padded / 16, groups * 16] as packed
    by `tile16.pack_groups`, in bf16, fp16 or fp32 (the same for both).
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor | None
    out_features: int
    in_features: int
    bits: int
    group_size: int

    format: ClassVar[str] = "uniform"
    supported_bits: ClassVar[tuple[int, ...]] = (2, 3, 4, 8)

    @classmethod
    def pack(
        cls, codes: Tensor, scale: Tensor, zero: Tensor | None = None, *, bits: int, group_size: int
    ) -> UniformWeight:
        """Packs codes [out, in] (integers below 2^bits) with scale and zero [out, groups].

        Raises ValueError on unsupported bits, a group_size that is neither -1 nor a positive multiple of 32, or shapes
        that do not belong together.
        """
        check("bits", bits, cls.supported_bits)
        check_group_size(group_size)
        out_features, in_features = codes.shape
        expected = (out_features, tile16.group_count(in_features, group_size))
        check("scale.dtype", scale.dtype, FLOAT_DTYPES)
        for name, values in (("scale", scale), ("zero", zero)):
            if values is not None and tuple(values.shape) != expected:
                raise ValueError(f"{name} must have shape {expected}, got {tuple(values.shape)}")
        if zero is not None and zero.dtype != scale.dtype:
            raise ValueError(f"zero must have the dtype of scale, {scale.dtype}, got {zero.dtype}")
        return cls(
            codes=tile16.pack_codes(codes, bits),
            scale=tile16.pack_groups(scale),
            zero=None if zero is None else tile16.pack_groups(zero),
            out_features=out_features,
            in_features=in_features,
            bits=bits,
            group_size=group_size,
        )

    def unpack(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """(codes uint8 [out, in], scale [out, groups], zero [out, groups] or None)."""
        codes = tile16.unpack_codes(self.codes, self.bits, self.out_features, self.in_features)
        zero = None if self.zero is None else tile16.unpack_groups(self.zero, self.out_features)
        return codes, tile16.unpack_groups(self.scale, self.out_features), zero

    def dequantize(self) -> Tensor:
        """fp32 [out_features, in_features]."""
        codes, scale, zero = self.unpack()
        group = tile16.group_of_input(self.in_features, self.group_size, codes.device)
        centred = codes.float()
        centred -= 2.0 ** (self.bits - 1) if zero is None else zero.float()[:, group]
        return centred.mul_(scale.float()[:, group])

    def tensors(self) -> dict[str, Tensor]:
        """The stored tensors by operator argument name, absent ones left out."""
        return named_tensors(codes=self.codes, scale=self.scale, zero=self.zero)

    @property
    def stored_bytes(self) -> int:
        """Bytes of all stored tensors."""
        return stored_bytes(self.tensors())

    @property
    def true_bits(self) -> float:
        """Stored bits per logical weight, padding and scales included."""
        return bits_per_weight(self.stored_bytes, self.out_features, self.in_features)

    @property
    def paper_bits(self) -> float:
        """bits + 16 per scale and 16 per zero, spread over the group (arXiv 2503.01901's accounting)."""
        per_group = 16 if self.zero is None else 32
        return self.bits + per_group * tile16.group_count(self.in_features, self.group_size) / self.in_features


def check_group_size(group_size: int) -> None:
    """Raises ValueError unless group_size is -1 (a whole row) or a positive multiple of 32."""
    if group_size != -1 and (group_size <= 0 or group_size % 32):
        raise ValueError(f"group_size must be -1 or a positive multiple of 32, got {group_size}")
