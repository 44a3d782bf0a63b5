"""The weights that are quantized: which modules they belong to, and how they are exchanged for others and put back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from requant.errors import InputError

Linears = Mapping[str, nn.Linear]


def find_linears(model: nn.Module, skip: Sequence[str] = ()) -> dict[str, nn.Linear]:
    """The linear layers of the decoder blocks by module name, in the model's order.

    A decoder block is an element of an nn.ModuleList. The output embedding and weights shared with another module are
    left out, and so are names matching a shell pattern in `skip`. Raises InputError if nothing is left, or if a weight
    is not finite.
    """
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners[parameter.data_ptr()] = owners.get(parameter.data_ptr(), 0) + 1
    blocks = tuple(name + "." for name, module in model.named_modules() if isinstance(module, nn.ModuleList))
    found = {
        name: module
        for name, module in model.named_modules()
        if type(module) is nn.Linear
        and name.startswith(blocks)
        and owners[module.weight.data_ptr()] == 1
        and not any(fnmatchcase(name, pattern) for pattern in skip)
    }
    if not found:
        raise InputError(
            f"{type(model).__name__} has nothing to quantize: expected linear layers in decoder blocks"
            + (f" that none of {', '.join(skip)} matches" if skip else "")
        )
    for name, linear in found.items():
        if not bool(torch.isfinite(linear.weight).all()):
            raise InputError(f"weight of {name} has NaN or infinite values, expected finite ones")
    return found


class OriginalWeights:
    """Copies of the weights of some layers, in 16 bits where that is exact."""

    def __init__(self, linears: Linears) -> None:
        self._linears = linears
        self._copies = {name: _smallest_exact_copy(linear.weight.detach()) for name, linear in linears.items()}

    def __getitem__(self, name: str) -> Tensor:
        """fp32 [out, in]."""
        return self._copies[name].float()

    @contextmanager
    def replaced(self, weight: Callable[[str], Tensor]) -> Iterator[None]:
        """Inside, the layers have the weights `weight(name)`; afterwards, whatever happens, exactly their own again."""
        try:
            self.assign(weight)
            yield
        finally:
            self.restore()

    def assign(self, weight: Callable[[str], Tensor]) -> None:
        """Gives every layer the weight `weight(name)` [out, in]."""
        for name, linear in self._linears.items():
            linear.weight.data.copy_(weight(name))

    def restore(self) -> None:
        """Gives every layer its own weight, bit by bit."""
        self.assign(self._copies.__getitem__)


def _smallest_exact_copy(weight: Tensor) -> Tensor:
    for dtype in (torch.bfloat16, torch.float16):
        copy = weight.to(dtype)
        if torch.equal(copy.to(weight.dtype), weight):
            return copy.clone() if dtype == weight.dtype else copy
    return weight.clone()


@contextmanager
def single_precision(model: nn.Module) -> Iterator[dict[nn.Parameter, torch.dtype]]:
    """Inside, all parameters are fp32 and the model is in evaluation mode; afterwards each parameter has the dtype that
    the yielded dictionary then says: its own one, unless the caller changes that.
    """
    dtypes = {parameter: parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        for parameter in dtypes:
            parameter.data = parameter.data.float()
        yield dtypes
    finally:
        for parameter, dtype in dtypes.items():
            parameter.data = parameter.data.to(dtype)
        for module, mode in training.items():
            module.training = mode


def logits_of(model: Any, window: Tensor) -> Tensor:
    """[tokens, vocabulary] for one window of int64 [tokens]."""
    logits: Tensor = model(input_ids=window[None], use_cache=False).logits[0]
    return logits
