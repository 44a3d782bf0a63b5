"""Copies of a layer, called in turn, so that every call reads its weights from memory and not from a cache."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Protocol

from machine import available_memory_bytes, last_level_cache_bytes
from torch import Tensor

CACHE_MULTIPLE = 3
"""The copies of one layer together exceed the last-level cache by this factor, memory permitting."""
LEAST_ROTATED_BYTES = 256 << 20
SHARE_OF_MEMORY = 0.4
"""Of the memory available at the start, for the copies of all layers together."""
MOST_COPIES = 512
"""Of tiny layers: with others running in between, so many are not met again soon."""

Call = Callable[[], object]


class Layer(Protocol):
    """What a contender computes with; copy.deepcopy gives another one with its own weights."""

    weight_bytes: int

    def bind(self, x: Tensor) -> Call:
        """A call that computes the output for x [tokens, in_features], bf16, converted beforehand if need be."""
        ...


def rotated_bytes(layers: int) -> int:
    """How many bytes each of `layers` may fill with copies."""
    wanted = max(LEAST_ROTATED_BYTES, CACHE_MULTIPLE * last_level_cache_bytes())
    available = available_memory_bytes()
    return wanted if available is None else min(wanted, int(SHARE_OF_MEMORY * available / layers))


def copies_for(weight_bytes: int, rotated: int) -> int:
    """At least two, so that no call meets the weights of the call before it."""
    return max(2, min(MOST_COPIES, -(-rotated // weight_bytes)))


class Rotation:
    """Copies of one layer that fill `rotated` bytes."""

    def __init__(self, layer: Layer, rotated: int) -> None:
        self.weight_bytes = layer.weight_bytes
        copies = copies_for(self.weight_bytes, rotated)
        self._layers = [layer, *(copy.deepcopy(layer) for _ in range(copies - 1))]
        self._next = 0

    def __len__(self) -> int:
        return len(self._layers)

    def bind(self, x: Tensor) -> Call:
        """A call that uses the next copy each time."""
        calls = [layer.bind(x) for layer in self._layers]

        def call() -> object:
            self._next = (self._next + 1) % len(calls)
            return calls[self._next]()

        return call
