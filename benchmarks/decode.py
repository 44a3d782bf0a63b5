"""Prints how fast models decode, each against the first.

python benchmarks/decode.py DIRECTORY DIRECTORY ...

All take turns, 14 steps at a time.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch
from requant.speed import decode_step
from transformers import AutoModelForCausalLM

import requant_kernels  # noqa: F401  (registers the quantization method)

ROUNDS = 8
STEPS = 14


@torch.no_grad()
def main() -> None:
    """Times greedy steps of one sequence."""
    models = {name: AutoModelForCausalLM.from_pretrained(name).eval() for name in sys.argv[1:]}
    times: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(ROUNDS + 1):
        for name, model in models.items():
            output = model(torch.arange(8)[None], use_cache=True)
            for _ in range(STEPS):
                start = time.perf_counter()
                token = output.logits[:, -1:].argmax(-1)
                output = decode_step(model, token, output)
                if turn:  # the first one warms up
                    times[name].append(time.perf_counter() - start)
    medians = {name: 1000 * statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        print(f"{median:8.2f} ms a token, {medians[sys.argv[1]] / median:.3f}x as fast  {name}")


if __name__ == "__main__":
    main()
