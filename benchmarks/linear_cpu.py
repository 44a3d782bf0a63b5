"""pytest-benchmark suite of the CPU kernels, a small standard set: `pytest benchmarks/linear_cpu.py`.

For single kernels under development; `table.py` compares with peers, in turns.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from contender import Contender
from peers import torch_linear
from quantized import FORMATS, SPARSE_PERCENT, contender, is_supported
from rotation import Rotation, rotated_bytes
from selection import parse_shape

SHAPES = ("2048x2048", "8192x3072")
TOKENS = (1, 4, 16, 512)
BASELINE = next(torch_linear.contenders())
CONTENDERS = [BASELINE] + [
    contender(format, sparse_percent)
    for format in filter(is_supported, FORMATS)
    for sparse_percent in (0.0, SPARSE_PERCENT)
]


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("chosen", CONTENDERS, ids=lambda chosen: chosen.name.replace(" ", "-"))
@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_linear(benchmark: Callable[..., object], shape: str, chosen: Contender, tokens: int) -> None:
    out_features, in_features = parse_shape(shape)
    rotation = Rotation(chosen.make(out_features, in_features), rotated_bytes(layers=1))
    benchmark(rotation.bind(torch.randn(tokens, in_features).to(torch.bfloat16)))
