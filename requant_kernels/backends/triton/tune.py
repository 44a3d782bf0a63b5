"""Finds the tiles that are fastest on the GPU of this machine, and writes them into a file for REQUANT_TRITON_TILES.

    python -m requant_kernels.backends.triton.tune tiles.json
    REQUANT_TRITON_TILES=tiles.json python my_program.py

Only this command tunes: a program that uses the kernels never measures anything, so nothing is disturbed while a CUDA
graph is captured, and two runs of a program use the same tiles.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from requant_kernels import DenseSparseLinear
from requant_kernels.backends.triton import tiles
from requant_kernels.backends.triton.tiles import TOKEN_BUCKETS, Kernel, Tile
from requant_kernels.operands import WeightOperands

ROWS = (16, 32, 64, 128)
INPUTS = (64, 128, 256)
WARPS = (1, 2, 4, 8)
STAGES = (1, 2, 3, 4)

LARGEST_SUMS = 64
"""Per thread, in registers."""

LARGEST_WEIGHTS = 128
"""Decoded at a time per thread, in registers."""

SHAPES = ((4096, 4096), (14336, 4096), (4096, 14336))
"""(out_features, in_features): attention and MLP of an 8B model."""

FORMATS = {"uniform": (2, 3, 4, 8), "lut": (2, 3, 4), "trellis": (2, 3, 4)}


def candidates(kernel: Kernel, start: Tile, shared_memory_bytes: int) -> Iterator[Tile]:
    """Tiles worth measuring: a warp has 16 rows or 32, and what a thread and a program hold fits. Entries and programs
    are those of `start`.
    """
    for rows, inputs, warps, stages in itertools.product(ROWS, INPUTS, WARPS, STAGES):
        threads = 32 * warps
        staged_bytes = stages * inputs * (2 * kernel.tokens + rows * kernel.bits // 8)
        if (
            rows // warps in (16, 32)
            and rows * kernel.tokens <= LARGEST_SUMS * threads
            and rows * inputs <= LARGEST_WEIGHTS * threads
            and staged_bytes <= shared_memory_bytes
        ):
            yield replace(start, rows=rows, inputs=inputs, warps=warps, stages=stages)


def fastest(choices: Iterator[Tile], measure_ms: Callable[[Tile], float | None]) -> Tile:
    """The tile with the least time; `measure_ms` returns None for one that the device cannot run.

    Raises RuntimeError if it can run none.
    """
    times = {tile: milliseconds for tile in choices if (milliseconds := measure_ms(tile)) is not None}
    if not times:
        raise RuntimeError("no tile fits this device")
    return min(times, key=times.__getitem__)


def measure_ms(weights: Sequence[WeightOperands], kernel: Kernel, multiprocessors: int, tile: Tile) -> float | None:
    """Total time of the weights' products with so many tokens on the current device; None if the tile needs more
    registers or shared memory than it has.
    """
    from triton.runtime.errors import OutOfResources
    from triton.testing import do_bench

    from requant_kernels.backends.triton.launch import linear_with

    total = 0.0
    for weight in weights:
        x = torch.randn(kernel.tokens, weight.in_features, dtype=torch.float16, device=weight.codes.device)
        try:
            total += do_bench(functools.partial(linear_with, x, weight, None, kernel, tile, multiprocessors))
        except OutOfResources:
            return None
    return total


def main(arguments: Sequence[str] | None = None) -> None:
    """Adds this device's tiles to the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="JSON; what it says of other architectures stays")
    parser.add_argument("--format", choices=FORMATS, action="append", help="only this one; may be repeated")
    options = parser.parse_args(arguments)
    from requant_kernels.backends.triton import INTERPRETED, launch

    if INTERPRETED or not torch.cuda.is_available():
        parser.error("there is no GPU to measure")
    device = torch.device("cuda", torch.cuda.current_device())
    target, shared_memory_bytes = launch.target_of(device), launch.shared_memory_bytes(device)
    table = tiles.read(options.file) if options.file.exists() else {}
    for format in options.format or FORMATS:
        for bits in FORMATS[format]:
            weights = [
                DenseSparseLinear.from_linear(nn.Linear(*shape[::-1], bias=False, device=device), format, bits).operands
                for shape in SHAPES
            ]
            for tokens in TOKEN_BUCKETS:
                kernel = Kernel(format, bits, tokens)
                choices = candidates(kernel, tiles.tile_for(target.architecture, kernel), shared_memory_bytes)
                tile = fastest(choices, functools.partial(measure_ms, weights, kernel, target.multiprocessors))
                print(f"{target.architecture} {kernel.name}, {tokens} tokens: {tile}")
                table = tiles.with_choice(table, target.architecture, kernel, tile)
                options.file.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
