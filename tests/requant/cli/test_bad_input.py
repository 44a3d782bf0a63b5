"""Bad input: exit code 2, one clear line on stderr, no traceback, nothing written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from damage import LAYER, edit_json, edit_modules, edit_tensor, patch, truncate
from requant.cli import run

from requant_kernels.checkpoint import read_weight_headers

SHORT = ["--samples", "2", "--sequence-length", "32"]

# Name -> (what is done to a copy of the unquantized model, further options, what the line must say).
QUANTIZE: dict[str, tuple[Callable[[Path], object], list[str], str]] = {
    "not a model": (lambda d: (d / "config.json").unlink(), [], "is not a model"),
    "truncated": (lambda d: truncate(d / "model.safetensors", -1), [], "truncated"),
    "damaged header": (lambda d: patch(d / "model.safetensors", 9, b"\x00\xff"), [], "damaged header"),
    "NaN weights": (
        lambda d: edit_tensor(d, "model.layers.1.mlp.up_proj.weight", lambda t: t * float("nan")),
        SHORT,
        "layers.1.mlp.up_proj",
    ),
    "bits 5": (lambda d: None, ["--bits", "5"], "bits must be"),
    "bits not a number": (lambda d: None, ["--bits", "three"], "--bits"),
    "outlier-percent 150": (lambda d: None, ["--outlier-percent", "150"], "outlier_percent must be"),
    "unknown method": (lambda d: None, ["--method", "magic"], "method must be"),
    "unknown option": (lambda d: None, ["--magic"], "--magic"),
    "exponents": (lambda d: None, ["--outlier-exponents", "0;1"], "--outlier-exponents must be"),
    "text missing": (lambda d: None, ["--calibration", "no/text"], "no/text"),
    "text too short": (lambda d: (d / "short.txt").write_text("word"), [*SHORT, "--calibration", "short.txt"], "short"),
    "unknown device": (lambda d: None, ["--device", "quantum"], "--device quantum"),
    "json below a file": (lambda d: None, ["--json", "config.json/x"], "--json config.json/x"),
}


@pytest.mark.parametrize("name", QUANTIZE)
def test_quantize(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    damage, options, message = QUANTIZE[name]
    damage(source)
    monkeypatch.chdir(source)
    assert run(["quantize", str(source), str(tmp_path / "out"), *options]) == 2
    expect_one_line(capsys, message)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("command", ["quantize", "perplexity", "generate", "benchmark", "inspect", "verify"])
def test_missing_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    extra = {"quantize": [str(tmp_path / "out")], "generate": ["--prompt", "x"]}.get(command, [])
    assert run([command, str(tmp_path / "nowhere"), *extra]) == 2
    expect_one_line(capsys, "nowhere: no such directory")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["perplexity", "generate", "benchmark"])
def test_unknown_activations(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    extra = ["--prompt", "x"] if command == "generate" else []
    assert run([command, str(tiny_checkpoint), *extra, "--activations", "int4"]) == 2
    expect_one_line(capsys, "--activations must be one of 16bit, int8, got int4")


def test_existing_output(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = source / "out"
    out.mkdir()
    assert run(["quantize", str(source), str(out)]) == 2
    expect_one_line(capsys, "out: already exists")
    assert not any(out.iterdir())


def test_output_onto_the_model_itself(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["quantize", str(source), str(source), "--overwrite"]) == 2
    expect_one_line(capsys, "is the model itself")
    assert (source / "model.safetensors").exists()


def test_no_permission_to_write(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["quantize", str(source), str(source / "config.json" / "out")]) == 2
    expect_one_line(capsys, "cannot be written")


# Name -> (what is done to a copy of the quantized checkpoint, what the line must say).
CHECKPOINT: dict[str, tuple[Callable[[Path], object], str]] = {
    "unknown format version": (
        lambda c: edit_json(c / "config.json", lambda j: j["quantization_config"].update(format_version=9)),
        "format_version 9 is unknown",
    ),
    "missing module": (lambda c: edit_modules(c, lambda m: m.pop(LAYER)), "lacks the module"),
    "columns out of range": (
        lambda c: edit_tensor(c, f"{LAYER}.columns", lambda t: (t.int() + 60).to(t.dtype)),
        "columns must lie in 0..63",
    ),
    "truncated": (lambda c: truncate(sorted(c.glob("*.safetensors"))[0], -7), "truncated"),
}


@pytest.mark.parametrize("command", ["perplexity", "generate", "benchmark"])
@pytest.mark.parametrize("name", CHECKPOINT)
def test_checkpoint(checkpoint: Path, capsys: pytest.CaptureFixture[str], name: str, command: str) -> None:
    damage, message = CHECKPOINT[name]
    damage(checkpoint)
    assert run([command, str(checkpoint), *(["--prompt", "x"] if command == "generate" else [])]) == 2
    expect_one_line(capsys, message)


def test_verify_finds_a_flipped_bit(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", str(checkpoint)]) == 0
    capsys.readouterr()
    tensor = read_weight_headers(checkpoint)[f"{LAYER}.codes"]
    content = bytearray(tensor.file.read_bytes())
    content[tensor.begin + 3] ^= 0x40
    tensor.file.write_bytes(content)
    assert run(["verify", str(checkpoint)]) == 2
    expect_one_line(capsys, f"{tensor.file}: tensor {LAYER}.codes")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["perplexity", "--window", "100000"], "too short"),
        (["perplexity", "--bos", "sometimes"], "bos must be"),
        (["perplexity", "--dtype", "int8"], "--dtype must be"),
        (["generate", "--prompt", ""], "the prompt is empty"),
        (["generate"], "--prompt"),
        (["benchmark", "--decode", "0"], "--decode"),
        (["benchmark", "--baseline", "/no/where"], "no such directory"),
    ],
)
def test_bad_options(
    tiny_checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    (tmp_path / "text").write_text("the fox " * 100)
    text = ["--text", str(tmp_path / "text")] if arguments[0] == "perplexity" else []
    assert run([arguments[0], str(tiny_checkpoint), *arguments[1:], *text]) == 2
    expect_one_line(capsys, message)


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["magic"]) == 2
    expect_one_line(capsys, "magic")


def expect_one_line(capsys: pytest.CaptureFixture[str], message: str) -> None:
    """Progress and estimates may come before; the fault is the last line, alone, and no traceback is near it."""
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert lines[-1].startswith("requant: ")
    assert message in lines[-1]
    assert "Traceback" not in captured.err
    assert sum(line.startswith("requant: ") for line in lines) == 1
    assert captured.out == ""
