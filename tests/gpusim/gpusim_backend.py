"""Backend `gpusim`: the CUDA kernels and their launchers, run by the simulator on CPU tensors.

`_cuda_gpusim` holds the same objects as `_cuda`; `make gpusim` builds it. Every tensor that a kernel is given becomes a
region of the device's memory for the time of the call: inputs may only be read, results and workspaces only be read
after they were written.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from requant_kernels import dispatch
from requant_kernels.backends import cuda
from requant_kernels.backends.sparse_tiles import prepare_sparse
from requant_kernels.dispatch import Backend

BUILD = Path(__file__).resolve().parents[2] / "build" / "gpusim"
STREAM = 0x5EED0
"""The stream that kernels must run on: no handle that a launcher could come by otherwise."""

CAPABILITY = 80


def is_built() -> bool:
    """Whether `make gpusim` has been run."""
    return any(BUILD.glob("_cuda_gpusim.*.so"))


def load_module(name: str) -> ModuleType:
    """A module that `make gpusim` built: _cuda or _cuda_gpusim."""
    (file,) = BUILD.glob(f"{name}.*.so")
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def extension() -> ModuleType:
    """_cuda_gpusim, with the kernels' PTX loaded."""
    module = load_module("_cuda_gpusim")
    for ptx in sorted((BUILD / "ptx").glob("*.ptx")):
        module.load_ptx(ptx.read_text())
    return module


def launched_shapes() -> set[tuple[int, int]]:
    """(8-token tiles, warps along rows) of the CTAs of all linear kernels since the launches were cleared."""
    kernels = (launch.kernel for launch in extension().launches() if "linear_kernel" in launch.kernel)
    shapes = (re.search(r"CtaShapeILi(\d)ELi(\d)E", kernel) for kernel in kernels)
    return {(int(shape[1]), int(shape[2])) for shape in shapes if shape}


class SimulatedDevices:
    """One simulated device, whose memory is that of the CPU.

    The fewer multiprocessors it has, the less small layers are split, and the fewer rows make a layer a tall one.
    """

    def __init__(self, extension: ModuleType, capability: int = CAPABILITY, multiprocessors: int | None = None) -> None:
        self._extension = extension
        self._capability = capability
        self._multiprocessors = extension.MULTIPROCESSORS if multiprocessors is None else multiprocessors

    def launch(self, device: torch.device) -> cuda.Launch:
        """On STREAM."""
        return cuda.Launch(STREAM, self._multiprocessors, self._capability)

    @contextlib.contextmanager
    def running(self, device: torch.device, reads: Iterable[Tensor | None], writes: Iterable[Tensor]) -> Iterator[None]:
        """Makes the tensors' memory known to the device."""
        for access, tensors in (("read_only", reads), ("uninitialised", writes)):
            for tensor in tensors:
                if tensor is not None:
                    self._extension.add_region(tensor.data_ptr(), tensor.nbytes, access, str(tuple(tensor.shape)))
        try:
            yield
            self._extension.raise_failure()
        finally:
            self._extension.clear_regions()


def make_backend(
    extension: ModuleType,
    name: str = "gpusim",
    capability: int = CAPABILITY,
    devices: SimulatedDevices | None = None,
) -> Backend:
    """The CUDA backend's own code over a simulated device."""
    return Backend(
        name=name,
        unavailable_reason=None,
        devices=("cpu",),
        kernels=cuda.CudaKernels(extension, devices or SimulatedDevices(extension, capability)).table(),
        prepare_sparse=prepare_sparse,
        architecture=lambda device: f"sm_{capability}",
    )


@functools.cache
def register() -> Backend:
    """Makes `use_backend("gpusim")` known, once."""
    backend = make_backend(extension())
    routes = {format: phases for (name, format), phases in dispatch.ROUTES.items() if name == "cuda"}
    dispatch.register(backend, routes)
    return backend
