"""How the launcher would cut a call into CTAs: csrc/cuda/plan.cpp itself, compiled and called."""

from __future__ import annotations

import ctypes
import functools
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from gpu_static.gpus import Gpu
from gpu_static.kernels import REPOSITORY, SOURCES

FORMATS = ("uniform", "lut", "trellis")
"""In the order of csrc/cuda/arguments.h."""


class Plan(NamedTuple):
    """As in csrc/cuda/plan.h."""

    token_tiles: int
    row_warps: int
    token_groups: int
    row_groups: int
    splits: int
    split_inputs: int
    chunk_inputs: int
    shared_bytes: int
    spans_ahead: int
    """Of every warp, on their way from memory."""

    @property
    def ctas(self) -> int:
        """Of the launch."""
        return self.token_groups * self.row_groups * self.splits


@functools.cache
def _library() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "plan.so")
        sources = [Path(__file__).with_suffix(".cpp"), SOURCES / "plan.cpp"]
        options = ["-std=c++17", "-O1", "-shared", "-fPIC", "-fvisibility=hidden", f"-I{REPOSITORY / 'csrc'}"]
        options += ["-ffunction-sections", "-Wl,--gc-sections"]  # without what other parts of plan.cpp need
        subprocess.run(["c++", *options, *map(str, sources), "-o", str(library)], check=True)
        return ctypes.CDLL(str(library))


def plan_linear(format: str, bits: int, shape: tuple[int, int], sparse: bool, tokens: int, gpu: Gpu) -> Plan:
    """The plan for `tokens` rows of x; shape is (out_features, in_features)."""
    figures = (ctypes.c_int64 * len(Plan._fields))()
    features = (ctypes.c_int64(size) for size in shape)
    device = (gpu.multiprocessors, gpu.architecture)
    _library().plan_linear(FORMATS.index(format), bits, *features, sparse, ctypes.c_int64(tokens), *device, figures)
    return Plan(*figures)
