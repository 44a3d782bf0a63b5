"""Compiled files: their kernels, what these occupy, and their machine code, by NVIDIA's binary utilities."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import NamedTuple

from gpu_static.sass import Code

WHEEL_FOLDERS = ("nvidia/cu13/bin", "triton/backends/nvidia/bin")
"""Where wheels put the utilities: nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm; triton."""

USAGE = re.compile(r"Function (?P<name>\S+):\s+REG:(?P<registers>\d+) STACK:(?P<stack>\d+) SHARED:(?P<shared>\d+)")
SECTION = re.compile(r"^\s*\.section\s+", re.MULTILINE)
KERNEL_SECTION = re.compile(r"\.text\.(?P<name>[^,\s]+)")


class Kernel(NamedTuple):
    """One kernel as compiled for one architecture."""

    name: str
    """Mangled."""
    registers: int
    """Of one thread."""
    spill_bytes: int
    """Stack of one thread; our kernels have no local arrays, so all of it holds what registers could not."""
    shared_bytes: int
    """Static, of one CTA."""
    code: Code


@functools.cache
def find_tool(name: str) -> str:
    """Path of cuobjdump or nvdisasm: in CUDA_HOME, PATH or a wheel. Raises FileNotFoundError."""
    packages = Path(sysconfig.get_path("purelib"))
    folders = [Path(os.environ["CUDA_HOME"], "bin")] if "CUDA_HOME" in os.environ else []
    folders += [Path(folder) for folder in os.get_exec_path()] + [packages / folder for folder in WHEEL_FOLDERS]
    found = shutil.which(name, path=os.pathsep.join(map(str, folders)))
    if found is None:
        raise FileNotFoundError(f"no {name} in CUDA_HOME/bin, PATH or the environment: pip install nvidia-cuda-{name}")
    return found


def run_tool(name: str, *arguments: str | Path, folder: Path | None = None) -> str:
    """What it prints. Raises CalledProcessError."""
    command = [find_tool(name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder).stdout


def extract_cubin(object_file: Path, architecture: int, folder: Path) -> Path:
    """The machine code for one architecture from an object file of nvcc, as a file in an empty folder."""
    run_tool("cuobjdump", "--extract-elf", f"sm_{architecture}", object_file.resolve(), folder=folder)
    (cubin,) = folder.glob("*.cubin")
    return cubin


def read_cubin(cubin: Path) -> list[Kernel]:
    """Its kernels."""
    usages = {usage["name"]: usage for usage in USAGE.finditer(run_tool("cuobjdump", "--dump-resource-usage", cubin))}
    kernels = []
    for section in SECTION.split(run_tool("nvdisasm", "--print-code", cubin)):
        name = KERNEL_SECTION.match(section)
        if name is not None and (usage := usages.get(name["name"])):
            registers, stack, shared = (int(usage[key]) for key in ("registers", "stack", "shared"))
            kernels.append(Kernel(name["name"], registers, stack, shared, Code(section)))
    return kernels
