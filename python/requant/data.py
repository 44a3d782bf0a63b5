"""Texts to calibrate on and to evaluate on, and windows of tokens cut from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from requant.errors import InputError

SPLITS = ("calibration", "evaluation")
PYDOC_CALIBRATION_SHARE = 0.8


def load_text(source: str | Path, split: str = "calibration") -> str:
    """The text of a source.

    - "pydoc": the reference manual that comes with every Python (`pydoc_data.topics`); calibration is its first 80 %,
      evaluation the last 20 %.
    - "wikitext2": WikiText-2 raw, joined by blank lines; calibration is its train split, evaluation its test split.
    - anything else: a UTF-8 text file, the whole of it for either split.

    Raises InputError if the file cannot be read, or if the `datasets` package is missing.
    """
    if split not in SPLITS:
        raise InputError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if isinstance(source, str) and source in _NAMED_SOURCES:
        return _NAMED_SOURCES[source](split)
    path = Path(source)
    if not path.is_file():
        names = ", ".join(_NAMED_SOURCES)
        raise InputError(f"text source {str(source)!r} is neither a file nor one of {names}")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"text file {path} cannot be read as UTF-8: {error}") from None


def _pydoc(split: str) -> str:
    from pydoc_data.topics import topics

    text = "\n\n".join(topics[name] for name in sorted(topics))
    cut = int(len(text) * PYDOC_CALIBRATION_SHARE)
    return text[:cut] if split == "calibration" else text[cut:]


def _wikitext2(split: str) -> str:
    try:
        from datasets import load_dataset
    except ImportError:
        raise InputError(
            "text source wikitext2 needs the datasets package: pip install requant-kernels[datasets]"
        ) from None
    rows = load_dataset("Salesforce/wikitext", "wikitext-2-raw-v1", split="train" if split == "calibration" else "test")
    return "\n\n".join(rows["text"])


_NAMED_SOURCES: dict[str, Callable[[str], str]] = {"pydoc": _pydoc, "wikitext2": _wikitext2}


def tokenize(tokenizer: Any, text: str, *, add_special_tokens: bool = False) -> Tensor:
    """The whole text as one int64 [tokens]."""
    tokens = tokenizer(text, add_special_tokens=add_special_tokens, verbose=False).input_ids
    return torch.tensor(tokens, dtype=torch.int64)


def sample_windows(tokenizer: Any, text: str, samples: int, sequence_length: int, seed: int) -> Tensor:
    """Cuts the text into adjacent windows and draws `samples` of them, without replacement and in text order.

    Returns int64 [samples, sequence_length], the same for the same seed. No special tokens are added. Raises InputError
    if the text has fewer windows.
    """
    tokens = tokenize(tokenizer, text)
    available = tokens.numel() // sequence_length
    if available < samples:
        raise InputError(
            f"calibration text is too short: {samples} windows of {sequence_length} tokens were asked for, "
            f"the text has {tokens.numel()} tokens, enough for {available}"
        )
    windows = tokens[: available * sequence_length].view(available, sequence_length)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(available, generator=generator)[:samples].sort().values
    return windows[chosen].clone()
