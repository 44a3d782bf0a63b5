"""Encodes the linear layers of a model to format `trellis`: how long that takes, and what error it leaves.

python benchmarks/encode.py DIRECTORY --bits 2
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import machine
import torch
from requant.models import load_model
from requant.weights import find_linears

from requant_kernels.formats import TrellisWeight, trellis
from requant_kernels.trellis_encoder import round_to_trellis


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a transformers directory")
    parser.add_argument("--bits", type=int, default=2, choices=TrellisWeight.supported_bits)
    parser.add_argument("--code", default="1mad", choices=("1mad", "3inst"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: %(default)s")
    return parser.parse_args(arguments)


@torch.inference_mode()
def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    weights = [linear.weight.float() for linear in find_linears(load_model(options.model, torch.bfloat16)[0]).values()]
    sequences, seconds, error, size = 0, 0.0, 0.0, 0.0
    for weight in weights:
        start = time.perf_counter()
        encoded = round_to_trellis(weight, bits=options.bits, code=options.code)
        seconds += time.perf_counter() - start
        out_padded, in_padded = trellis.padded_shape(*weight.shape)
        sequences += out_padded * in_padded // trellis.TILE_VALUES
        error += float((weight - encoded.dequantize()).square().sum())
        size += float(weight.square().sum())
    described = machine.describe(options.threads)
    count = sum(weight.numel() for weight in weights)
    per_sequence_ms = 1e3 * seconds * options.threads / sequences
    print(f"{described['cpu']}, {options.threads} threads, {described['instruction_set']} in use")
    print(f"{count / 1e6:.1f} M weights, {sequences} sequences at {options.bits} bits, code {options.code}:")
    print(f"{seconds / 60:.1f} min, {per_sequence_ms:.2f} ms per sequence and thread, squared error {error / size:.4f}")


if __name__ == "__main__":
    main()
