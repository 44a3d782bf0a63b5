from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from requant.recipe import Recipe
from requant.study import ABLATION, ablation, main
from tiny_model import TEXT, make_model, make_tokenizer


@pytest.mark.parametrize("method", ["rtn", "squeezellm"])
def test_every_row_is_evaluated_and_the_model_is_unchanged(method: str) -> None:
    model = make_model(initializer_range=0.1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    recipe = Recipe(method=method, samples=2, sequence_length=16, intervals=2)
    lines: list[str] = []
    result = ablation(
        model, make_tokenizer(), TEXT * 20, TEXT * 20, recipe, percent=2.0, eval_window=32, report=lines.append
    )
    assert list(result["perplexity"]) == ["unquantized", *(row.name for row in ABLATION)]
    assert len(lines) == len(ABLATION)
    assert len(set(result["perplexity"].values())) == len(ABLATION) + 1
    shares = list(result["coverage"].values())
    assert shares == sorted(shares)
    assert shares[0] > 0
    assert shares[-1] < 100
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_command_prints_json(tiny_source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text.txt"
    text.write_text(TEXT * 200)
    arguments = ["ablation", str(tiny_source), "--method", "rtn", "--text", str(text), "--calibration", str(text)]
    arguments += ["--samples", "1", "--sequence-length", "16", "--intervals", "1", "--windows", "1"]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["recipe"]["method"] == "rtn"
    assert main([*arguments, "--bits", "5"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
