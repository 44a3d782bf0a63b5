"""What closing the walks of format `trellis` costs: the encoder's error on Gaussian values beside that of walks that
may begin and end anywhere, the least that any search can reach.

python benchmarks/closed_walks.py --sequences 100
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor

from requant_kernels.formats import trellis
from requant_kernels.formats.trellis import TILE_VALUES, TrellisWeight
from requant_kernels.trellis_encoder import CODE_SHARE, encode


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=100, help="of 256 values (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    return parser.parse_args(arguments)


def least_error(targets: Tensor, values: Tensor, bits: int) -> Tensor:
    """Squared error [count] of the walk closest to each of `targets` [count, 256], closed or not; values [65536]."""
    cost = (targets[:, :1] - values).square()
    for step in range(1, TILE_VALUES):
        least = cost.unflatten(1, (2**bits, -1)).amin(dim=1)
        cost = least.repeat_interleave(2**bits, dim=1) + (targets[:, step, None] - values).square()
    return cost.amin(dim=1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    options = parse(arguments)
    gaussian = torch.randn(options.sequences, TILE_VALUES, generator=torch.Generator().manual_seed(options.seed))
    print("squared error relative to the values, by the size of the values relative to the code's")
    for code in ("1mad", "3inst"):
        values = trellis.code_values(code).flatten()
        for bits in TrellisWeight.supported_bits:
            for share in (CODE_SHARE, 1.0):
                targets = gaussian * share * values.square().mean().sqrt()
                size = float(targets.square().sum())
                states = encode(targets, bits, code)
                closed = float((values[states.long()] - targets).square().sum()) / size
                bound = sum(float(least_error(part, values, bits).sum()) for part in targets.split(8)) / size
                print(f"{code} {bits} bits, {share:.1f}: closed {closed:.5f}, any {bound:.5f}, {closed / bound:.3f}x")


if __name__ == "__main__":
    main()
