"""Which kernel serves a call: ONE table from (backend, format, tokens) to a kernel, and the order of the backends.

Where the best kernel depends on the device's architecture, a file may tell what was measured there: REQUANT_ROUTES
names it, `python -m benchmarks.tune` writes it.

A backend is a module in `requant_kernels.backends` with a `BACKEND` object that only registers kernels. Nothing here
knows how a kernel works, and nothing in a kernel knows when it is chosen.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import warnings
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
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
    """(row_offsets, columns, values, out_features, in_features) -> what the kernels want derived from CSR at load. Its
    dtype tells it from other backends'."""
    devices: tuple[str, ...] | None = None
    """Types of the devices that it serves; None: every one."""
    architecture: Callable[[torch.device], str] | None = None
    """What a device is called in a file of measured routes, such as sm_90; None: routes do not depend on it."""


Phases = tuple[tuple[int | None, str], ...]
"""(largest number of tokens, phase), in rising order; None: any number."""

BACKEND_MODULES = ("cpu", "cuda", "triton", "reference")

# Device type -> backends in order of preference.
PREFERENCE: Mapping[str, tuple[str, ...]] = {
    "cpu": ("cpu", "reference"),
    "cuda": ("cuda", "triton", "reference"),
    "meta": ("reference",),
}
OTHER_DEVICES = ("triton", "reference")

# cpu: a weight is decoded in registers for one token, once for all tokens of a small batch, and once into a panel
# for a matrix product above.
CPU_PHASES = ((1, "decode"), (32, "batch"), (None, "prefill"))
# cuda: one kernel up to as many tokens as it takes. Beyond, and on a device where a measurement says so from fewer on,
# rows are decoded for torch's matrix product.
CUDA_PHASES = ((64, "fused"), (None, "prefill"))
# triton: weights are decoded in registers as long as that is expected to cost less than decoding them all into memory
# for torch's matrix product. Products of format trellis's rotated inputs need the range of fp32, which that has not.
TRITON_PHASES = ((16, "decode"), (64, "prefill"), (None, "matmul"))
# (backend, format) -> phases
ROUTES: Mapping[tuple[str, str], Phases] = {
    ("cpu", "uniform"): CPU_PHASES,
    ("cpu", "lut"): CPU_PHASES,
    ("cpu", "trellis"): CPU_PHASES,
    ("cuda", "uniform"): CUDA_PHASES,
    ("cuda", "lut"): CUDA_PHASES,
    ("cuda", "trellis"): CUDA_PHASES,
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


@functools.cache
def _routes() -> dict[tuple[str, str], Phases]:
    return dict(ROUTES)


def register(backend: Backend, routes: Mapping[str, Phases]) -> None:
    """Adds a backend that is not part of this package, for `use_backend` to choose; `routes` are its phases by format.

    Raises ValueError if there is one of this name, or if a phase has no kernel.
    """
    if backend.name in backends():
        raise ValueError(f"there is a backend '{backend.name}' already")
    for format, phases in routes.items():
        _check_phases(backend, format, phases)
    backends()[backend.name] = backend
    _routes().update({(backend.name, format): phases for format, phases in routes.items()})


def _check_phases(backend: Backend, format: str, phases: Phases) -> None:
    """Raises ValueError unless the phases rise to any number of tokens and have kernels."""
    limits = [limit for limit, _ in phases]
    numbers = [limit for limit in limits[:-1] if isinstance(limit, int) and limit > 0]
    if not limits or limits[-1] is not None or len(numbers) < len(limits) - 1 or numbers != sorted(set(numbers)):
        raise ValueError(f"limits of {backend.name} for {format} must rise and end with None (null), got {limits}")
    for _, phase in phases:
        if (format, phase) not in backend.kernels:
            raise ValueError(f"backend {backend.name} has no phase '{phase}' for {format}")


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

    Raises RuntimeError if the forced one does not serve such devices.
    """
    forced = _forced_backend.get()
    return _serving_backend(forced, device_type) if forced else _default_backend(device_type)


def live_backends(device_type: str) -> list[str]:
    """The names of those that serve this device, in order of preference."""
    order = PREFERENCE.get(device_type, OTHER_DEVICES)
    return [name for name in order if backends()[name].unavailable_reason is None]


def kernel_for(format: str, device: torch.device, tokens: int) -> Kernel:
    """The linear kernel for this many tokens (>= 1)."""
    backend = backend_for(device.type)
    architecture = None if backend.architecture is None else backend.architecture(device)
    return _kernel(backend.name, format, tokens, architecture)


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
    return tokens > 0 and (backend, _phase(_routes()[backend, format], tokens)) in MERGED_PHASES


@functools.lru_cache(maxsize=4096)
def _kernel(backend: str, format: str, tokens: int, architecture: str | None) -> Kernel:
    phases = _measured_routes().get((backend, architecture, format)) or _routes()[backend, format]
    return backends()[backend].kernels[format, _phase(phases, tokens)]


def _phase(phases: Phases, tokens: int) -> str:
    return next(phase for limit, phase in phases if limit is None or tokens <= limit)


@functools.cache
def _measured_routes() -> dict[tuple[str, str | None, str], Phases]:
    """(backend, architecture, format) -> phases, from the file that REQUANT_ROUTES names.

    It is JSON, {backend: {architecture: {format: [[limit, phase], ..., [null, phase]]}}}. What it says of a backend
    that is not live here is left alone. Raises ValueError that starts with REQUANT_ROUTES and the file's name for one
    that cannot be read, is of another form, or names a backend or a phase that does not exist.
    """
    file = os.environ.get("REQUANT_ROUTES")
    if not file:
        return {}
    measured: dict[tuple[str, str | None, str], Phases] = {}
    try:
        for name, architectures in json.loads(Path(file).read_text(encoding="utf-8")).items():
            if name not in backends():
                raise ValueError(f"unknown backend '{name}', expected one of {', '.join(sorted(backends()))}")
            if backends()[name].unavailable_reason is not None:
                continue
            for architecture, formats in architectures.items():
                for format, phases in formats.items():
                    route = tuple((limit, phase) for limit, phase in phases)
                    _check_phases(backends()[name], format, route)
                    measured[name, architecture, format] = route
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"REQUANT_ROUTES: {file}: {error}") from error
    return measured


@functools.cache
def _default_backend(device_type: str) -> Backend:
    named = os.environ.get("REQUANT_BACKEND")
    if named:
        _live_backend(named, "REQUANT_BACKEND")
        return _serving_backend(named, device_type)
    order = PREFERENCE.get(device_type, OTHER_DEVICES)
    live = live_backends(device_type)[0]
    missing = [f"{name} ({backends()[name].unavailable_reason})" for name in order[: order.index(live)]]
    if missing:
        warnings.warn(
            f"requant-kernels runs on the slower backend '{live}' for {device_type} tensors, "
            f"because these are not live: {', '.join(missing)}. `requant env` tells more.",
            stacklevel=2,
        )
    return backends()[live]


@functools.lru_cache
def _serving_backend(name: str, device_type: str) -> Backend:
    """The forced backend, if it serves the device."""
    backend = backends()[name]
    if backend.devices is not None and device_type not in backend.devices:
        raise RuntimeError(f"backend '{name}' was forced, but it does not serve {device_type} tensors")
    return backend


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
