"""Memory and time of a recipe on a model, before it is run: counted where possible, else timed on a small probe."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from requant.embeddings import GROUP_SIZE, Embeddings, find_embeddings
from requant.plan import Plan
from requant.quantizers import Statistics, make_quantizer
from requant.recipe import Recipe
from requant.sensitivity.gradients import consuming_gradients, mean_loss
from requant.weights import find_linears, single_precision
from requant_kernels.embedding import round_rows

PROBE_TOKENS = 256
PROBE_ROWS = 512
LOGIT_COPIES = 4
"""The logits, their gradient, and probabilities in parts."""


@dataclass(frozen=True)
class Estimate:
    """`memory_bytes` is the peak of the whole process, `seconds` the time from a loaded model to a quantized one;
    `parts` gives both by what needs them ("... seconds", "... bytes").
    """

    memory_bytes: int
    seconds: float
    parts: dict[str, float]


def estimate(model: nn.Module, recipe: Recipe) -> Estimate:
    """Times one short window and a part of one matrix, and scales up; takes seconds. The model is unchanged.

    Raises InputError as `requant.pipeline.quantize` does.
    """
    linears, embeddings = find_linears(model, recipe.skip), find_embeddings(model, recipe)
    plan = Plan.of(recipe)
    weights = sum(linear.weight.numel() for linear in linears.values())
    resident = _resident_bytes()
    upcast = sum(4 * each.numel() - each.nbytes for each in model.parameters() if each.is_floating_point())
    copy_bytes = 2 if all(each.weight.dtype != torch.float32 for each in linears.values()) else 4
    accumulators = int(make_quantizer(recipe).needs_fisher) + int(plan.integrals > 0)
    largest = max(linear.weight.numel() for linear in linears.values())
    parts: dict[str, float] = {
        "model bytes": resident + upcast,
        "original weights bytes": copy_bytes * weights,
        "accumulator bytes": 4 * weights * accumulators,
        "quantized weights bytes": weights * recipe.bits / 8 * 2,
        "work space bytes": 24 * largest,
    }
    if embeddings:
        sizes = [(module.weight.numel(), bits) for module, bits in embeddings.values()]
        parts["embedding and head bytes"] = sum(size * bits / 8 for size, bits in sizes)
        parts["embedding and head seconds"] = sum(size for size, _ in sizes) * _rounding_seconds(embeddings)
    with single_precision(model):
        parts["quantizing seconds"] = plan.quantize_passes * weights * _quantize_seconds(linears, recipe)
        if plan.needs_windows:
            tokens = recipe.samples * recipe.sequence_length
            window = torch.arange(min(recipe.sequence_length, PROBE_TOKENS)) % _vocabulary(model)
            window = window.to(next(model.parameters()).device)
            forward = _best_of(2, lambda: mean_loss(model, window[None])) / window.numel()
            with consuming_gradients(model, linears, lambda name, gradient: None) as backward:
                saved = SavedBytes(model)
                both = _best_of(2, lambda: saved.measure(lambda: backward(window, window.numel()))) / window.numel()
            logits = LOGIT_COPIES * 4 * _vocabulary(model)
            parts["activation bytes"] = recipe.sequence_length * (saved.bytes / window.numel() + logits)
            parts["gradient passes seconds"] = plan.gradient_passes * tokens * both
            parts["loss passes seconds"] = plan.loss_passes * tokens * forward
    return Estimate(
        memory_bytes=round(sum(value for name, value in parts.items() if name.endswith("bytes"))),
        seconds=sum(value for name, value in parts.items() if name.endswith("seconds")),
        parts=parts,
    )


class SavedBytes:
    """Counts the memory that autograd keeps between forward and backward, parameters left out."""

    def __init__(self, model: nn.Module) -> None:
        self._parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        self.bytes = 0

    def measure(self, run: Callable[[], object]) -> None:
        """Runs, and counts every storage once that is saved for backward."""
        storages: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self._parameters:
                storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            run()
        self.bytes = sum(storages.values())


def _quantize_seconds(linears: dict[str, nn.Linear], recipe: Recipe) -> float:
    """Per weight, on some rows of the first matrix."""
    weight = next(iter(linears.values())).weight.detach()[:PROBE_ROWS]
    quantizer = make_quantizer(recipe)
    statistics = Statistics(fisher=weight.square())
    return _best_of(1, lambda: quantizer.quantize(weight, statistics)) / weight.numel()


def _rounding_seconds(embeddings: Embeddings) -> float:
    """Per weight, on some rows of the first matrix."""
    module, bits = next(iter(embeddings.values()))
    rows = module.weight.detach()[:PROBE_ROWS].float()
    return _best_of(1, lambda: round_rows(rows, bits, GROUP_SIZE)) / rows.numel()


def _best_of(times: int, run: Callable[[], object]) -> float:
    """Seconds of the fastest run, after one that warms up."""
    seconds = []
    for _ in range(times + 1):
        start = time.monotonic()
        run()
        seconds.append(time.monotonic() - start)
    return min(seconds[1:])


def _vocabulary(model: nn.Module) -> int:
    return int(model.get_input_embeddings().weight.shape[0])  # type: ignore[operator]


def _resident_bytes() -> int:
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
