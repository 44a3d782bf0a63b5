"""Base quantizers by the name a recipe calls them."""

from __future__ import annotations

from collections.abc import Callable

from requant.quantizers.base import DenseWeight, Quantizer, Statistics
from requant.quantizers.rtn import RoundToNearest
from requant.quantizers.squeezellm import SqueezeLLM
from requant.recipe import Recipe

__all__ = ["DenseWeight", "Quantizer", "Statistics", "make_quantizer"]

_FACTORIES: dict[str, Callable[[Recipe], Quantizer]] = {
    "rtn": lambda recipe: RoundToNearest(recipe.bits, recipe.group_size or -1, recipe.symmetric),
    "squeezellm": lambda recipe: SqueezeLLM(recipe.bits),
}


def make_quantizer(recipe: Recipe) -> Quantizer:
    """The base quantizer that the recipe asks for."""
    return _FACTORIES[recipe.method](recipe)
