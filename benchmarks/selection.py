"""Which contenders, shapes and numbers of tokens take part, from the command line."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

import quantized
import torch
from contender import Contender

SHAPES = {
    "Llama-3.2-1B": ("2048x2048", "512x2048", "8192x2048", "2048x8192"),
    "Llama-3.2-3B": ("3072x3072", "8192x3072", "3072x8192"),
}
TOKENS = (1, 4, 16, 512, 2048)
PEERS = {
    "torch": "torch_linear",
    "int4pack": "torch_int4",
    "onnxruntime": "onnxruntime_matmul",
    "bitsandbytes": "bitsandbytes_nf4",
    "csr": "torch_csr",
}
"""Module of `peers/` by the name on the command line. `torch` holds the baseline."""


def parse_shape(text: str) -> tuple[int, int]:
    """(out_features, in_features) of "8192x3072"."""
    try:
        out_features, in_features = map(int, text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"a shape is OUTxIN, as in 8192x3072, got {text!r}") from None
    return out_features, in_features


def add_options(parser: argparse.ArgumentParser) -> None:
    """What to measure."""
    everything = [shape for shapes in SHAPES.values() for shape in shapes]
    parser.add_argument(
        "--shapes",
        nargs="+",
        type=parse_shape,
        metavar="OUTxIN",
        default=list(map(parse_shape, everything)),
        help=f"default: the linear layers of {' and '.join(SHAPES)}: {' '.join(everything)}",
    )
    parser.add_argument("--tokens", nargs="+", type=int, default=list(TOKENS), help="default: %(default)s")
    parser.add_argument(
        "--formats",
        nargs="*",
        default=None,
        metavar="NAME",
        help="ours whose names start so, as in 'uniform 4' or lut; default: all that this version supports",
    )
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS), help="default: all")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: %(default)s")


def select(formats: Sequence[str] | None, peers: Sequence[str]) -> list[Contender]:
    """The baseline and peers first, then ours. Packages that are not installed are named on stderr."""
    contenders: list[Contender] = []
    for peer in peers:
        try:
            contenders += importlib.import_module(f"peers.{PEERS[peer]}").contenders()
        except ImportError as error:
            print(f"without {peer}: {error}; pip install 'requant-kernels[peers]'", file=sys.stderr)
    ours = list(quantized.contenders())
    if formats is None:
        return contenders + ours
    chosen = [contender for contender in ours if contender.name.startswith(tuple(formats))]
    if formats and not chosen:
        raise SystemExit(f"no format starts with {' or '.join(formats)}; there are: {', '.join(c.name for c in ours)}")
    return contenders + chosen
