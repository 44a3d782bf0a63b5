"""Ctrl-C: exit code 130 and nothing left behind. SIGTERM likewise, with its own code."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import requant.pipeline
from requant.cli import run

# Hours of work, so that the signal comes in the middle.
ENDLESS = ["--samples", "400", "--sequence-length", "256", "--intervals", "1000"]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_during_quantization(tiny_source: Path, tmp_path: Path, sent: signal.Signals, code: int) -> None:
    command = [sys.executable, "-m", "requant", "quantize", str(tiny_source), str(tmp_path / "new" / "out"), *ENDLESS]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background makes them, and so us, ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("estimate:"):
            break
    process.send_signal(sent)
    rest = process.stderr.read()
    assert process.wait(timeout=60) == code
    assert "Traceback" not in rest
    assert not any(tmp_path.iterdir())


def test_interrupt_while_saving(
    tiny_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = requant.pipeline.quantize

    def quantize_then_fail_to_save(*arguments: object, **options: object) -> object:
        result = original(*arguments, **options)

        def interrupted(directory: Path, **_options: object) -> None:
            (Path(directory) / "model.safetensors").write_text("half")
            raise KeyboardInterrupt

        monkeypatch.setattr(result.model, "save_pretrained", interrupted)
        return result

    monkeypatch.setattr(requant.pipeline, "quantize", quantize_then_fail_to_save)
    assert run(["quantize", str(tiny_source), str(tmp_path / "out"), "--method", "rtn"]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
