"""The linear kernels, by what they compute, compiled for one architecture."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from gpu_static.cubin import Kernel, read_cubin
from gpu_static.sass import Loop

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = REPOSITORY / "csrc" / "cuda"
CUBINS = REPOSITORY / "build" / "gpu_static"

# As in csrc/cuda/parameters.cuh.
THREADS = 128
WARPS = 4
TILE_TOKENS = 8
SPAN_INPUTS = 128
WEIGHTS_PER_LANE = 16 * SPAN_INPUTS // 32
"""In one turn of the main loop: a span of 16 rows by 128 inputs (csrc/cuda/linear.cuh)."""

MANGLED = re.compile(
    r"linear_kernelI.*?(?P<format>Uniform|Lut|Trellis)WeightsILi(?P<bits>\d)E(?P<options>.*?)EELi(?P<tiles>\d)EEE"
)
OPTIONS = {
    "6__half": "fp16",
    "13__nv_bfloat16": "bf16",
    "Lb1E": "zeros",
    "GroupsE0": "no groups",
    "GroupsE1": "groups of spans",
    "GroupsE2": "any groups",
    "6OneMad": "1mad",
    "9ThreeInst": "3inst",
    "3HybE": "hyb",
}
"""Part of the mangled name -> what it says."""


class Variant(NamedTuple):
    """Which linear kernel."""

    format: str
    bits: int
    options: tuple[str, ...]
    token_tiles: int
    """8-token tiles of one CTA."""

    def __str__(self) -> str:
        return ", ".join((f"{self.format} {self.bits}", *self.options, f"{TILE_TOKENS * self.token_tiles} tokens"))

    @classmethod
    def parse(cls, text: str) -> Variant:
        """From what `str` makes of it."""
        first, *options, tokens = text.split(", ")
        format, bits = first.split()
        return cls(format, int(bits), tuple(options), int(tokens.split()[0]) // TILE_TOKENS)


class LinearKernel:
    """One linear kernel for one architecture, and what its warps execute at least."""

    def __init__(self, variant: Variant, kernel: Kernel) -> None:
        self.variant = variant
        self.kernel = kernel
        self.main_loop = kernel.code.loop_with("tensor")
        self.chunk_loop = kernel.code.loop_around(self.main_loop)

    @cached_property
    def main_turn(self) -> Counter[str]:
        """Instructions of one turn of the main loop by class."""
        return self.kernel.code.classes(self.kernel.code.turn(self.main_loop))

    @property
    def instructions_per_weight(self) -> float:
        """Of one thread, in the main loop."""
        return self.main_turn.total() / WEIGHTS_PER_LANE

    @cached_property
    def sparse_loop(self) -> Loop:
        """One turn: one entry for every slot."""
        return self.kernel.code.loop_with("ldg", "fp32", "sts")

    @cached_property
    def sparse_turn(self) -> int:
        """Instructions."""
        return len(self.kernel.code.turn(self.sparse_loop))

    @cached_property
    def chunk_instructions(self) -> int:
        """Once for every chunk of x, around the main loop, by the shortest way."""
        return self._between({self.chunk_loop.first}, {self.main_loop.first}) + self._end_of_chunk

    @cached_property
    def sparse_chunk_instructions(self) -> int:
        """As `chunk_instructions`, by way of the sparse loop, which does not count."""
        before = self._between({self.chunk_loop.first}, {self.sparse_loop.first})
        after = self._between(self.kernel.code.exits(self.sparse_loop), {self.main_loop.first})
        return before + after + self._end_of_chunk

    @cached_property
    def frame_instructions(self) -> int:
        """Before and after all chunks, by the shortest way."""
        code = self.kernel.code
        return self._between({0}, {self.chunk_loop.first}) + self._between(code.exits(self.chunk_loop), code.ends) + 1

    @property
    def _end_of_chunk(self) -> int:
        return self._between(self.kernel.code.exits(self.main_loop), {self.chunk_loop.last}) + 1

    def _between(self, firsts: Collection[int], lasts: Collection[int]) -> int:
        return self.kernel.code.distance(firsts, lasts)


def compile_kernels(source: Path, architecture: int) -> Path:
    """The machine code of a source; compiled again only after a source has changed."""
    cubin = CUBINS / f"{source.stem}.{architecture}.cubin"
    newest = max(path.stat().st_mtime for path in (REPOSITORY / "csrc").rglob("*") if path.is_file())
    if not cubin.exists() or cubin.stat().st_mtime < newest:
        nvcc = shutil.which("nvcc") or "nvcc"
        CUBINS.mkdir(parents=True, exist_ok=True)
        options = ["-std=c++17", "-O3", f"-I{REPOSITORY / 'csrc'}", f"-arch=sm_{architecture}", "-cubin"]
        subprocess.run([nvcc, *options, str(source), "-o", str(cubin)], check=True)
    return cubin


def read_linear_kernels(cubin: Path) -> dict[Variant, LinearKernel]:
    """Those in one file."""
    found = {}
    for kernel in read_cubin(cubin):
        if name := MANGLED.search(kernel.name):
            options = tuple(meaning for part, meaning in OPTIONS.items() if part in name["options"])
            variant = Variant(name["format"].lower(), int(name["bits"]), options, int(name["tiles"]))
            found[variant] = LinearKernel(variant, kernel)
    return found


def compiled_linear_kernels(architecture: int) -> dict[Variant, LinearKernel]:
    """All of them, compiled here."""
    sources = [path for path in sorted(SOURCES.glob("*.cu")) if "launch_linear<" in path.read_text(encoding="utf-8")]
    kernels: dict[Variant, LinearKernel] = {}
    for source in sources:
        kernels |= read_linear_kernels(compile_kernels(source, architecture))
    return kernels
