"""Reads the header of a safetensors file and nothing else, and believes none of it before checking it.

    | length of the JSON, 8 bytes little-endian | JSON: name -> {dtype, shape, data_offsets [begin, end)} | data ... |

Offsets count from the start of the data. The tensors must cover the data exactly, without holes or overlap, so a
truncated or extended file is found from its size alone, before anything is allocated.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from requant_kernels.errors import CheckpointError

LENGTH_BYTES = 8
LARGEST_HEADER_BYTES = 100_000_000  # the limit of the format's reference implementation
METADATA_KEY = "__metadata__"
DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "U16": torch.uint16,
    "I16": torch.int16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "F32": torch.float32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor lies: bytes begin ..< end of `file`."""

    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(file: Path) -> dict[str, StoredTensor]:
    """Every tensor of `file` in the order of its bytes. Raises CheckpointError if the file is damaged or truncated."""
    try:
        file_bytes = file.stat().st_size
        with file.open("rb") as stream:
            header_bytes = int.from_bytes(stream.read(LENGTH_BYTES), "little")
            if file_bytes < LENGTH_BYTES or header_bytes > min(file_bytes - LENGTH_BYTES, LARGEST_HEADER_BYTES):
                raise CheckpointError(
                    f"{file}: truncated or damaged: the header claims {header_bytes} bytes, the file has {file_bytes}"
                )
            text = stream.read(header_bytes)
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror}") from error
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_unique_keys)
        if not isinstance(header, dict):
            raise ValueError("not an object")
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: damaged header: {error}") from None
    header.pop(METADATA_KEY, None)
    data_start = LENGTH_BYTES + header_bytes
    tensors = {name: _stored_tensor(file, name, entry, data_start) for name, entry in header.items()}
    tensors = dict(sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)))
    position = data_start
    for name, tensor in tensors.items():
        if tensor.begin != position:
            raise CheckpointError(f"{file}: damaged header: tensor {name} begins at {tensor.begin}, not at {position}")
        position = tensor.end
    if position != file_bytes:
        raise CheckpointError(
            f"{file}: truncated or damaged: the header describes {position} bytes, the file has {file_bytes}"
        )
    return tensors


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) != len(pairs):
        raise ValueError("a key appears twice")
    return keys


def _stored_tensor(file: Path, name: str, entry: Any, data_start: int) -> StoredTensor:
    def is_count(value: Any) -> bool:
        return type(value) is int and value >= 0

    def damaged(reason: str) -> CheckpointError:
        return CheckpointError(f"{file}: damaged header: tensor {name}: {reason}")

    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise damaged(f"expected dtype, shape and data_offsets, got {entry!r:.100}")
    dtype = DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        raise damaged(f"unknown dtype {entry['dtype']!r}")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not isinstance(shape, list) or not all(map(is_count, shape)):
        raise damaged(f"shape must be a list of sizes, got {shape!r:.100}")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(is_count, offsets)):
        raise damaged(f"data_offsets must be two positions, got {offsets!r:.100}")
    begin, end = offsets
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise damaged(f"{end - begin} bytes cannot hold shape {shape} of {entry['dtype']}")
    return StoredTensor(file, dtype, tuple(shape), data_start + begin, data_start + end)
