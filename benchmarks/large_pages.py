"""Prints how much faster one token is when the codes lie in pages of 2 MB (`requant_kernels.memory`).

python benchmarks/large_pages.py --shape 8192x3072 --threads 2

Weights are rotated over copies that exceed the last-level cache; both kinds of memory take turns, round by round.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time

import torch
from torch import nn

from requant_kernels import DenseSparseLinear
from requant_kernels.memory import place

COPIES = 12
ROUNDS = 27


@torch.inference_mode()
def main() -> None:
    """Times both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="8192x3072", help="out_features x in_features")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    out_features, in_features = map(int, options.shape.split("x"))
    layer = DenseSparseLinear.from_linear(nn.Linear(in_features, out_features, bias=False), bits=4)
    x = torch.randn(1, in_features, dtype=torch.bfloat16)
    # A copy lies in ordinary memory.
    layers = {name: [copy.deepcopy(layer) for _ in range(COPIES)] for name in ("4 KB", "2 MB")}
    for each in layers["2 MB"]:
        each.codes = place(each.codes)
    times: dict[str, list[float]] = {name: [] for name in layers}
    for _ in range(ROUNDS + 1):
        for name, copies in layers.items():
            start = time.perf_counter()
            for each in copies:
                each(x)
            times[name].append((time.perf_counter() - start) / COPIES)
    small, large = (values[1:] for values in times.values())  # the first round warms up
    ratio = statistics.median(a / b for a, b in zip(small, large, strict=True))
    milliseconds = ", ".join(f"{name}: {1000 * statistics.median(values[1:]):.3f} ms" for name, values in times.items())
    print(f"{options.shape}, 4 bit + 0.5 % sparse, one token: {milliseconds}; 4 KB / 2 MB: {ratio:.3f}")


if __name__ == "__main__":
    main()
