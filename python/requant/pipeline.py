"""ReQuant (arXiv 2503.01901), a dense-and-sparse decomposition around any base quantizer:

    1. quantize the weights                                  w -> q0
    2. measure PQI from w to q0; share out the outliers      one ratio per matrix
    3. take the largest weights of each matrix out           outliers
    4. quantize again, without the influence of the outliers D
    5. measure PQI from w to D + outliers, step by step      significant weights
    6. S = w - D at the kept positions, in 16 bits           W = D + S

Steps without effect are left out: no outliers, no steps 2 to 4; no significant weights, no step 5; with neither and a
base method that needs no statistics, no calibration at all.
"""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from requant.data import sample_windows
from requant.decompose.outliers import interquartile_counts, power_law_counts, select_outliers, total_count
from requant.decompose.selection import Positions
from requant.decompose.significant import detach_significant
from requant.decomposition import Decomposition, no_positions, position_mask
from requant.embeddings import find_embeddings, quantize_embedding
from requant.plan import Plan
from requant.progress import Progress, SilentProgress
from requant.quantizers import DenseWeight, Statistics, make_quantizer
from requant.recipe import Recipe
from requant.sensitivity.fisher import fisher_information
from requant.sensitivity.gradients import mean_loss
from requant.sensitivity.pqi import PathIntegral, post_quantization_integral
from requant.weights import Linears, OriginalWeights, find_linears, single_precision
from requant_kernels.integrations.transformers import attach_quantization_config, tie_quantized_head


@dataclass(frozen=True, eq=False)
class QuantizeResult:
    """`model` is the one that was given, its linear layers exchanged. `report` is plain JSON data:

    losses (on the calibration windows, in nats per token), outliers and significant per module, seconds per step, and
    `provenance`, the part that is the same in every run of the same recipe.
    """

    model: nn.Module
    recipe: Recipe
    report: dict[str, Any]


def quantize(
    model: nn.Module,
    tokenizer: Any,
    calibration_text: str | None,
    recipe: Recipe,
    *,
    progress: Progress | None = None,
) -> QuantizeResult:
    """Exchanges the linear layers of the decoder blocks for `DenseSparseLinear`, in place.

    Afterwards the remaining parameters have the checkpoint's dtype, and `model.save_pretrained` writes a checkpoint.
    Tokenizer and text may be None if the recipe needs no calibration. Until the end the model is unchanged: after an
    error or a KeyboardInterrupt it has its own weights, bit by bit. Deterministic: the same model, text and recipe
    give the same bytes on the same machine and number of threads.

    Raises InputError on weights that are not finite, a model without linear layers in decoder blocks, or a text that
    is too short.
    """
    progress = progress or SilentProgress()
    linears, embeddings = find_linears(model, recipe.skip), find_embeddings(model, recipe)
    windows = calibration_windows(tokenizer, calibration_text, recipe)
    if windows is not None:
        windows = windows.to(next(model.parameters()).device)
    with single_precision(model) as dtypes:
        # After an error the parameters must have their own dtypes: `dtypes` gets the checkpoint's only at the end.
        target = {each: getattr(torch, recipe.dtype) if recipe.dtype else dtype for each, dtype in dtypes.items()}
        work = Work(model, linears, recipe, windows, progress)
        decomposition = work.decompose()
        layers: dict[str, nn.Module] = {}
        with progress.task("packing", len(linears) + len(embeddings)) as advance:
            for name, linear in linears.items():
                bias = None if linear.bias is None else linear.bias.detach().to(target[linear.bias])
                layers[name] = decomposition.layer(name, bias)
                advance(1)
            for name, (module, bits) in embeddings.items():
                layers[name] = quantize_embedding(module, bits, target[cast(nn.Parameter, module.weight)])
                advance(1)
        # From here on nothing can fail.
        for name, layer in layers.items():
            model.set_submodule(name, layer)
        dtypes.update(target)
    report = work.report(windows)
    if isinstance(model, PreTrainedModel):
        tie_quantized_head(model)
        attach_quantization_config(model, recipe.to_dict(), report["provenance"])
    return QuantizeResult(model, recipe, report)


def calibration_windows(tokenizer: Any, calibration_text: str | None, recipe: Recipe) -> Tensor | None:
    """int64 [samples, sequence_length], or None if the recipe needs no calibration.

    Raises InputError if the text is too short.
    """
    if not Plan.of(recipe).needs_windows:
        return None
    return sample_windows(tokenizer, calibration_text or "", recipe.samples, recipe.sequence_length, recipe.seed)


class Work:
    """One run of the pipeline on a model in single precision, its state and its intermediate results."""

    def __init__(
        self, model: nn.Module, linears: Linears, recipe: Recipe, windows: Tensor | None, progress: Progress
    ) -> None:
        self.model, self.linears, self.recipe, self.progress = model, linears, recipe, progress
        self._windows = windows
        self.names = list(linears)
        self.sizes = [linear.weight.numel() for linear in linears.values()]
        self.originals = OriginalWeights(linears)
        self.quantizer = make_quantizer(recipe)
        self.losses: dict[str, float] = {}
        self.path_checks: list[dict[str, float]] = []
        self.outlier_trials: dict[str, float] = {}
        self.seconds: dict[str, float] = {}
        self.fisher: dict[str, Tensor] = {}
        self._result: Decomposition | None = None

    @property
    def windows(self) -> Tensor:
        """int64 [samples, length]."""
        assert self._windows is not None, "the plan foresaw no calibration"
        return self._windows

    def decompose(self) -> Decomposition:
        """All steps; the model's weights are as before afterwards."""
        if self.quantizer.needs_fisher:
            self.measure_fisher()
        decomposition = self.detach_outliers()
        self.fisher = {}
        if self.recipe.significant_percent:
            decomposition = self.detach_significant(decomposition)
        self._result = decomposition
        return decomposition

    def measure_fisher(self) -> None:
        """What `requantize` needs if the base method weighs by Fisher information."""
        with self._timed("Fisher information", len(self.windows)) as advance:
            self.fisher = fisher_information(self.model, self.windows, self.linears, advance)

    def requantize(self, outliers: Positions) -> Decomposition:
        """The dense part of every matrix, given its outliers."""
        dense: dict[str, DenseWeight] = {}
        with self._timed("quantizing", len(self.names)) as advance:
            for name in self.names:
                weight = self.originals[name]
                kept = position_mask(outliers[name], weight.shape).to(weight.device) if outliers[name].numel() else None
                dense[name] = self.quantizer.quantize(weight, Statistics(self.fisher.get(name)), keep_mask=kept)
                advance(1)
        values_dtype = getattr(torch, self.recipe.values_dtype)
        return Decomposition(self.originals.__getitem__, dense, outliers, no_positions(self.linears), values_dtype)

    def detach_outliers(self) -> Decomposition:
        """Steps 1 to 4: of all outlier counts to try, the ones of least calibration loss."""
        recipe = self.recipe
        if not recipe.outlier_percent:
            return self.requantize(no_positions(self.linears))
        if recipe.outlier_rule == "iqr":
            counts = interquartile_counts(self.originals.__getitem__, self.names, recipe.outlier_percent)
            return self.requantize(self._outliers(counts))
        sensitivity = [1.0] * len(self.names)
        if any(recipe.outlier_exponents):
            dense_only = self.requantize(no_positions(self.linears))
            integral = self.integrate(dense_only, "PQI of all weights")
            sensitivity = [float(integral.absolute(name).double().mean()) for name in self.names]
            del dense_only, integral
        best: Decomposition | None = None
        for exponent in recipe.outlier_exponents:
            counts = power_law_counts(sensitivity, self.sizes, recipe.outlier_percent, exponent, recipe.outlier_limit)
            trial = self.requantize(self._outliers(counts))
            if len(recipe.outlier_exponents) == 1:
                return trial
            loss = self.loss(trial, "loss with outliers")
            if best is None or loss < min(self.outlier_trials.values()):
                best = trial
            self.outlier_trials[f"{exponent:g}"] = loss
        assert best is not None
        return best

    def detach_significant(self, decomposition: Decomposition) -> Decomposition:
        """Step 5."""

        def measure(significant: Positions) -> Callable[[str], Tensor]:
            return self.integrate(decomposition.with_significant(significant), "PQI of what is left").absolute

        count = total_count(self.sizes, self.recipe.significant_percent or 0)
        outliers = decomposition.outliers
        found = detach_significant(measure, self.names, count, self.recipe.significant_steps, outliers)
        return decomposition.with_significant(found)

    def integrate(self, quantized: Decomposition, name: str) -> PathIntegral:
        """PQI from the original weights to `quantized`; the predicted and the actual loss change are noted."""
        recipe = self.recipe
        passes = len(self.windows) * Plan.nodes(recipe)
        with self._timed(name, passes) as advance:
            integral = post_quantization_integral(
                self.model,
                self.windows,
                self.linears,
                self.originals,
                quantized.weight,
                quadrature=recipe.quadrature,
                intervals=recipe.intervals,
                advance=advance,
            )
        actual = self.loss(quantized, "actual loss change") - self.original_loss()
        self.path_checks.append({"predicted": integral.predicted, "actual": actual})
        return integral

    def original_loss(self) -> float:
        """Mean loss of the original model on the calibration windows."""
        if "original" not in self.losses:
            with self._timed("loss of the original", len(self.windows)) as advance:
                self.losses["original"] = mean_loss(self.model, self.windows, advance)
        return self.losses["original"]

    def loss(self, quantized: Decomposition, name: str) -> float:
        """Mean loss on the calibration windows with the quantized weights."""
        with self._timed(name, len(self.windows)) as advance, self.originals.replaced(quantized.weight):
            return mean_loss(self.model, self.windows, advance)

    def _outliers(self, counts: list[int]) -> Positions:
        return {
            name: select_outliers(self.originals[name], count) for name, count in zip(self.names, counts, strict=True)
        }

    @contextmanager
    def _timed(self, name: str, total: int) -> Iterator[Callable[[float], None]]:
        start = time.monotonic()
        with self.progress.task(name, total) as advance:
            yield advance
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start

    def report(self, windows: Tensor | None) -> dict[str, Any]:
        """See `QuantizeResult`."""
        assert self._result is not None
        kept = {"outliers": self._result.outliers, "significant": self._result.significant}
        return {
            "weights": sum(self.sizes),
            "losses": self.losses,
            "loss_changes": self.path_checks,
            "outlier_trials": self.outlier_trials,
            **{kind: {name: positions[name].numel() for name in self.names} for kind, positions in kept.items()},
            "seconds": self.seconds,
            "provenance": provenance(windows),
        }


def provenance(windows: Tensor | None) -> dict[str, Any]:
    """What besides the recipe determines the result: package versions and a fingerprint of the calibration windows."""
    import transformers

    from requant_kernels.version import __version__

    fingerprint = None
    if windows is not None:
        fingerprint = hashlib.sha256(windows.cpu().contiguous().numpy().tobytes()).hexdigest()
    return {
        "requant_kernels": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "calibration_sha256": fingerprint,
    }
