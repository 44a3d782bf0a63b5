"""Offline part of requant-kernels: quantizers, sensitivity, dense-and-sparse decomposition, evaluation.

Names are loaded on first use, so that `import requant` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from requant.errors import InputError
    from requant.estimate import estimate
    from requant.evaluate import perplexity
    from requant.pipeline import quantize
    from requant.recipe import Recipe

__all__ = ["InputError", "Recipe", "estimate", "perplexity", "quantize"]

_HOMES = {
    "InputError": "requant.errors",
    "Recipe": "requant.recipe",
    "estimate": "requant.estimate",
    "perplexity": "requant.evaluate",
    "quantize": "requant.pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'requant' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
