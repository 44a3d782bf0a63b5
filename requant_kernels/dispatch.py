"""Which kernel serves a call: ONE table from (backend, format, tokens) to a kernel, and the order of the backends.

A backend is a module in `requant_kernels.backends` with a `BACKEND` object that only registers kernels. Nothing here
knows how a kernel works, and nothing in a kernel knows when it is chosen.
"""

from __future__ import annotations

import functools
import importlib
import os
import warnings
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from torch import Tensor

Kernel = Callable[..., Tensor]
"""linear: (x [..., in_features], WeightOperands, bias or None, activations) -> y [..., out_features] of x's dtype, at
least one token. dequantize: (WeightOperands, dtype) -> W [out_features, in_features]. embedding: (indices int64
[tokens], WeightOperands, dtype) -> y [tokens, in_features]. Everything is checked and contiguous.
"""


@dataclass(frozen=True)
class Backend:
    """What a backend registers."""

    name: str
    unavailable_reason: str | None
    """None if the backend is live."""
    kernels: Mapping[tuple[str, str], Kernel]
    """(format, phase) -> kernel; the phases are those of ROUTES, "dequantize", and "embedding" of uniform."""
    prepare_sparse: Callable[[Tensor, Tensor, Tensor, int, int], Tensor] | None = None
    """(row_offsets, columns, values, out_features, in_features) -> what the kernels want derived from CSR at load."""


BACKEND_MODULES = ("cpu", "triton", "reference")

# Device type -> backends in order of preference.
PREFERENCE: Mapping[str, tuple[str, ...]] = {"cpu": ("cpu", "reference"), "meta": ("reference",)}
OTHER_DEVICES = ("triton", "reference")

# (backend, format) -> (largest number of tokens, phase), in rising order; None: any number.
# cpu: a weight is decoded in registers for one token, once for all tokens of a small batch, and once into a panel
# for a matrix product above.
CPU_PHASES = ((1, "decode"), (24, "batch"), (None, "prefill"))
# triton: weights are decoded in registers as long as that costs less than decoding them all into memory for torch's
# matrix product. The products of format trellis's rotated inputs need the range of fp32, which that has not.
TRITON_PHASES = ((16, "decode"), (128, "prefill"), (None, "matmul"))
ROUTES: Mapping[tuple[str, str], tuple[tuple[int | None, str], ...]] = {
    ("cpu", "uniform"): CPU_PHASES,
    ("cpu", "lut"): CPU_PHASES,
    ("cpu", "trellis"): CPU_PHASES,
    ("triton", "uniform"): TRITON_PHASES,
    ("triton", "lut"): TRITON_PHASES,
    ("triton", "trellis"): ((16, "decode"), (None, "prefill")),
    ("reference", "uniform"): ((None, "linear"),),
    ("reference", "lut"): ((None, "linear"),),
    ("reference", "trellis"): ((None, "linear"),),
}

# Phases in which a layer may be computed as a part of a taller one: a row of the output does not depend, to the last
# bit, on the rows that are computed with it. Prefill is left out although that holds there, too: it has nothing to
# gain, and the parts of its output, which are strided, make what follows slower.
MERGED_PHASES = frozenset({("cpu", "decode"), ("cpu", "batch")})

_forced_backend: ContextVar[str | None] = ContextVar("requant_forced_backend", default=None)


@functools.cache
def backends() -> dict[str, Backend]:
    """Every backend by name, live or not."""
    modules = (importlib.import_module(f"requant_kernels.backends.{name}") for name in BACKEND_MODULES)
    return {module.BACKEND.name: module.BACKEND for module in modules}


class use_backend:
    """Forces one backend for the current thread or task: `use_backend("reference")`, or `with use_backend(...)`.

    Raises ValueError for an unknown name and RuntimeError, with the reason, for a backend that is not live.
    """

    def __init__(self, name: str) -> None:
        _live_backend(name, "use_backend")
        self._token = _forced_backend.set(name)

    def __enter__(self) -> use_backend:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _forced_backend.reset(self._token)


def backend_for(device_type: str) -> Backend:
    """The backend that serves this device: the forced one (`use_backend`, then REQUANT_BACKEND), else the first live
    one in order of preference. A preferred backend that is not live is warned about once.
    """
    forced = _forced_backend.get()
    return _live_backend(forced, "use_backend") if forced else _default_backend(device_type)


def kernel_for(format: str, device_type: str, tokens: int) -> Kernel:
    """The linear kernel for this many tokens (>= 1)."""
    return _kernel(backend_for(device_type).name, format, tokens)


def dequantize_kernel_for(format: str, device_type: str) -> Kernel:
    """The kernel that makes W = D + S."""
    return backend_for(device_type).kernels[format, "dequantize"]


def embedding_kernel_for(format: str, device_type: str) -> Kernel:
    """The kernel that fetches rows of W."""
    return backend_for(device_type).kernels[format, "embedding"]


def may_be_merged(format: str, device_type: str, tokens: int) -> bool:
    """Whether a layer may be computed as a part of a taller one without changing a bit."""
    return _may_be_merged(backend_for(device_type).name, format, tokens)


@functools.lru_cache(maxsize=4096)
def _may_be_merged(backend: str, format: str, tokens: int) -> bool:
    return tokens > 0 and (backend, _phase(backend, format, tokens)) in MERGED_PHASES


@functools.lru_cache(maxsize=4096)
def _kernel(backend: str, format: str, tokens: int) -> Kernel:
    return backends()[backend].kernels[format, _phase(backend, format, tokens)]


@functools.lru_cache(maxsize=4096)
def _phase(backend: str, format: str, tokens: int) -> str:
    return next(phase for limit, phase in ROUTES[backend, format] if limit is None or tokens <= limit)


@functools.cache
def _default_backend(device_type: str) -> Backend:
    named = os.environ.get("REQUANT_BACKEND")
    if named:
        return _live_backend(named, "REQUANT_BACKEND")
    order = PREFERENCE.get(device_type, OTHER_DEVICES)
    live = next(name for name in order if backends()[name].unavailable_reason is None)
    missing = [f"{name} ({backends()[name].unavailable_reason})" for name in order[: order.index(live)]]
    if missing:
        warnings.warn(
            f"requant-kernels runs on the slower backend '{live}' for {device_type} tensors, "
            f"because these are not live: {', '.join(missing)}. `requant env` tells more.",
            stacklevel=2,
        )
    return backends()[live]


def _live_backend(name: str, source: str) -> Backend:
    known = backends()
    if name not in known:
        raise ValueError(f"{source}: unknown backend '{name}', expected one of {', '.join(sorted(known))}")
    reason = known[name].unavailable_reason
    if reason is not None:
        raise RuntimeError(f"{source}: backend '{name}' is not live: {reason}")
    return known[name]


def backend_report() -> dict[str, Any]:
    """Backend name -> "live" or the reason why not."""
    return {name: backend.unavailable_reason or "live" for name, backend in backends().items()}
