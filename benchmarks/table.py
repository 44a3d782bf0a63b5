"""Prints a table of times and of ratios to torch's bf16 nn.Linear.

python benchmarks/table.py --shape 8192x3072 --tokens 1 4 16 32 512 --threads 2

All contenders take turns, round by round, so that a noisy machine is equally noisy for all; weights are rotated over
copies that exceed the last-level cache. A ratio is the median over rounds of (torch's time / ours) in the same round.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from layers import Rotation, rotated_layer, rotated_torch
from rich.console import Console
from rich.table import Table

ROUNDS = 25
DENSE = (("uniform", 4), ("uniform", 3), ("uniform", 2), ("uniform", 8), ("lut", 4), ("lut", 3), ("lut", 2))
ROWS = [(format, bits, sparse_percent) for format, bits in DENSE for sparse_percent in (0.0, 0.5)]
BASELINE = "torch bf16"


def time_in_turns(contenders: dict[str, Rotation], x: torch.Tensor) -> dict[str, list[float]]:
    """Milliseconds of one call, per contender and round."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS + 1):
        for name, module in contenders.items():
            start = time.perf_counter()
            module(x)
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: values[1:] for name, values in times.items()}  # the first round warms up


def cell(ours: list[float], baseline: list[float]) -> str:
    """Median time, its middle half, and the median of the ratios."""
    low, middle, high = statistics.quantiles(ours, n=4)
    ratio = statistics.median(base / own for base, own in zip(baseline, ours, strict=True))
    return f"{middle:.2f} [{low:.2f}-{high:.2f}] {ratio:.2f}x"


@torch.inference_mode()
def main() -> None:
    """Times every row for every number of tokens."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="8192x3072", help="out_features x in_features")
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 4, 16, 32, 512])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--formats", nargs="+", default=["uniform", "lut"], choices=["uniform", "lut"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    out_features, in_features = map(int, options.shape.split("x"))

    contenders = {BASELINE: rotated_torch(out_features, in_features, torch.bfloat16)}
    for format, bits, sparse_percent in ROWS:
        if format in options.formats:
            name = f"{format} {bits} bit" + (f" + {sparse_percent} % sparse" if sparse_percent else "")
            contenders[name] = rotated_layer(format, bits, sparse_percent, out_features, in_features)

    columns = []
    for tokens in options.tokens:
        times = time_in_turns(contenders, torch.randn(tokens, in_features, dtype=torch.bfloat16))
        columns.append([cell(times[name], times[BASELINE]) for name in contenders])
    title = f"{options.shape}, bf16 activations, {options.threads} threads: median ms [middle half], speed-up"
    table = Table("weights", *(f"{tokens} tokens" for tokens in options.tokens), title=title)
    for name, *cells in zip(contenders, *columns, strict=True):
        table.add_row(name, *cells)
    Console(width=None if Console().is_terminal else 240).print(table)


if __name__ == "__main__":
    main()
