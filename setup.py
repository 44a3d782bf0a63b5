"""Builds the C++ extensions with CMake: `requant_kernels._cpu` always, `requant_kernels._cuda` where it is of use.

Nothing here needs torch: the extensions see raw pointers. Environment:

    REQUANT_EXTENSIONS   1 (default), or 0 for pure Python
    REQUANT_CUDA         auto (default): CUDA kernels for the GPUs of this machine, if it has any and nvcc is there; a
                         failure is a warning. 1: for REQUANT_CUDA_ARCHS, GPU or not; a failure is an error. 0: none
    REQUANT_CUDA_ARCHS   compute capabilities, such as 80;90+PTX (+PTX: newer devices may compile it themselves)
    CUDA_HOME            a CUDA toolkit; without it, that of the nvcc in PATH
    REQUANT_SANITIZE     sanitizers to build with, such as address,undefined (see `make sanitize`); none by default
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ALL_CUDA_ARCHITECTURES = "75;80;86;89;90;100;120+PTX"
LEAST_CAPABILITY = 75
CUDA_EXTENSION = "requant_kernels._cuda"
MISSING_NOTE = "cuda_missing.txt"
WITHOUT_COMPILER = (
    "A C++17 compiler with OpenMP is needed (Debian: apt-get install g++). "
    "REQUANT_EXTENSIONS=0 installs without it; everything then runs on the slow reference kernels."
)


def switch(name: str, default: str, choices: tuple[str, ...]) -> str:
    """The value of an environment switch; refuses one that is not a choice."""
    value = os.environ.get(name, default)
    if value not in choices:
        sys.exit(f"error: {name} must be one of {', '.join(choices)}, got '{value}'")
    return value


class CudaPlan(NamedTuple):
    """What REQUANT_CUDA comes to on this machine."""

    architectures: str
    """To compile for; empty: no CUDA kernels."""
    reason: str
    """Why there are none."""


def plan_cuda(choice: str) -> CudaPlan:
    """Looks for nvcc and GPUs, as REQUANT_CUDA asks. Exits if it demands what cannot be had."""
    if choice == "0":
        return CudaPlan("", "installed with REQUANT_CUDA=0")
    home = os.environ.get("CUDA_HOME")
    nvcc = shutil.which("nvcc", path=str(Path(home) / "bin") if home else None)
    missing = f"no nvcc in {f'CUDA_HOME/bin, {home}/bin' if home else 'PATH, and no CUDA_HOME'}"
    if choice == "1":
        if nvcc is None:
            sys.exit(f"error: REQUANT_CUDA=1, but there is {missing}; install a CUDA toolkit, or use auto or 0")
        return CudaPlan(os.environ.get("REQUANT_CUDA_ARCHS", ALL_CUDA_ARCHITECTURES), "")
    capabilities = gpu_capabilities()
    usable = [capability for capability in capabilities if capability >= LEAST_CAPABILITY]
    if not capabilities:
        return CudaPlan("", "no NVIDIA GPU was found when this was installed (REQUANT_CUDA=1 builds without one)")
    if not usable:
        return CudaPlan("", f"the GPU's compute capability is below {LEAST_CAPABILITY / 10}")
    if nvcc is None:
        return CudaPlan("", f"there was {missing}, when this was installed")
    return CudaPlan(";".join(map(str, usable)), "")


def gpu_capabilities() -> list[int]:
    """10 * major + minor of every kind of GPU in this machine, rising."""
    query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return sorted({int(line.strip().replace(".", "")) for line in answer.splitlines() if line.strip()})


class CMakeBuild(build_ext):
    """Builds each extension as a target of the CMake project and puts it where setuptools expects it."""

    def run(self) -> None:
        """Builds them all; leaves a note for `requant env` where there are no CUDA kernels."""
        plan = plan_cuda(CUDA)
        package = Path(self.build_lib) / "requant_kernels"
        for earlier in (*package.glob("_cuda.*.so"), package / MISSING_NOTE):  # pip builds again in the same folder
            earlier.unlink(missing_ok=True)
        if not plan.architectures:
            self.extensions = [extension for extension in self.extensions if extension.name != CUDA_EXTENSION]
        self.cuda_architectures = plan.architectures
        super().run()
        if plan.reason:
            self.note(plan.reason)

    def build_extension(self, extension: Extension) -> None:
        """Runs CMake; a failure says what is needed."""
        try:
            self.build_with_cmake(extension)
        except (OSError, subprocess.CalledProcessError) as error:
            failure = f"building {extension.name} failed: {error}"
            if extension.name != CUDA_EXTENSION:
                sys.exit(f"error: {failure}\n{WITHOUT_COMPILER}")
            if CUDA == "1":
                sys.exit(f"error: {failure}")
            print(f"warning: {failure}\nGoing on without CUDA kernels, as REQUANT_CUDA=auto asks.", file=sys.stderr)
            self.extensions.remove(extension)
            self.note(f"{failure}; pip install -v shows more")

    def build_with_cmake(self, extension: Extension) -> None:
        """Configures and builds one target, in a folder of its own."""
        source = Path(__file__).resolve().parent
        module = extension.name.rpartition(".")[2]
        target = Path(self.get_ext_fullpath(extension.name)).resolve()
        build = Path(self.build_temp).resolve() / module
        build.mkdir(parents=True, exist_ok=True)
        import pybind11  # a build requirement: absent when only metadata is asked for

        configure = [
            "cmake",
            "--fresh",  # an earlier cache names tools of a build environment that is gone
            f"-S{source}",
            f"-B{build}",
            "-GNinja",
            "-DCMAKE_BUILD_TYPE=Release",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={build / 'module'}",
            f"-DREQUANT_SANITIZE={os.environ.get('REQUANT_SANITIZE', '')}",
            f"-DREQUANT_CUDA_ARCHS={self.cuda_architectures if extension.name == CUDA_EXTENSION else ''}",
        ]
        subprocess.run(configure, check=True)
        subprocess.run(["cmake", "--build", str(build), "--target", module], check=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        # Renamed into place: linking over a module that a running program has mapped would crash that program.
        new = target.with_suffix(".new")
        shutil.copyfile(build / "module" / target.name, new)
        new.replace(target)

    def note(self, reason: str) -> None:
        """Lays down, beside the Python modules, why there are no CUDA kernels."""
        package = Path(self.build_lib) / "requant_kernels"
        package.mkdir(parents=True, exist_ok=True)
        (package / MISSING_NOTE).write_text(reason + "\n", encoding="utf-8")


CUDA = switch("REQUANT_CUDA", "auto", ("auto", "0", "1"))
EXTENSIONS = ("requant_kernels._cpu", CUDA_EXTENSION) if switch("REQUANT_EXTENSIONS", "1", ("0", "1")) == "1" else ()

if __name__ == "__main__":
    setup(ext_modules=[Extension(name, sources=[]) for name in EXTENSIONS], cmdclass={"build_ext": CMakeBuild})
