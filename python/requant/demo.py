"""The quick tour: one small model, 3 bits, three ways, side by side with the unquantized one.

Each way goes through the whole of the machinery: quantize, save, load, measure, generate.
"""

from __future__ import annotations

import copy
import itertools
import tempfile
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Group

from requant.data import load_text
from requant.evaluate import perplexity
from requant.generation import encode_prompt, stream_text
from requant.models import load_for_quantization, load_model, safetensors_bytes, smollm2
from requant.pipeline import quantize
from requant.progress import Advance, Progress, SilentProgress
from requant.recipe import Recipe
from requant.report import MIB, demo_table, model_bits
from requant.speed import Contender, measure
from requant_kernels.checkpoint import save_checkpoint

TEXT = "pydoc"
WINDOW_TOKENS = 512
WINDOWS = 16
PREFILL_TOKENS = 512
DECODE_TOKENS = 64
PROMPT = "What is the difference between a list and a tuple in Python?"
GENERATED_TOKENS = 60
UNQUANTIZED = "bf16, unquantized"


@dataclass(frozen=True)
class Way:
    """One row of the table: how to quantize."""

    name: str
    recipe: Recipe


_CALIBRATION: dict[str, Any] = {"bits": 3, "samples": 4, "sequence_length": 512, "intervals": 2}
# Best last: perplexity must fall from row to row.
WAYS = (
    Way("RTN g128", Recipe(method="rtn", group_size=128, **_CALIBRATION)),
    Way(
        "SqueezeLLM, dense only",
        Recipe(method="squeezellm", outlier_percent=0.0, significant_percent=0.0, **_CALIBRATION),
    ),
    Way(
        "SqueezeLLM + ReQuant",
        Recipe(
            method="squeezellm",
            outlier_percent=0.45,
            significant_percent=0.05,
            outlier_exponents=(0.0, 1.0),
            significant_steps=1,
            **_CALIBRATION,
        ),
    ),
)


@dataclass(frozen=True)
class _Labelled:
    """Progress that says whose it is."""

    progress: Progress
    label: str

    def task(self, name: str, total: float) -> AbstractContextManager[Advance]:
        return self.progress.task(f"{self.label}: {name}", total)


def run_demo(source: str | None = None, *, progress: Progress | None = None) -> dict[str, Any]:
    """Quantizes, measures and compares. Returns the rows, the texts, and whether the order came out right.

    Raises InputError if the model cannot be had or is not one.
    """
    progress = progress or SilentProgress()
    directory = source if source is not None else str(smollm2())
    with tempfile.TemporaryDirectory(prefix="requant-demo-") as folder:
        outputs = _quantize_each_way(directory, Path(folder), progress)
        return _compare(directory, outputs, progress)


def demo_view(outcome: dict[str, Any]) -> Group:
    """`run_demo`'s outcome for people."""
    rows = outcome["rows"]
    title = f"{Path(outcome['model']).name}, 3 bits, perplexity on text held out from {TEXT}"
    spoken = "\n\n".join(f"{name}:\n  {' '.join(text.split())}" for name, text in outcome["texts"].items())
    verdict = "; ".join(outcome["faults"]) or (
        "As it should be: "
        + " > ".join(f"{row['method']} {row['perplexity']:.2f}" for row in rows[1:])
        + ", and each of them decodes faster than bf16."
    )
    return Group(demo_table(title, rows), f"Asked: {outcome['prompt']}\n\n{spoken}\n", verdict)


def faults_of_order(rows: list[dict[str, Any]]) -> list[str]:
    """What the table says that it should not; empty if perplexity and speed are in the right order."""
    unquantized, *quantized = rows
    faults = [
        f"WRONG ORDER: {better['method']} has perplexity {better['perplexity']:.2f}, not below "
        f"{worse['method']}'s {worse['perplexity']:.2f}"
        for worse, better in itertools.pairwise(quantized)
        if not better["perplexity"] < worse["perplexity"]
    ]
    return faults + [
        f"TOO SLOW: {row['method']} decodes {row['decode_tokens_per_second']:.1f} tokens/s, bf16 "
        f"{unquantized['decode_tokens_per_second']:.1f}"
        for row in quantized
        if not row["decode_tokens_per_second"] > unquantized["decode_tokens_per_second"]
    ]


def _compare(directory: str, outputs: dict[str, Path], progress: Progress) -> dict[str, Any]:
    models = {UNQUANTIZED: load_model(directory, torch.bfloat16)}
    models |= {name: load_model(output) for name, output in outputs.items()}
    sizes = {name: safetensors_bytes(path) for name, path in {UNQUANTIZED: Path(directory), **outputs}.items()}
    contenders = [Contender(name, model) for name, (model, _) in models.items()]
    speeds = measure(contenders, prefill_tokens=PREFILL_TOKENS, decode_tokens=DECODE_TOKENS, progress=progress)
    held_out = load_text(TEXT, split="evaluation")
    rows, texts = [], {}
    for name, (model, tokenizer) in models.items():
        labelled = _Labelled(progress, name)
        measured = perplexity(model, tokenizer, held_out, window=WINDOW_TOKENS, windows=WINDOWS, progress=labelled)
        paper_bits, true_bits = model_bits(model)
        rows.append(
            {
                "method": name,
                "paper_bits": paper_bits,
                "true_bits": true_bits,
                "mib": sizes[name] / MIB,
                "perplexity": measured.value,
                **speeds[name].to_dict(),
            }
        )
        prompt = encode_prompt(tokenizer, PROMPT, chat=bool(tokenizer.chat_template))
        texts[name] = stream_text(model, tokenizer, prompt, GENERATED_TOKENS, lambda text: None).text
    faults = faults_of_order(rows)
    return {
        "model": directory,
        "calibration": _CALIBRATION | {"text": TEXT},
        "rows": rows,
        "prompt": PROMPT,
        "texts": texts,
        "order_is_right": not faults,
        "faults": faults,
    }


def _quantize_each_way(directory: str, folder: Path, progress: Progress) -> dict[str, Path]:
    original, tokenizer, _ = load_for_quantization(directory)
    calibration = load_text(TEXT)
    outputs = {}
    for way in WAYS:
        outputs[way.name] = folder / way.recipe.hash
        recipe = Recipe.from_dict(way.recipe.to_dict() | {"dtype": "bfloat16"})
        labelled = _Labelled(progress, way.name)
        result = quantize(copy.deepcopy(original), tokenizer, calibration, recipe, progress=labelled)
        save_checkpoint(result.model, tokenizer, outputs[way.name])
    return outputs
