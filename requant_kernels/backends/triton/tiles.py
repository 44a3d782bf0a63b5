"""Tile sizes as data: which tile a kernel uses, by architecture, format and number of tokens.

`tiles.json` is shipped. A file of the same form that REQUANT_TRITON_TILES names goes before it; `tune.py` writes such
files. The first entry that exists serves, from the special to the general:

    {architecture: {"uniform-4": {"16": {"rows": 64, ...}}, "uniform": {...}, "any": {...}}, "any": {...}}
     cuda:80         format-bits    tokens, at most
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

SETTING = "REQUANT_TRITON_TILES"
ANY = "any"

TOKEN_BUCKETS = (16, 32, 64, 128)
"""Tokens of a tile. A call takes the first bucket that holds all its tokens, or several tiles of the last one."""

Table = Mapping[str, Mapping[str, Mapping[str, Mapping[str, int]]]]


@dataclass(frozen=True)
class Tile:
    """What one program of the linear kernel works on."""

    rows: int
    """Outputs; a multiple of 16."""
    inputs: int
    """Inputs decoded at a time; a power of two, 64 at least."""
    warps: int
    stages: int
    """Loads of so many tiles of inputs are under way."""
    entries: int
    """Sparse entries per 16 rows multiplied at a time; a power of two, 16 at least."""
    programs: int
    """Per multiprocessor: rows are split along their inputs until there are about so many programs."""


@dataclass(frozen=True)
class Kernel:
    """What a choice depends on, beside the architecture."""

    format: str
    bits: int
    tokens: int
    """One of TOKEN_BUCKETS."""

    @classmethod
    def of(cls, format: str, bits: int, tokens: int) -> Kernel:
        """The one that serves so many tokens."""
        return cls(format, bits, next((bucket for bucket in TOKEN_BUCKETS if tokens <= bucket), TOKEN_BUCKETS[-1]))

    @property
    def name(self) -> str:
        """Format and bits, as in the file."""
        return f"{self.format}-{self.bits}"


def tile_for(architecture: str, kernel: Kernel) -> Tile:
    """The tile for this kernel. Raises ValueError if the file that REQUANT_TRITON_TILES names cannot be used."""
    return _tile_for(os.environ.get(SETTING), architecture, kernel)


@functools.cache
def _tile_for(path: str | None, architecture: str, kernel: Kernel) -> Tile:
    tables = (*(() if path is None else (read(Path(path)),)), shipped())
    found = (
        table.get(place, {}).get(name, {}).get(str(kernel.tokens))
        for table in tables
        for place in (architecture, ANY)
        for name in (kernel.name, kernel.format, ANY)
    )
    return Tile(**next(entry for entry in found if entry is not None))


@functools.cache
def shipped() -> Table:
    """The table that comes with the package."""
    return json.loads(resources.files(__package__).joinpath("tiles.json").read_text("utf-8"))


def read(path: Path) -> Table:
    """A table of the user's. Raises ValueError, with the file and the place, unless every entry is a tile."""
    try:
        table = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{SETTING}: cannot read {path}: {error}") from error
    for architecture, kernels in table.items():
        for name, buckets in kernels.items():
            for bucket, entry in buckets.items():
                _check(entry, f"{SETTING}: {path}: {architecture} {name} {bucket}")
    return table


def _check(entry: Any, where: str) -> None:
    try:
        tile = Tile(**entry)
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from error
    powers = (
        ("rows", tile.rows, 16),
        ("inputs", tile.inputs, 64),
        ("entries", tile.entries, 16),
        ("warps", tile.warps, 1),
    )
    for name, value, least in powers:
        if type(value) is not int or value < least or value & (value - 1):
            raise ValueError(f"{where}: {name} must be a power of two, {least} at least, got {value}")
    for name, value in (("stages", tile.stages), ("programs", tile.programs)):
        if type(value) is not int or value < 1:
            raise ValueError(f"{where}: {name} must be a positive integer, got {value}")


def with_choice(table: Table, architecture: str, kernel: Kernel, tile: Tile) -> Table:
    """The table with one more choice."""
    kernels = dict(table.get(architecture, {}))
    kernels[kernel.name] = {**kernels.get(kernel.name, {}), str(kernel.tokens): asdict(tile)}
    return {**table, architecture: kernels}
