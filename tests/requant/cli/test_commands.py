"""Every command on the tiny model: what it prints, and what it writes as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from requant.cli import EXAMPLES, run

from requant_kernels.checkpoint import verify

QUICK = ["--samples", "2", "--sequence-length", "32", "--intervals", "2", "--outlier-exponents", "0,1"]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "text.txt"
    file.write_text("The quick brown fox jumps over the lazy dog while the dog dreams of foxes. " * 40)
    return file


def run_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    """Runs with `--json -`; stdout must be JSON and nothing else."""
    assert run([*map(str, arguments), "--json", "-"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("method", ["rtn", "squeezellm"])
def test_quantize_then_everything(
    tiny_source: Path, tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    out = tmp_path / "out"
    percents = ["--outlier-percent", "1", "--significant-percent", "0.5"]
    options = ["--method", method, "--calibration", text, *QUICK, *percents]
    made = run_json(capsys, "quantize", tiny_source, out, *options)
    assert made["recipe"]["method"] == method
    contents = run_json(capsys, "inspect", out)
    assert contents["total"]["true_bits"] == pytest.approx(made["true_bits"])
    assert contents["total"]["paper_bits"] == pytest.approx(made["paper_bits"])
    assert contents["total"]["outliers"] > contents["total"]["significant"] > 0
    assert run_json(capsys, "verify", out)["layers"] == 14
    measured = run_json(capsys, "perplexity", out, "--text", text, "--window", "64", "--windows", "3")
    assert measured["tokens"] == 3 * 63
    assert measured["true_bits"] == pytest.approx(made["true_bits"])
    spoken = run_json(capsys, "generate", out, "--prompt", "The fox", "--tokens", "5")
    assert 1 <= spoken["tokens"] <= 5


def test_an_8_bit_head_from_quantizing_to_speaking(
    tiny_source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    made = run_json(capsys, "quantize", tiny_source, out, "--method", "rtn", "--head-bits", "8")
    assert made["recipe"]["head_bits"] == 8
    layers = {layer["name"]: layer["bits"] for layer in run_json(capsys, "inspect", out)["layers"]}
    assert layers["model.embed_tokens"] == 8
    assert run_json(capsys, "verify", out)["layers"] == 15
    assert run_json(capsys, "generate", out, "--prompt", "The fox", "--tokens", "2")["tokens"] >= 1
    plain, merged = (
        run_json(capsys, "generate", out, "--prompt", "The fox", "--tokens", "5", *option)["text"]
        for option in ([], ["--merge"])
    )
    assert plain == merged
    measured = run_json(capsys, "benchmark", out, "--prefill", "4", "--decode", "1", "--merge")
    assert {row["backend"] for row in measured["results"]} == {"cpu", "reference"}


def test_int8_activations_on_request(tiny_checkpoint: Path, text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measure = ["perplexity", tiny_checkpoint, "--text", text, "--window", "64", "--windows", "2"]
    exact, same, rounded = (
        run_json(capsys, *measure, *option)["perplexity"]
        for option in ([], ["--activations", "16bit"], ["--activations", "int8"])
    )
    assert exact == same != rounded == pytest.approx(exact, rel=0.05)
    option = ["--activations", "int8", "--merge"]
    assert run_json(capsys, "generate", tiny_checkpoint, "--prompt", "The fox", "--tokens", "2", *option)["tokens"] >= 1
    measured = run_json(capsys, "benchmark", tiny_checkpoint, "--prefill", "4", "--decode", "1", *option)
    assert {row["backend"] for row in measured["results"]} == {"cpu", "reference"}


def test_quantize_twice_gives_equal_bytes(tiny_source: Path, tmp_path: Path, text: Path) -> None:
    contents = []
    for place in ("a", "b"):
        out = tmp_path / place
        assert run(["quantize", str(tiny_source), str(out), "--calibration", str(text), *QUICK]) == 0
        contents.append({file.name: file.read_bytes() for file in out.iterdir()})
    assert contents[0] == contents[1]


def test_overwrite(tiny_source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(["quantize", str(tiny_source), str(out), "--method", "rtn", "--bits", "4"]) == 0
    assert run(["quantize", str(tiny_source), str(out), "--method", "rtn", "--bits", "2"]) == 2
    assert run(["quantize", str(tiny_source), str(out), "--method", "rtn", "--bits", "2", "--overwrite"]) == 0
    assert {spec.bits for spec in verify(out).config.modules.values()} == {2}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_dry_run_writes_nothing(
    tiny_source: Path, tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    forecast = run_json(capsys, "quantize", tiny_source, out, "--calibration", text, *QUICK, "--dry-run")
    assert forecast["estimate"]["memory_bytes"] > 0
    assert forecast["estimate"]["seconds"] > 0
    assert not out.exists()
    assert run(["quantize", str(tiny_source), str(out), "--calibration", str(text), *QUICK, "--dry-run"]) == 0
    assert "GiB at the peak" in capsys.readouterr().out


def test_skipped_layers_stay_as_they_are(tiny_source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(["quantize", str(tiny_source), str(out), "--method", "rtn", "--skip", "*.mlp.*"]) == 0
    assert all("self_attn" in name for name in verify(out).config.modules)


def test_perplexity_of_the_unquantized_model(tiny_source: Path, text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured = run_json(capsys, "perplexity", tiny_source, "--text", text, "--window", "64", "--windows", "2")
    assert measured["paper_bits"] == measured["true_bits"] == 16
    assert run(["perplexity", str(tiny_source), "--text", str(text), "--window", "64", "--windows", "2"]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("perplexity", "tokens", "paper_bits", "true_bits", "16.000"))


def test_benchmark_measures_every_live_backend(
    tiny_checkpoint: Path, tiny_source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--prefill", "8", "--decode", "4", "--baseline", tiny_source]
    result = run_json(capsys, "benchmark", tiny_checkpoint, *options)
    baseline, *quantized = result["results"]
    assert baseline["name"] == str(tiny_source)
    assert baseline["backend"] is None
    assert baseline["speed_up"] == 1
    assert "reference" in {each["backend"] for each in quantized}
    for each in result["results"]:
        assert each["total_ms"] == pytest.approx(each["prefill_ms"] + each["decode_ms"])
        assert each["speed_up"] == pytest.approx(baseline["total_ms"] / each["total_ms"])
    assert run(["benchmark", str(tiny_source), "--prefill", "8", "--decode", "4"]) == 0
    assert "total ms" in capsys.readouterr().out


def test_generate_streams_text_and_speed(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["generate", str(tiny_checkpoint), "--prompt", "The fox", "--tokens", "5"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("The fox")
    assert "tokens/s" in captured.err
    sampled = ["--prompt", "The fox", "--tokens", "5", "--temperature", "1", "--seed", "7", "--chat"]
    assert (
        run_json(capsys, "generate", tiny_checkpoint, *sampled)["text"]
        == (run_json(capsys, "generate", tiny_checkpoint, *sampled)["text"])
    )


def test_inspect_lists_layers_in_natural_order(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(tiny_checkpoint)]) == 0
    shown = capsys.readouterr().out
    assert shown.index("layers.0.mlp.up_proj") < shown.index("layers.1.mlp.down_proj") < shown.index("all 14 layers")
    contents = run_json(capsys, "inspect", tiny_checkpoint)
    assert contents["total"]["quantized_bytes"] == sum(layer["bytes"] for layer in contents["layers"])
    assert contents["recipe"] == {"method": "rtn"}


def test_env_names_the_backends(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_json(capsys, "env")["backends"]["reference"] == "live"
    assert run(["env"]) == 0
    assert "torch" in capsys.readouterr().out


def test_json_goes_to_a_file_beside_the_table(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["verify", str(tiny_checkpoint), "--json", str(tmp_path / "result.json")]) == 0
    assert "intact" in capsys.readouterr().out
    assert json.loads((tmp_path / "result.json").read_text())["layers"] == 14


@pytest.mark.parametrize("command", [command.__name__ for command in EXAMPLES])
def test_help_has_an_example(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert run([command, "--help"]) == 0
    assert f"Example: requant {command}" in capsys.readouterr().out


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys, requant.cli\n"
        "assert requant.cli.run(['quantize', '--help']) == 0\n"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL, timeout=60)


def test_the_working_directory_is_never_written(
    tiny_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir(mode=0o555)
    monkeypatch.chdir(here)
    assert run(["quantize", str(tiny_source), str(tmp_path / "out"), "--method", "rtn"]) == 0
    assert run(["verify", str(tmp_path / "out")]) == 0
    assert run(["generate", str(tmp_path / "out"), "--prompt", "The fox", "--tokens", "2"]) == 0
    assert not any(here.iterdir())
