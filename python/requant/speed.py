"""How fast models prefill and decode, measured side by side so that a noisy machine is equally noisy for all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from requant.progress import Progress, SilentProgress
from requant_kernels import use_backend

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WARM_UP_STEPS = 2
STEPS_PER_ROUND = 8
LEAST_ROUNDS = 3
# A contender that is this slow is measured on fewer steps; medians do not need them all.
LARGEST_SECONDS_PER_CONTENDER = 30.0
PROMPT_SEED = 0


@dataclass(frozen=True)
class Contender:
    """A model to measure, and the backend to force for its quantized layers (None: the preferred one)."""

    name: str
    model: PreTrainedModel
    backend: str | None = None


@dataclass(frozen=True)
class Speed:
    """Medians: one prefill of the whole prompt, and one greedy decode step of one sequence."""

    prefill_tokens: int
    decode_tokens: int
    prefill_ms: float
    decode_step_ms: float

    @property
    def prefill_tokens_per_second(self) -> float:
        """Of the prompt."""
        return 1000 * self.prefill_tokens / self.prefill_ms

    @property
    def decode_tokens_per_second(self) -> float:
        """Of one sequence."""
        return 1000 / self.decode_step_ms

    @property
    def decode_ms(self) -> float:
        """All decode steps, each at the median."""
        return self.decode_tokens * self.decode_step_ms

    @property
    def total_ms(self) -> float:
        """Prefill and all decode steps."""
        return self.prefill_ms + self.decode_ms

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, the derived figures too."""
        return asdict(self) | {
            "decode_ms": self.decode_ms,
            "total_ms": self.total_ms,
            "prefill_tokens_per_second": self.prefill_tokens_per_second,
            "decode_tokens_per_second": self.decode_tokens_per_second,
        }


def measure(
    contenders: Sequence[Contender], *, prefill_tokens: int, decode_tokens: int, progress: Progress | None = None
) -> dict[str, Speed]:
    """The speed of each contender on a random prompt of `prefill_tokens`, then `decode_tokens` greedy steps.

    All take turns, round by round, after a warm-up of their own.
    """
    timings = {contender.name: _timings(contender, prefill_tokens) for contender in contenders}
    prefill: dict[str, list[float]] = {name: [] for name in timings}
    decode: dict[str, list[float]] = {name: [] for name in timings}
    spent = dict.fromkeys(timings, 0.0)
    rounds = max(LEAST_ROUNDS, -(-decode_tokens // STEPS_PER_ROUND))
    with (progress or SilentProgress()).task("measuring speed", rounds * len(timings)) as advance:
        for done in range(rounds):
            for name, rounds_of_one in timings.items():
                if done < LEAST_ROUNDS or spent[name] < LARGEST_SECONDS_PER_CONTENDER:
                    prefill_seconds, steps = next(rounds_of_one)
                    prefill[name].append(prefill_seconds)
                    decode[name] += steps
                    spent[name] += prefill_seconds + sum(steps)
                advance(1)
    return {
        name: Speed(
            prefill_tokens,
            decode_tokens,
            1000 * statistics.median(prefill[name]),
            1000 * statistics.median(decode[name]),
        )
        for name in timings
    }


def _timings(contender: Contender, prefill_tokens: int) -> Iterator[tuple[float, list[float]]]:
    """Endlessly: (seconds of one prefill, seconds of each of STEPS_PER_ROUND decode steps after it)."""
    model = contender.model
    generator = torch.Generator().manual_seed(PROMPT_SEED)
    vocabulary = model.get_input_embeddings().num_embeddings
    prompt = torch.randint(vocabulary, (1, prefill_tokens), generator=generator).to(model.device)
    _one_round(contender, prompt, WARM_UP_STEPS)
    while True:
        yield _one_round(contender, prompt, STEPS_PER_ROUND)


def _one_round(contender: Contender, prompt: torch.Tensor, steps: int) -> tuple[float, list[float]]:
    # Entered anew in every round: between two rounds other contenders run, with backends of their own.
    forced: AbstractContextManager[Any] = use_backend(contender.backend) if contender.backend else nullcontext()
    with torch.inference_mode(), forced:
        start = _now(prompt.device)
        output = contender.model(prompt, use_cache=True, logits_to_keep=1)
        prefill_seconds = _now(prompt.device) - start
        step_seconds = []
        for _ in range(steps):
            start = _now(prompt.device)
            token = output.logits[:, -1:].argmax(-1)
            output = decode_step(contender.model, token, output)
            step_seconds.append(_now(prompt.device) - start)
    return prefill_seconds, step_seconds


def decode_step(model: Any, token: torch.Tensor, previous: Any) -> Any:
    """The model's output for `token` [1, 1], which follows what its output `previous` was for.

    transformers 5.24 renamed what carries on from one to the other.
    """
    name = "cache" if hasattr(previous, "cache") else "past_key_values"
    return model(token, use_cache=True, **{name: getattr(previous, name)})


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
