"""Directories of the tiny model, shared by the tests of checkpoints, integrations and commands."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_model import SHARD_SIZE, make_model, make_tokenizer, quantize_quickly

from requant_kernels.checkpoint import save_checkpoint


@pytest.fixture(scope="session", autouse=True)
def installed_package_in_subprocesses() -> Iterator[None]:
    """A program that a test starts imports what is installed, not the sources in the folder that it is started in."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("PYTHONSAFEPATH", "1")
        yield


@pytest.fixture(scope="session")
def tiny_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unquantized model directory; do not modify."""
    directory = tmp_path_factory.mktemp("tiny") / "model"
    make_model().save_pretrained(directory)
    make_tokenizer().save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quantized, sharded checkpoint; do not modify."""
    directory = tmp_path_factory.mktemp("tiny") / "quantized"
    save_checkpoint(quantize_quickly(make_model()), make_tokenizer(), directory, max_shard_size=SHARD_SIZE)
    return directory


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the quantized checkpoint to damage."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


@pytest.fixture
def source(tiny_source: Path, tmp_path: Path) -> Path:
    """A copy of the unquantized model to damage."""
    return Path(shutil.copytree(tiny_source, tmp_path / "source"))
