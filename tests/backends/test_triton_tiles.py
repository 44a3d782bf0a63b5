"""Tiles as data: which one serves, what a file may say, and how better ones are found."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from pathlib import Path

import pytest
import torch

from requant_kernels.backends import triton as backend
from requant_kernels.backends.triton import tiles, tune
from requant_kernels.backends.triton.tiles import Kernel, Tile

KERNEL = Kernel("uniform", 4, 16)
TILE = Tile(rows=32, inputs=64, warps=2, stages=2, entries=16, programs=1)


def test_tokens_take_the_first_bucket_that_holds_them() -> None:
    buckets = [Kernel.of("lut", 3, tokens).tokens for tokens in (1, 16, 17, 33, 64, 128, 129, 5000)]
    assert buckets == [16, 16, 32, 64, 64, 128, 128, 128]


@pytest.mark.parametrize("architecture", ["cuda:80", "hip:gfx1100", "of the future"])
@pytest.mark.parametrize("format", ["uniform", "lut", "trellis"])
def test_every_kernel_has_a_tile(architecture: str, format: str) -> None:
    for tokens in tiles.TOKEN_BUCKETS:
        tile = tiles.tile_for(architecture, Kernel(format, 4, tokens))
        assert tile.rows * tokens <= tune.LARGEST_SUMS * 32 * tile.warps


def test_the_shipped_table_is_one_that_users_could_write(tmp_path: Path) -> None:
    file = tmp_path / "tiles.json"
    file.write_text(json.dumps(tiles.shipped()))
    assert tiles.read(file) == tiles.shipped()


def test_a_users_choice_goes_first_where_it_applies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "tiles.json"
    file.write_text(json.dumps(tiles.with_choice({}, "cuda:80", KERNEL, TILE)))
    elsewhere = tiles.tile_for("cuda:90", KERNEL)
    monkeypatch.setenv(tiles.SETTING, str(file))
    assert tiles.tile_for("cuda:80", KERNEL) == TILE
    assert tiles.tile_for("cuda:90", KERNEL) == elsewhere
    assert tiles.tile_for("cuda:80", Kernel("uniform", 4, 32)) != TILE


def test_choices_are_added_to_a_table() -> None:
    table = tiles.with_choice({}, "cuda:80", KERNEL, TILE)
    both = tiles.with_choice(table, "cuda:80", Kernel("uniform", 4, 32), TILE)
    assert both["cuda:80"]["uniform-4"].keys() == {"16", "32"}
    assert table["cuda:80"]["uniform-4"].keys() == {"16"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot read"),
        ('{"any": {"any": {"16": {"rows": 64}}}}', "any any 16: .*missing"),
        ('{"any": {"any": {"16": {"rows": 64, "colour": 1}}}}', "any any 16: .*colour"),
        (json.dumps({"any": {"any": {"16": {**vars(TILE), "rows": 24}}}}), "rows must be a power of two, 16 at least"),
        (json.dumps({"any": {"any": {"16": {**vars(TILE), "stages": 0}}}}), "stages must be a positive integer, got 0"),
    ],
)
def test_a_wrong_file_is_refused(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "tiles.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=f"REQUANT_TRITON_TILES: .*{message}"):
        tiles.read(file)


def test_candidates_fit_the_device() -> None:
    start = tiles.tile_for("cuda:80", KERNEL)
    few, many = (list(tune.candidates(KERNEL, start, size)) for size in (20 << 10, 200 << 10))
    assert set(few) < set(many)
    assert all(tile.rows // tile.warps in (16, 32) and tile.entries == start.entries for tile in many)
    assert start in many


def test_the_fastest_tile_that_runs_is_chosen() -> None:
    start = tiles.tile_for("cuda:80", KERNEL)
    choices = list(tune.candidates(KERNEL, start, 100 << 10))
    times = {tile: None if tile.warps == 1 else tile.rows + tile.inputs / tile.stages for tile in choices}
    best = tune.fastest(iter(choices), times.__getitem__)
    assert (best.warps, best.rows, best.inputs, best.stages) == (2, 32, 64, 4)
    with pytest.raises(RuntimeError, match="no tile fits"):
        tune.fastest(iter(choices), lambda tile: None)


class TestReasons:
    """Why the backend is not live."""

    @pytest.fixture(autouse=True)
    def on_a_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(backend, "INTERPRETED", False)
        monkeypatch.setattr(importlib.metadata, "version", lambda package: "3.7.1")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.delenv("CC", raising=False)
        monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}")

    def test_none(self) -> None:
        assert backend.unavailable_reason() is None

    def test_no_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(package: str) -> str:
            raise importlib.metadata.PackageNotFoundError(package)

        monkeypatch.setattr(importlib.metadata, "version", missing)
        assert backend.unavailable_reason() == "the package triton is missing; install requant-kernels[triton]"

    def test_an_old_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(importlib.metadata, "version", lambda package: "3.6.0")
        assert backend.unavailable_reason() == "triton 3.6.0 is older than 3.7, the oldest that is tested"

    def test_no_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in (torch.cuda, torch.xpu):
            monkeypatch.setattr(module, "is_available", lambda: False)
        assert backend.unavailable_reason() == "there is no GPU that Triton could use"
        monkeypatch.setattr(backend, "INTERPRETED", True)
        assert backend.unavailable_reason() is None

    def test_no_compiler(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shutil, "which", lambda program: None)
        assert "needs a C compiler" in (backend.unavailable_reason() or "")
        monkeypatch.setenv("CC", "my-compiler")
        assert "needs a C compiler" in (backend.unavailable_reason() or "")
        monkeypatch.setattr(shutil, "which", lambda program: program if program == "my-compiler" else None)
        assert backend.unavailable_reason() is None
