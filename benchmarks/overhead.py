"""Prints what a call of the layer costs beside its kernel, as a multiple of what a call of nn.Linear costs.

python benchmarks/overhead.py --threads 2

nn.Linear's cost is that of a layer so small that it has nothing to compute. All take turns.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import nn

from requant_kernels import DenseSparseLinear
from requant_kernels.dispatch import kernel_for

ROUNDS = 30
CALLS = 300


def fastest_us(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Microseconds of one call, of the fastest round."""
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(ROUNDS):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(CALLS):
                call()
            best[name] = min(best[name], 1e6 * (time.perf_counter() - start) / CALLS)
    return best


@torch.no_grad()
def main() -> None:
    """Times one token."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    linear = nn.Linear(64, 16, bias=False).bfloat16()
    tiny = DenseSparseLinear.from_linear(linear, sparse_percent=0)
    layer = DenseSparseLinear.from_linear(nn.Linear(2048, 512, bias=False), sparse_percent=0)
    small, x = (torch.randn(1, 1, size, dtype=torch.bfloat16) for size in (64, 2048))
    operands, kernel = layer.operands, kernel_for("uniform", layer.codes.device, 1)
    times = fastest_us(
        {
            "nn.Linear 16x64": lambda: linear(small),
            "16x64": lambda: tiny(small),
            "512x2048": lambda: layer(x),
            "512x2048, kernel": lambda: kernel(x, operands, None, "16bit"),
        }
    )
    for name, microseconds in times.items():
        print(f"{name:20} {microseconds:6.1f} us  {microseconds / times['nn.Linear 16x64']:.2f}x")


if __name__ == "__main__":
    main()
