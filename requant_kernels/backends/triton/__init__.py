"""The Triton backend: the same operators on every GPU that Triton reaches, with no CUDA compiler.

    codes.py    what packed bits mean          kernels.py   the kernels
    entries.py  the sparse part                launch.py    torch tensors in and out
    tiles.py    tile sizes as data             tune.py      how to find better ones

triton is imported when the first kernel is called. With TRITON_INTERPRET=1 the kernels run in numpy on CPU tensors:
slow, and good for tests.
"""

from __future__ import annotations

import importlib
import os
import shutil
from importlib import metadata
from typing import Any

import torch

from requant_kernels.backends import reference
from requant_kernels.backends.sparse_tiles import prepare_sparse
from requant_kernels.dispatch import Backend, Kernel

OLDEST_TESTED = (3, 7)
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
COMPILERS = ("cc", "gcc", "clang")


def unavailable_reason() -> str | None:
    """Why the kernels cannot run here, or None."""
    try:
        version = metadata.version("triton")
    except metadata.PackageNotFoundError:
        return "the package triton is missing; install requant-kernels[triton]"
    if tuple(map(int, version.split(".")[:2])) < OLDEST_TESTED:
        return f"triton {version} is older than {'.'.join(map(str, OLDEST_TESTED))}, the oldest that is tested"
    if INTERPRETED:
        return None
    if not (torch.cuda.is_available() or torch.xpu.is_available()):
        return "there is no GPU that Triton could use"
    compiler = os.environ.get("CC")
    if shutil.which(compiler) is None if compiler else not any(map(shutil.which, COMPILERS)):
        return "triton needs a C compiler at run time: install gcc or clang, or name one in CC"
    return None


def _launcher(name: str) -> Kernel:
    """A function of launch.py that is imported when it is first called."""

    def call(*args: Any) -> torch.Tensor:
        return getattr(importlib.import_module(f"{__name__}.launch"), name)(*args)

    return call


_PHASES = {"decode": "linear", "prefill": "linear", "dequantize": "dequantize"}

BACKEND = Backend(
    name="triton",
    unavailable_reason=unavailable_reason(),
    kernels={
        **{
            (format, phase): _launcher(function)
            for format in ("uniform", "lut", "trellis")
            for phase, function in _PHASES.items()
        },
        **{(format, "matmul"): _launcher("product_of_decoded") for format in ("uniform", "lut")},
        ("uniform", "embedding"): reference.embedding,
    },
    prepare_sparse=prepare_sparse,
    devices=("cpu",) if INTERPRETED else ("cuda", "xpu"),
)
