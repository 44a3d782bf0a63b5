"""LayerSpec: everything that must be known of a quantized layer before its tensors are read.

It is one entry of `quantization_config["modules"]` in a checkpoint. From it follow the name, shape and dtype of every
tensor, so that an empty layer can be built first and a wrong file refused before anything is allocated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

import torch

from requant_kernels.formats import tile16, trellis
from requant_kernels.formats.activations import ACTIVATIONS
from requant_kernels.formats.lut import LutWeight
from requant_kernels.formats.sparse import VALUE_DTYPES, columns_dtype
from requant_kernels.formats.storage import FLOAT_DTYPES, check
from requant_kernels.formats.trellis import TrellisWeight
from requant_kernels.formats.uniform import UniformWeight, check_group_size

DENSE_FORMATS: dict[str, type[UniformWeight] | type[LutWeight] | type[TrellisWeight]] = {
    dense.format: dense for dense in (UniformWeight, LutWeight, TrellisWeight)
}
TABLES = ("row", "shared")


def dtype_name(dtype: torch.dtype) -> str:
    """`bfloat16` for torch.bfloat16."""
    return str(dtype).removeprefix("torch.")


@dataclass(frozen=True)
class LayerSpec:
    """Raises ValueError on construction if a field has a value that no layer can have."""

    format: str
    bits: int
    group_size: int
    symmetric: bool
    """uniform: no zero is stored, the middle code stands for it."""
    table: str | None
    """lut: "row" or "shared"."""
    shape: tuple[int, int]
    """(out_features, in_features), without padding."""
    nnz: int
    """Entries of the sparse part; 0 if there is none."""
    outliers: int
    significant: int
    scale_dtype: str | None
    table_dtype: str | None
    values_dtype: str | None
    columns_dtype: str | None
    bias: bool
    code: str | None = None
    """trellis: how values follow from states. Specs of other formats may lack this field."""
    activations: str = ACTIVATIONS[0]
    """What a layer may do with its inputs (`formats.activations`); a spec that lacks this field allows no rounding."""

    def __post_init__(self) -> None:
        check("format", self.format, DENSE_FORMATS)
        check("bits", self.bits, DENSE_FORMATS[self.format].supported_bits)
        check_group_size(self.group_size)
        if len(self.shape) != 2 or not all(type(size) is int and size > 0 for size in self.shape):
            raise ValueError(f"shape must be two positive integers, got {list(self.shape)}")
        counts = (self.nnz, self.outliers, self.significant)
        if not all(type(count) is int and count >= 0 for count in counts) or self.nnz > self.shape[0] * self.shape[1]:
            raise ValueError(f"nnz, outliers and significant must be counts that fit the shape, got {counts}")
        if self.outliers + self.significant > self.nnz:
            raise ValueError(f"outliers + significant must not exceed nnz, got {counts[1:]} of {self.nnz}")
        uniform, lut, sparse = self.format == "uniform", self.format == "lut", self.nnz > 0
        if self.format == "trellis":
            check("group_size", self.group_size, (-1,))
        check("code", self.code, trellis.CODES if self.format == "trellis" else (None,))
        floats = tuple(map(dtype_name, FLOAT_DTYPES))
        check("symmetric", self.symmetric, (True, False) if uniform else (False,))
        check("table", self.table, TABLES if lut else (None,))
        check("scale_dtype", self.scale_dtype, (*floats, None) if lut else floats)
        check("table_dtype", self.table_dtype, floats if lut else (None,))
        check("values_dtype", self.values_dtype, tuple(map(dtype_name, VALUE_DTYPES)) if sparse else (None,))
        check("columns_dtype", self.columns_dtype, (dtype_name(columns_dtype(self.shape[1])),) if sparse else (None,))
        check("bias", self.bias, (True, False))
        check("activations", self.activations, ACTIVATIONS)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**asdict(self), "shape": list(self.shape)}

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any], where: str) -> LayerSpec:
        """Reads one entry. Raises ValueError that starts with `where` on unknown, missing or impossible fields."""
        names = {field.name for field in fields(cls)}
        required = {field.name for field in fields(cls) if field.default is MISSING}
        if not isinstance(entry, Mapping):
            raise ValueError(f"{where}: expected an object, got {entry!r}")
        for problem, found in (("unknown", entry.keys() - names), ("missing", required - entry.keys())):
            if found:
                raise ValueError(f"{where}: {problem} field {', '.join(sorted(found))}")
        try:
            return cls(**{**entry, "shape": tuple(entry["shape"])})
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: {error}") from None

    def tensors(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """(shape, dtype) of every stored tensor but the bias, by operator argument name."""
        out_features, in_features = self.shape
        tiles = tile16.padded_shape(out_features, in_features)[0] // tile16.TILE_ROWS
        group_shape = (tiles, tile16.group_count(in_features, self.group_size) * tile16.TILE_ROWS)
        layout = trellis if self.format == "trellis" else tile16
        expected: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
            "codes": (layout.packed_shape(out_features, in_features, self.bits), torch.int32)
        }
        if self.scale_dtype is not None:
            expected["scale"] = (group_shape, getattr(torch, self.scale_dtype))
            if self.format == "uniform" and not self.symmetric:
                expected["zero"] = expected["scale"]
        if self.format == "trellis":
            expected["input_signs"] = ((in_features,), torch.int8)
            expected["output_signs"] = ((out_features,), torch.int8)
        if self.code == "hyb":
            expected["codebook"] = (trellis.CODEBOOK_SHAPE, torch.float32)
        if self.table_dtype is not None:
            rows = 1 if self.table == "shared" else tiles * tile16.TILE_ROWS
            expected["table"] = ((rows, 2**self.bits), getattr(torch, self.table_dtype))
        if self.values_dtype is not None and self.columns_dtype is not None:
            expected["row_offsets"] = ((out_features + 1,), torch.int32)
            expected["columns"] = ((self.nnz,), getattr(torch, self.columns_dtype))
            expected["values"] = ((self.nnz,), getattr(torch, self.values_dtype))
        return expected
