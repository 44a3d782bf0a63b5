"""The script from its command line to the tables and the plot, on a small layer."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import estimate
import plot
import probes
import pytest
import result_tables
import rotation
import table
import turns
from probes import Limits
from selection import parse_shape, select


@pytest.fixture
def result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What --json writes."""
    monkeypatch.setattr(probes, "LEAST_BUFFER_BYTES", 8 << 20)
    monkeypatch.setattr(probes, "CACHE_MULTIPLE", 0)
    monkeypatch.setattr(probes, "REPETITIONS", 1000)
    monkeypatch.setattr(rotation, "LEAST_ROTATED_BYTES", 1 << 20)
    monkeypatch.setattr(rotation, "CACHE_MULTIPLE", 0)
    monkeypatch.setattr(turns, "SETTLE_SECONDS", 0.0)
    target = tmp_path / "result.json"
    arguments = ["--shapes", "64x128", "--tokens", "1", "3", "--peers", "torch", "--rounds", "2", "--threads", "1"]
    table.main([*arguments, "--formats", "uniform 4", "--json", str(target)])
    return target


def test_every_row_is_printed_and_written(result: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(result.read_text())["rows"]
    names = ["torch bf16", "torch fp32", "uniform 4 bit", "uniform 4 bit + 0.5 % sparse"]
    assert [row["name"] for row in rows if row["tokens"] == 3][:4] == names
    assert all(row["median_ms"] > 0 and row["speed_up"] > 0 for row in rows)
    table.main(["--from", str(result)])
    printed = capsys.readouterr().out
    assert "### 64x128, 1 token" in printed
    assert printed.count("| uniform 4 bit |") == 2
    table.main(["--from", str(result), "--view", "speed-ups"])
    assert "| weights | 1 token | 3 tokens |" in capsys.readouterr().out


def test_plot_is_well_formed(result: Path) -> None:
    facts = json.loads(result.read_text())
    drawing = ElementTree.fromstring(plot.draw(facts, "64x128"))
    texts = [element.text for element in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert {"torch bf16", "uniform 4 bit", "1 token", "3 tokens"} <= set(texts)
    with pytest.raises(ValueError, match="shape must be one of 64x128, got 1x1"):
        plot.draw(facts, "1x1")


def test_estimate_grows_with_work() -> None:
    limits = Limits(10.0, 20.0, {"fma": 100.0})
    contenders = select(["uniform 4 bit"], ["torch"])

    def seconds(tokens: list[int], rounds: int) -> float:
        return estimate.total_seconds([(2048, 2048)], tokens, contenders, rounds, 1 << 28, limits)

    assert 0 < seconds([1], 5) < seconds([1], 50) < seconds([1, 2048], 50) < 1000


def test_calls_fill_a_turn() -> None:
    assert [turns.calls_per_turn(milliseconds) for milliseconds in (0.001, 1.0, 2.0, 100.0)] == [20, 5, 3, 1]


def test_missing_values_are_dashes() -> None:
    assert result_tables._optional(None, ".2f") == "-"
    assert result_tables.table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_bad_selections() -> None:
    with pytest.raises(SystemExit, match="no format starts with nothing"):
        select(["nothing"], [])
    with pytest.raises(Exception, match="a shape is OUTxIN"):
        parse_shape("2048")
    assert parse_shape("8192x3072") == (8192, 3072)
