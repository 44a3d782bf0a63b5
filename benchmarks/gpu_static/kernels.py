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

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = REPOSITORY / "csrc" / "cuda"
CUBINS = REPOSITORY / "build" / "gpu_static"

# As in csrc/cuda/parameters.cuh.
THREADS = 128
WARPS = 4
TILE_TOKENS = 8
TILE_ROWS = 16
SPAN_INPUTS = 128
WEIGHTS_PER_LANE = TILE_ROWS * SPAN_INPUTS // 32
"""In one turn of the main loop: a span of 16 rows by 128 inputs (csrc/cuda/linear.cuh)."""

MANGLED = re.compile(
    r"linear_kernelI.*?(?P<format>Uniform|Lut|Trellis)WeightsILi(?P<bits>\d)E(?P<options>.*?)"
    r"\d+CtaShapeILi(?P<tiles>\d)ELi(?P<row_warps>\d)EEE"
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
    row_warps: int
    """Warps of one CTA along its rows."""

    def __str__(self) -> str:
        shape = (f"{TILE_TOKENS * self.token_tiles} tokens", f"{TILE_ROWS * self.row_warps} rows")
        return ", ".join((f"{self.format} {self.bits}", *self.options, *shape))

    @classmethod
    def parse(cls, text: str) -> Variant:
        """From what `str` makes of it."""
        first, *options, tokens, rows = text.split(", ")
        format, bits = first.split()
        token_tiles, row_warps = int(tokens.split()[0]) // TILE_TOKENS, int(rows.split()[0]) // TILE_ROWS
        return cls(format, int(bits), tuple(options), token_tiles, row_warps)


class Figures(NamedTuple):
    """What one linear kernel occupies, and instructions of one of its warps."""

    registers: int
    """Of one thread."""
    spill_bytes: int
    shared_bytes: int
    """Static, of one CTA."""
    main_turn: int
    """One turn of the main loop, a span, by the longest way."""
    chunk: int
    """Once for every chunk of x, around the main loop, by the shortest way."""
    frame: int
    """Before and after all chunks, by the shortest way."""
    sparse_turn: int
    """One turn of the sparse loop, one entry for every slot, by the longest way."""
    sparse_chunk: int
    """As `chunk`, by way of the sparse loop, which does not count."""
    sparse_frame: int
    """As `frame`, by way of clearing the sparse sums and adding them up."""

    @property
    def instructions_per_weight(self) -> float:
        """Of one thread, in the main loop."""
        return self.main_turn / WEIGHTS_PER_LANE


class LinearKernel:
    """The machine code of one linear kernel for one architecture."""

    def __init__(self, variant: Variant, kernel: Kernel) -> None:
        self.variant = variant
        self.kernel = kernel
        self.main_loop = kernel.code.loop_with("tensor")
        self.chunk_loop = kernel.code.loop_around(self.main_loop)
        self.sparse_loop = kernel.code.loop_with("ldg", "fp32", "sts")

    @cached_property
    def main_turn(self) -> Counter[str]:
        """Instructions of one turn of the main loop by class."""
        return self.kernel.code.classes(self.kernel.code.turn(self.main_loop))

    @cached_property
    def figures(self) -> Figures:
        """Counted in the code."""
        kernel = self.kernel
        return Figures(
            kernel.registers,
            kernel.spill_bytes,
            kernel.shared_bytes,
            main_turn=self.main_turn.total(),
            chunk=self._chunk,
            frame=self._frame,
            sparse_turn=len(kernel.code.turn(self.sparse_loop)),
            sparse_chunk=self._sparse_chunk,
            sparse_frame=self._sparse_frame,
        )

    @property
    def _chunk(self) -> int:
        return self._between({self.chunk_loop.first}, {self.main_loop.first}) + self._end_of_chunk

    @property
    def _sparse_chunk(self) -> int:
        before = self._between({self.chunk_loop.first}, {self.sparse_loop.first})
        after = self._between(self.kernel.code.exits(self.sparse_loop), {self.main_loop.first})
        return before + after + self._end_of_chunk

    @property
    def _end_of_chunk(self) -> int:
        return self._between(self.kernel.code.exits(self.main_loop), {self.chunk_loop.last}) + 1

    @property
    def _frame(self) -> int:
        code = self.kernel.code
        return self._between({0}, {self.chunk_loop.first}) + self._between(code.exits(self.chunk_loop), code.ends) + 1

    @property
    def _sparse_frame(self) -> int:
        code, chunks = self.kernel.code, self.chunk_loop
        cleared = max(index for index in code.outside_loops if index < chunks.first and code.kind(index) == "sts")
        # Two lanes share a row's sums; all other shuffles are by index.
        added = {index for index, line in enumerate(code.instructions) if line.operation.startswith("SHFL.BFLY")}
        before = self._between({0}, {cleared}) + self._between({cleared}, {chunks.first})
        return before + self._between(code.exits(chunks), added) + self._between(added, code.ends) + 1

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
            shape = int(name["tiles"]), int(name["row_warps"])
            variant = Variant(name["format"].lower(), int(name["bits"]), options, *shape)
            found[variant] = LinearKernel(variant, kernel)
    return found


def compiled_linear_kernels(architecture: int) -> dict[Variant, LinearKernel]:
    """All of them, compiled here."""
    sources = [path for path in sorted(SOURCES.glob("*.cu")) if "launch_linear<" in path.read_text(encoding="utf-8")]
    kernels: dict[Variant, LinearKernel] = {}
    for source in sources:
        kernels |= read_linear_kernels(compile_kernels(source, architecture))
    return kernels
