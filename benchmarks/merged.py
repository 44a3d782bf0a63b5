"""Prints how much faster a model decodes with merged projections (`requant_kernels.merge_linears`).

python benchmarks/merged.py DIRECTORY

The same model with the same memory takes turns with itself, step by step: merged, not merged.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch
from requant.speed import decode_step
from transformers import AutoModelForCausalLM

from requant_kernels import DenseSparseLinear, merge_linears

STEPS = 600


@torch.no_grad()
def main() -> None:
    """Times decode steps."""
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()
    groups = merge_linears(model)
    layers = [layer for layer in model.modules() if isinstance(layer, DenseSparseLinear)]
    merged = [layer.merged for layer in layers]
    apart = [None] * len(layers)
    times: dict[bool, list[float]] = {True: [], False: []}
    output = model(torch.arange(8)[None], use_cache=True)
    for step in range(STEPS):
        for layer, state in zip(layers, merged if step % 2 else apart, strict=True):
            layer.merged = state
        start = time.perf_counter()
        token = output.logits[:, -1:].argmax(-1)
        output = decode_step(model, token, output)
        times[bool(step % 2)].append(time.perf_counter() - start)
    ratio = statistics.median(a / b for a, b in zip(times[False], times[True], strict=True))
    together, alone = (1000 * statistics.median(times[state]) for state in (True, False))
    print(f"{len(groups)} groups: {together:.2f} ms a token, not merged {alone:.2f} ms, ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
