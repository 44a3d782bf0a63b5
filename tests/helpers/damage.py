"""Ways to damage a good checkpoint, for tests that want it refused."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from requant_kernels.checkpoint import INDEX_FILE, read_weight_headers

LAYER = "model.layers.1.mlp.up_proj"


def edit_json(file: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))


def edit_modules(checkpoint: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    edit_json(checkpoint / "config.json", lambda config: edit(config["quantization_config"]["modules"]))


def edit_tensor(checkpoint: Path, name: str, edit: Callable[[torch.Tensor], torch.Tensor]) -> Path:
    """Rewrites one tensor of a well-formed file."""
    file = read_weight_headers(checkpoint)[name].file
    tensors = load_file(file)
    tensors[name] = edit(tensors[name])
    save_file(tensors, file, metadata={"format": "pt"})
    return file


def rewrite_header(file: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    content = file.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    edit(header)
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def last_shard(checkpoint: Path) -> Path:
    return sorted(checkpoint.glob("model-*.safetensors"))[-1]


def truncate(file: Path, size: int) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:size])


def patch(file: Path, position: int, replacement: bytes) -> None:
    content = bytearray(file.read_bytes())
    content[position : position + len(replacement)] = replacement
    file.write_bytes(content)


def entries(header: dict[str, Any]) -> list[dict[str, Any]]:
    found = [entry for name, entry in header.items() if name != "__metadata__"]
    return sorted(found, key=lambda entry: entry["data_offsets"])


def overlap_tensors(header: dict[str, Any]) -> None:
    first, second = entries(header)[:2]
    size = second["data_offsets"][1] - second["data_offsets"][0]
    second["data_offsets"] = [first["data_offsets"][0], first["data_offsets"][0] + size]


def enlarge_a_tensor(header: dict[str, Any]) -> None:
    entry = entries(header)[-1]
    entry["shape"] = [2**40]


def drop_tensor(checkpoint: Path, name: str) -> None:
    """Removes a tensor from its file and, if there is one, from the index."""
    file = read_weight_headers(checkpoint)[name].file
    tensors = load_file(file)
    del tensors[name]
    save_file(tensors, file, metadata={"format": "pt"})
    if (checkpoint / INDEX_FILE).exists():
        edit_json(checkpoint / INDEX_FILE, lambda index: index["weight_map"].pop(name))
