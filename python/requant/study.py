"""Studies of the method on a model of one's own.

    python -m requant.study ablation MODEL --calibration c4.txt --text wiki.txt

`ablation` takes the method apart: perplexity of the dense part alone, of restoring weights by different scores, of
outliers shared out evenly or by PQI, and of the whole.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from requant.data import load_text, sample_windows
from requant.decompose.outliers import power_law_counts, select_outliers, total_count
from requant.decompose.selection import largest_scores
from requant.decompose.significant import Score, change_score, random_score
from requant.decomposition import Decomposition, no_positions
from requant.errors import InputError
from requant.evaluate import perplexity
from requant.pipeline import Work
from requant.progress import Progress, RichProgress, SilentProgress
from requant.recipe import Recipe
from requant.sensitivity.pqi import PathIntegral, post_quantization_integral
from requant.weights import find_linears, single_precision

COVERAGE_PERCENTS = (0.15, 0.71, 5.25)


class Ablation:
    """The intermediate results that rows of the ablation share."""

    def __init__(self, work: Work, percent: float) -> None:
        self.work = work
        self.percent = percent
        """How many weights are kept in 16 bits in all."""

    @cached_property
    def dense(self) -> Decomposition:
        """The dense part alone."""
        if self.work.quantizer.needs_fisher:
            self.work.measure_fisher()
        return self.work.requantize(no_positions(self.work.linears))

    @cached_property
    def integral(self) -> PathIntegral:
        """PQI of the dense part."""
        return self.work.integrate(self.dense, "PQI")

    def restored(self, score: Score) -> Decomposition:
        """The dense part with the weights of largest score restored."""
        count = total_count(self.work.sizes, self.percent)
        return self.dense.with_significant(largest_scores(score, self.work.names, count))

    def gradient_score(self) -> Score:
        """Control: |gradient at the original weights x change|."""
        work = self.work
        return post_quantization_integral(
            work.model,
            work.windows,
            work.linears,
            work.originals,
            self.dense.weight,
            quadrature="left",
            intervals=1,
        ).absolute

    def outliers(self, percent: float, exponent: float) -> Decomposition:
        """Outliers by the power law, and the rest quantized again."""
        work = self.work
        sensitivity = [float(self.integral.absolute(name).double().mean()) for name in work.names]
        counts = power_law_counts(sensitivity, work.sizes, percent, exponent, work.recipe.outlier_limit)
        pairs = zip(work.names, counts, strict=True)
        return work.requantize({name: select_outliers(work.originals[name], count) for name, count in pairs})

    def coverage(self) -> dict[str, float]:
        """Percent of the summed |PQI| that the given percent of weights hold."""
        names, sizes = self.work.names, self.work.sizes
        total = sum(float(self.integral.absolute(name).double().sum()) for name in names)
        shares = {}
        for percent in COVERAGE_PERCENTS:
            found = largest_scores(self.integral.absolute, names, total_count(sizes, percent))
            held = sum(float(self.integral.absolute(name).view(-1)[found[name]].double().sum()) for name in names)
            shares[f"{percent:g}"] = 100 * held / total
        return shares


@dataclass(frozen=True)
class Row:
    """One line of the table: what it is called and how its weights are made."""

    name: str
    make: Callable[[Ablation], Decomposition]


def _whole(study: Ablation) -> Decomposition:
    outliers = study.outliers(0.9 * study.percent, 1.0)
    work = study.work
    work.recipe = replace(work.recipe, significant_percent=0.1 * study.percent, significant_steps=1)
    return work.detach_significant(outliers)


ABLATION = (
    Row("dense only", lambda study: study.dense),
    Row("restored by PQI", lambda study: study.restored(study.integral.absolute)),
    Row("restored by gradient x change", lambda study: study.restored(study.gradient_score())),
    Row(
        "restored by change",
        lambda study: study.restored(change_score(study.work.originals.__getitem__, study.dense.weight)),
    ),
    Row(
        "restored at random",
        lambda study: study.restored(
            random_score(study.work.names, lambda name: study.work.linears[name].weight.shape, study.work.recipe.seed)
        ),
    ),
    Row("outliers, t = 0", lambda study: study.outliers(0.9 * study.percent, 0.0)),
    Row("outliers, t = 1", lambda study: study.outliers(0.9 * study.percent, 1.0)),
    Row("outliers, t = 1, and significant", _whole),
)


def ablation(
    model: nn.Module,
    tokenizer: Any,
    calibration_text: str,
    text: str,
    recipe: Recipe,
    *,
    percent: float = 0.5,
    rows: Sequence[Row] = ABLATION,
    eval_window: int = 2048,
    eval_windows: int | None = 4,
    progress: Progress | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Perplexity on `text` per row, besides the original's; PQI's predicted and actual loss change; and what share of
    the summed |PQI| the largest hold. The model is unchanged afterwards.

    Perplexity is computed with bf16 products (autocast), as the model would run; all else in fp32.
    """
    progress = progress or SilentProgress()
    windows = sample_windows(tokenizer, calibration_text, recipe.samples, recipe.sequence_length, recipe.seed)
    linears = find_linears(model, recipe.skip)

    def evaluate() -> float:
        with torch.autocast(next(model.parameters()).device.type, torch.bfloat16):
            return perplexity(
                model, tokenizer, text, window=eval_window, windows=eval_windows, bos="no", progress=progress
            ).value

    with single_precision(model):
        work = Work(model, linears, recipe, windows, progress)
        study = Ablation(work, percent)
        result: dict[str, Any] = {"recipe": recipe.to_dict(), "perplexity": {"unquantized": evaluate()}}
        for row in rows:
            decomposition = row.make(study)
            with work.originals.replaced(decomposition.weight):
                result["perplexity"][row.name] = evaluate()
            report(f"{row.name}: {result['perplexity'][row.name]:.2f}")
        result["loss_changes"] = work.path_checks
        result["coverage"] = study.coverage()
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of this module."""
    parser = argparse.ArgumentParser(prog="python -m requant.study", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("study", choices=["ablation"])
    parser.add_argument("model", help="Hugging Face directory, hub name or .gguf file")
    parser.add_argument("--calibration", default="pydoc", help="text to calibrate on (file, pydoc or wikitext2)")
    parser.add_argument("--text", default="pydoc", help="text to evaluate on")
    parser.add_argument("--method", default="squeezellm")
    parser.add_argument("--bits", type=int, default=3)
    parser.add_argument("--samples", type=int, default=6)
    parser.add_argument("--sequence-length", type=int, default=512)
    parser.add_argument("--intervals", type=int, default=3)
    parser.add_argument("--quadrature", default="midpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--windows", type=int, default=4, help="evaluation windows of 2048 tokens")
    options = parser.parse_args(arguments)
    names = ("method", "bits", "samples", "sequence_length", "intervals", "quadrature", "seed")
    try:
        from requant.models import load_for_quantization

        recipe = Recipe(**{name: getattr(options, name) for name in names})
        calibration, text = load_text(options.calibration), load_text(options.text, "evaluation")
        model, tokenizer, _ = load_for_quantization(options.model)
        result = ablation(
            model,
            tokenizer,
            calibration,
            text,
            recipe,
            eval_windows=options.windows,
            progress=RichProgress(),
            report=lambda line: print(line, file=sys.stderr, flush=True),
        )
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
