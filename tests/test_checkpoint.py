"""A checkpoint is written whole or not at all, and refused with file and reason if anything about it is wrong."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from damage import (
    LAYER,
    drop_tensor,
    edit_json,
    edit_modules,
    edit_tensor,
    enlarge_a_tensor,
    last_shard,
    overlap_tensors,
    patch,
    rewrite_header,
    truncate,
)
from tiny_model import make_model, make_tokenizer, quantize_quickly

from requant_kernels.atomic_directory import atomic_directory, check_output_directory
from requant_kernels.checkpoint import (
    CHECKSUMS_FILE,
    INDEX_FILE,
    CheckpointError,
    read_weight_headers,
    save_checkpoint,
    validate_structure,
    verify,
)


def test_saved_checkpoint_is_complete_and_verifies(tiny_checkpoint: Path) -> None:
    names = {file.name for file in tiny_checkpoint.iterdir()}
    assert {"config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja", "README.md"} <= names
    assert {CHECKSUMS_FILE, INDEX_FILE} <= names
    checkpoint = verify(tiny_checkpoint)
    assert len(checkpoint.config.modules) == 14
    assert len(list(tiny_checkpoint.glob("model-*.safetensors"))) > 1
    checksums = json.loads((tiny_checkpoint / CHECKSUMS_FILE).read_text())
    assert {name for names in checksums["files"].values() for name in names} == set(checkpoint.tensors)


def test_model_card_opens_with_the_import(tiny_checkpoint: Path) -> None:
    body = (tiny_checkpoint / "README.md").read_text().split("---\n")[2]
    assert body.split("```python\n")[1].startswith("import requant_kernels")
    assert "AutoModelForCausalLM.from_pretrained" in body.splitlines()[3]


def test_saving_twice_gives_equal_bytes(tmp_path: Path) -> None:
    contents = []
    for directory in (tmp_path / "a", tmp_path / "b"):
        save_checkpoint(quantize_quickly(make_model(3)), make_tokenizer(), directory)
        contents.append({file.name: file.read_bytes() for file in directory.iterdir()})
    assert contents[0] == contents[1]


def test_weights_are_as_readable_as_the_config(tiny_checkpoint: Path) -> None:
    modes = {file.stat().st_mode for file in tiny_checkpoint.iterdir()}
    assert len(modes) == 1


def test_unquantized_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no requant quantization_config"):
        save_checkpoint(make_model(), None, tmp_path / "out")
    assert not any(tmp_path.iterdir())


# Every entry damages a good checkpoint in one way: (damage, what the message must say).
STRUCTURAL_DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda c: (c / "config.json").unlink(), "config.json: cannot be read"),
    "config is not JSON": (lambda c: (c / "config.json").write_text("{"), "config.json: is not valid JSON"),
    "no quantization config": (
        lambda c: edit_json(c / "config.json", lambda j: j.pop("quantization_config")),
        "has no quantization_config",
    ),
    "unknown version": (
        lambda c: edit_json(c / "config.json", lambda j: j["quantization_config"].update(format_version=2)),
        "format_version 2 is unknown",
    ),
    "unknown field": (
        lambda c: edit_json(c / "config.json", lambda j: j["quantization_config"].update(extra=1)),
        "unknown field extra",
    ),
    "missing field": (
        lambda c: edit_json(c / "config.json", lambda j: j["quantization_config"].pop("recipe")),
        "missing field recipe",
    ),
    "unknown field of a module": (
        lambda c: edit_modules(c, lambda m: m[LAYER].update(extra=1)),
        f"module {LAYER}: unknown field extra",
    ),
    "missing field of a module": (
        lambda c: edit_modules(c, lambda m: m[LAYER].pop("nnz")),
        f"module {LAYER}: missing field nnz",
    ),
    "module missing from the config": (
        lambda c: edit_modules(c, lambda m: m.pop(LAYER)),
        f"tensor {LAYER}.codes is unexpected: config.json lacks the module",
    ),
    "module missing from the files": (
        lambda c: edit_modules(c, lambda m: m.update({"model.layers.9": m[LAYER]})),
        "tensor model.layers.9.codes is missing",
    ),
    "absurd number of entries": (
        lambda c: edit_modules(c, lambda m: m[LAYER].update(nnz=6000, outliers=6000)),
        r"tensor \S+ is \[61\] .* expects \[6000\]",
    ),
    "wrong shape": (
        lambda c: edit_tensor(c, f"{LAYER}.codes", lambda t: t[:-1].contiguous()),
        f"tensor {LAYER}.codes is .* expects",
    ),
    "wrong dtype": (
        lambda c: edit_tensor(c, f"{LAYER}.table", lambda t: t.float()),
        f"tensor {LAYER}.table is .*float32.* expects .*bfloat16",
    ),
    "unquantized tensor missing": (
        lambda c: drop_tensor(c, "model.norm.weight"),
        "tensor model.norm.weight is missing",
    ),
    "shard missing": (lambda c: last_shard(c).unlink(), "cannot be read: No such file"),
    "shard truncated": (lambda c: truncate(last_shard(c), -1), "truncated or damaged"),
    "shard extended": (lambda c: last_shard(c).open("ab").write(b"\0"), "truncated or damaged"),
    "shard cut within its header": (lambda c: truncate(last_shard(c), 20), "truncated or damaged"),
    "shard empty": (lambda c: truncate(last_shard(c), 0), "truncated or damaged"),
    "header too long": (
        lambda c: patch(last_shard(c), 0, b"\xff\xff\xff\xff\xff\xff\xff\x7f"),
        "truncated or damaged: the header claims",
    ),
    "header is not JSON": (lambda c: patch(last_shard(c), 8, b"X"), "damaged header"),
    "header with overlapping tensors": (
        lambda c: rewrite_header(last_shard(c), overlap_tensors),
        "damaged header: tensor",
    ),
    "header with a size beyond the file": (
        lambda c: rewrite_header(last_shard(c), enlarge_a_tensor),
        "cannot hold shape|begins at|truncated",
    ),
    "index is not JSON": (lambda c: (c / INDEX_FILE).write_text("["), "index.json: is not valid JSON"),
    "index points outside": (
        lambda c: edit_json(c / INDEX_FILE, lambda j: j["weight_map"].update({f"{LAYER}.codes": "../x.safetensors"})),
        "is not a plain file name",
    ),
    "index names a tensor that no file has": (
        lambda c: edit_json(
            c / INDEX_FILE, lambda j: j["weight_map"].update(ghost=next(iter(j["weight_map"].values())))
        ),
        "tensor ghost of .* is missing",
    ),
}


@pytest.mark.parametrize("name", STRUCTURAL_DAMAGE)
def test_structural_damage_is_named(checkpoint: Path, name: str) -> None:
    damage, message = STRUCTURAL_DAMAGE[name]
    damage(checkpoint)
    with pytest.raises(CheckpointError, match=message) as caught:
        validate_structure(checkpoint)
    assert "\n" not in str(caught.value)
    assert str(checkpoint) in str(caught.value)


def test_any_flipped_bit_is_found_and_located(checkpoint: Path, pick: random.Random) -> None:
    for name, tensor in read_weight_headers(checkpoint).items():
        position, bit = pick.randrange(tensor.begin, tensor.end), pick.randrange(8)
        with tensor.file.open("r+b") as stream:
            stream.seek(position)
            original = stream.read(1)
            stream.seek(position)
            stream.write(bytes([original[0] ^ 1 << bit]))
            stream.flush()
            with pytest.raises(CheckpointError) as caught:
                verify(checkpoint)
            stream.seek(position)
            stream.write(original)
        assert f"{tensor.file}: tensor {name}: sha256 differs" in str(caught.value)
    verify(checkpoint)


def test_verify_needs_checksums(checkpoint: Path) -> None:
    (checkpoint / CHECKSUMS_FILE).unlink()
    validate_structure(checkpoint)
    with pytest.raises(CheckpointError, match=f"{CHECKSUMS_FILE}: missing"):
        verify(checkpoint)


@pytest.fixture
def writable_parent(tmp_path: Path) -> Path:
    parent = tmp_path / "parent"
    parent.mkdir()
    return parent


def test_existing_output_is_refused_and_untouched(writable_parent: Path) -> None:
    out = writable_parent / "out"
    out.mkdir()
    (out / "config.json").write_text("mine")
    with pytest.raises(FileExistsError, match="already exists"):
        save_checkpoint(quantize_quickly(make_model()), None, out)
    assert [file.read_text() for file in out.iterdir()] == ["mine"]


def test_overwrite_replaces_a_model_only(writable_parent: Path) -> None:
    out = writable_parent / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="refusing to overwrite"):
        check_output_directory(out, overwrite=True)
    (out / "config.json").write_text("{}")
    with atomic_directory(out, overwrite=True) as temporary:
        (temporary / "config.json").write_text("new")
        assert (out / "thesis.tex").exists(), "the old one stays until the new one is complete"
    assert {file.name for file in out.iterdir()} == {"config.json"}
    assert [file.name for file in writable_parent.iterdir()] == ["out"]


@pytest.mark.parametrize("problem", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_behind_on_any_exception(writable_parent: Path, problem: type[BaseException]) -> None:
    def write_half() -> None:
        with atomic_directory(writable_parent / "new" / "out") as temporary:
            (temporary / "half").write_text("written")
            raise problem

    with pytest.raises(problem):
        write_half()
    assert not any(writable_parent.iterdir())


def test_output_below_a_regular_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PermissionError, match=r"cannot be written.*Not a directory"):
        check_output_directory(tmp_path / "file" / "out")


def test_missing_parents_are_made(tmp_path: Path, tiny_checkpoint: Path) -> None:
    out = tmp_path / "a" / "b" / "out"
    with atomic_directory(out) as temporary:
        shutil.copy(tiny_checkpoint / "config.json", temporary)
    assert (out / "config.json").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
