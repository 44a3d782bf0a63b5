"""The demonstration end to end on the tiny model, and its verdict on the order of the results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import requant.demo
from requant.cli import run
from requant.demo import UNQUANTIZED, WAYS, faults_of_order


def make_rows(perplexities: list[float], speeds: list[float]) -> list[dict[str, object]]:
    names = [UNQUANTIZED, *(way.name for way in WAYS)]
    return [
        {"method": name, "perplexity": perplexity, "decode_tokens_per_second": speed}
        for name, perplexity, speed in zip(names, perplexities, speeds, strict=True)
    ]


def test_the_right_order_has_no_faults() -> None:
    assert faults_of_order(make_rows([17, 99, 35, 25], [30, 40, 45, 31])) == []


@pytest.mark.parametrize(
    ("perplexities", "speeds", "fault"),
    [
        ([17, 30, 35, 25], [30, 40, 40, 40], "WRONG ORDER: SqueezeLLM, dense only"),
        ([17, 99, 35, 35], [30, 40, 40, 40], "WRONG ORDER: SqueezeLLM + ReQuant"),
        ([17, 99, 35, float("nan")], [30, 40, 40, 40], "WRONG ORDER: SqueezeLLM + ReQuant"),
        ([17, 99, 35, 25], [30, 40, 30, 40], "TOO SLOW: SqueezeLLM, dense only"),
    ],
)
def test_a_wrong_order_is_named(perplexities: list[float], speeds: list[float], fault: str) -> None:
    faults = faults_of_order(make_rows(perplexities, speeds))
    assert len(faults) == 1
    assert faults[0].startswith(fault)


def test_demo_runs_the_whole_way(
    tiny_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"WINDOWS": 1, "PREFILL_TOKENS": 16, "DECODE_TOKENS": 4, "GENERATED_TOKENS": 4}.items():
        monkeypatch.setattr(requant.demo, name, value)
    code = run(["demo", "--model", str(tiny_source), "--json", str(tmp_path / "demo.json")])
    outcome = json.loads((tmp_path / "demo.json").read_text())
    assert code == (0 if outcome["order_is_right"] else 1), "random weights have no right order"
    assert [row["method"] for row in outcome["rows"]] == [UNQUANTIZED, *(way.name for way in WAYS)]
    unquantized, rtn, squeezellm, requant_row = outcome["rows"]
    assert unquantized["true_bits"] == 16
    assert rtn["paper_bits"] > 3
    assert squeezellm["paper_bits"] == 3
    assert requant_row["paper_bits"] == pytest.approx(3 + 48 * 0.005, rel=0.02)
    assert set(outcome["texts"]) == {row["method"] for row in outcome["rows"]}
    shown = capsys.readouterr()
    assert "decode tok/s" in shown.out
    assert "RTN g128: quantizing" in shown.err
