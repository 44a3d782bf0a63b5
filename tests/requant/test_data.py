from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from requant.data import load_text, sample_windows, tokenize
from requant.errors import InputError
from tiny_model import TEXT, make_tokenizer


def test_pydoc_splits_do_not_overlap_and_make_up_the_whole() -> None:
    calibration, evaluation = load_text("pydoc"), load_text("pydoc", "evaluation")
    assert len(evaluation) > 50_000
    assert abs(len(calibration) / (len(calibration) + len(evaluation)) - 0.8) < 1e-4
    assert load_text("pydoc") == calibration
    assert evaluation[:2000] not in calibration


def test_file(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("Grüße", encoding="utf-8")
    assert load_text(path) == load_text(str(path), "evaluation") == "Grüße"


def test_bad_sources_are_named(tmp_path: Path) -> None:
    binary = tmp_path / "binary.txt"
    binary.write_bytes(b"\xff\xfe\x00")
    for source, message in ((tmp_path / "absent", "absent' is neither a file nor one of"), (binary, "as UTF-8")):
        with pytest.raises(InputError, match=message):
            load_text(source)
    with pytest.raises(InputError, match="split must be one of"):
        load_text("pydoc", "test")


def test_missing_datasets_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"pip install requant-kernels\[datasets\]"):
        load_text("wikitext2")


def test_windows_are_aligned_disjoint_and_depend_on_the_seed() -> None:
    tokenizer, text = make_tokenizer(), TEXT * 40
    tokens = tokenize(tokenizer, text)
    chosen = [sample_windows(tokenizer, text, 5, 16, seed) for seed in range(6)]
    all_windows = tokens[: tokens.numel() // 16 * 16].view(-1, 16)
    for windows in chosen:
        assert windows.shape == (5, 16)
        assert all(any(torch.equal(window, each) for each in all_windows) for window in windows)
    assert torch.equal(chosen[2], sample_windows(tokenizer, text, 5, 16, 2))
    assert len({tuple(windows.flatten().tolist()) for windows in chosen}) > 1


def test_all_windows_in_text_order() -> None:
    tokenizer, text = make_tokenizer(), "".join(chr(97 + index % 26) for index in range(64))
    tokens = tokenize(tokenizer, text)
    assert torch.equal(
        sample_windows(tokenizer, text, tokens.numel() // 4, 4, 3).flatten(), tokens[: tokens.numel() // 4 * 4]
    )


def test_short_text_is_refused() -> None:
    with pytest.raises(InputError, match=r"calibration text is too short: 2 windows of 512 tokens .* enough for 0"):
        sample_windows(make_tokenizer(), TEXT, 2, 512, 0)
