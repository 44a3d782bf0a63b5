"""Builds the C++ extension `requant_kernels._cpu` with CMake, unless REQUANT_EXTENSIONS=0 asks for pure Python.

Nothing here needs torch: the extension sees raw pointers. Environment:

    REQUANT_EXTENSIONS   1 (default) or 0
    REQUANT_SANITIZE     sanitizers to build with, such as address,undefined (see `make sanitize`); none by default
    REQUANT_CUDA         auto (default), 0, or 1; this version has no CUDA sources, so 1 is refused
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext


def switch(name: str, default: str, choices: tuple[str, ...]) -> str:
    """The value of an environment switch; refuses one that is not a choice."""
    value = os.environ.get(name, default)
    if value not in choices:
        sys.exit(f"error: {name} must be one of {', '.join(choices)}, got '{value}'")
    return value


class CMakeBuild(build_ext):
    """Configures and builds the CMake project once and puts the module where setuptools expects it."""

    def build_extension(self, extension: Extension) -> None:
        """Runs CMake; a failure says what is needed."""
        source = Path(__file__).resolve().parent
        target = Path(self.get_ext_fullpath(extension.name)).resolve()
        build = Path(self.build_temp).resolve()
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
        ]
        try:
            subprocess.run(configure, check=True)
            subprocess.run(["cmake", "--build", str(build)], check=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            # Renamed into place: linking over a module that a running program has mapped would crash that program.
            new = target.with_suffix(".new")
            shutil.copyfile(build / "module" / target.name, new)
            new.replace(target)
        except (OSError, subprocess.CalledProcessError) as error:
            sys.exit(
                f"error: building {extension.name} failed: {error}\n"
                "A C++17 compiler with OpenMP is needed (Debian: apt-get install g++). "
                "REQUANT_EXTENSIONS=0 installs without it; everything then runs on the slow reference kernels."
            )


if switch("REQUANT_CUDA", "auto", ("auto", "0", "1")) == "1":
    sys.exit("error: REQUANT_CUDA=1, but this version has no CUDA sources; use auto or 0")

with_extensions = switch("REQUANT_EXTENSIONS", "1", ("0", "1")) == "1"
setup(
    ext_modules=[Extension("requant_kernels._cpu", sources=[])] if with_extensions else [],
    cmdclass={"build_ext": CMakeBuild},
)
