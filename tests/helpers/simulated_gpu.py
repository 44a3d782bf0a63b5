"""The GPU simulator (tests/gpusim) from Python: PTX text, or CUDA sources through nvcc, on numpy arrays.

The extension module ``_gpusim`` is looked for in the folder that the environment variable ``REQUANT_GPUSIM`` names,
otherwise in ``build/gpusim`` of the checkout. To build it there:

    cmake -S tests/gpusim -B build/gpusim -G Ninja -Dpybind11_DIR=$(python -m pybind11 --cmakedir)
    cmake --build build/gpusim
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

CHECKOUT = Path(__file__).resolve().parents[2]
NVCC_OPTIONS = ["-O3", "-std=c++17", "-arch=sm_80", "-ptx", "-Werror", "all-warnings"]


@functools.cache
def extension() -> ModuleType:
    """The module ``_gpusim``; an ImportError that says how to build it if it is not there."""
    folder = Path(os.environ.get("REQUANT_GPUSIM", CHECKOUT / "build" / "gpusim"))
    files = sorted(folder.glob("_gpusim*.so"))
    if not files:
        raise ImportError(f"no _gpusim*.so in {folder}.\n{__doc__}")
    spec = importlib.util.spec_from_file_location("_gpusim", files[0])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def find_nvcc() -> str | None:
    """nvcc in CUDA_HOME, otherwise the one in PATH."""
    home = os.environ.get("CUDA_HOME")
    return shutil.which(Path(home) / "bin" / "nvcc") if home else shutil.which("nvcc")


def compile_cuda(source: Path, *options: str) -> str:
    """The sm_80 PTX that nvcc makes of a CUDA source."""
    nvcc = find_nvcc()
    if nvcc is None:
        raise FileNotFoundError("nvcc is neither in CUDA_HOME/bin nor in PATH")
    command = [nvcc, *NVCC_OPTIONS, *options, "-o", "-", str(source)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{result.stderr}")
    return result.stdout


class Uninitialised(NamedTuple):
    """An argument that the kernel must write before it reads it."""

    array: np.ndarray


class SimulatedGpu:
    """A simulator with one PTX module."""

    def __init__(self, ptx: str) -> None:
        self.simulator = extension().Simulator()
        self.simulator.load(ptx)
        self.options = self.simulator.options

    def find(self, name: str) -> str:
        """The only kernel whose (mangled) name contains this."""
        found = [kernel for kernel in self.simulator.kernels() if name in kernel]
        if len(found) != 1:
            raise ValueError(f"{name!r} stands for {len(found)} kernels of {self.simulator.kernels()}")
        return found[0]

    def launch(
        self,
        kernel: str,
        grid: int | Sequence[int],
        block: int | Sequence[int],
        arguments: Sequence[Any],
        dynamic_shared_bytes: int = 0,
    ) -> Any:
        """Runs a kernel to its end and returns its LaunchReport.

        Arguments are numbers or arrays. The kernel may write to an array unless it is marked read-only in numpy, and
        may read all of it unless it is wrapped in `Uninitialised`. Throws SimulationError.
        """
        access = extension().Access
        self.simulator.clear_regions()
        passed: list[Any] = []
        for number, argument in enumerate(arguments):
            array = argument.array if isinstance(argument, Uninitialised) else argument
            if not isinstance(array, np.ndarray):
                passed.append(argument)
                continue
            assert array.flags.c_contiguous
            kind = access.READ_WRITE if array.flags.writeable else access.READ_ONLY
            if isinstance(argument, Uninitialised):
                kind = access.UNINITIALISED
            self.simulator.add_region(array.ctypes.data, array.nbytes, kind, f"argument {number}")
            passed.append(array.ctypes.data)
        return self.simulator.launch(self.find(kernel), grid, block, passed, dynamic_shared_bytes)


def device_array(shape: int | Sequence[int], dtype: Any) -> np.ndarray:
    """An array of zeros at a multiple of 256 bytes, as cudaMalloc gives."""
    kind = np.dtype(dtype)
    count = int(np.prod(shape)) * kind.itemsize
    storage = np.zeros(count + 256, "u1")
    start = -storage.ctypes.data % 256
    return storage[start : start + count].view(kind).reshape(shape)


def read_only(array: np.ndarray) -> np.ndarray:
    """A contiguous copy that kernels may not write to."""
    copy = device_array(array.shape, array.dtype)
    copy[...] = array
    copy.flags.writeable = False
    return copy
