"""What every format shares: which dtypes may be stored, and how many bytes a set of tensors takes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

FLOAT_DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def check(name: str, value: Any, allowed: Collection[Any]) -> None:
    """Raises ValueError naming the argument, its value and the choices."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(str, allowed))}, got {value}")


def named_tensors(**tensors: Tensor | None) -> dict[str, Tensor]:
    """The tensors that are present."""
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def stored_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of all tensors together."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def bits_per_weight(size_bytes: int, out_features: int, in_features: int) -> float:
    """8 x bytes / (out x in); 0 for an empty weight."""
    weights = out_features * in_features
    return 8 * size_bytes / weights if weights else 0.0
