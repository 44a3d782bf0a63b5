"""pytest-benchmark suite of the CPU kernels: `pytest benchmarks/linear_cpu.py`."""

from collections.abc import Callable

import pytest
import torch
from layers import rotated_layer, rotated_torch

SHAPES = ((2048, 2048), (8192, 3072))
TOKENS = (1, 4, 16, 512)
FORMATS = (("uniform", 2), ("uniform", 3), ("uniform", 4), ("uniform", 8), ("lut", 3), ("lut", 4))


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("sparse_percent", [0.0, 0.5])
@pytest.mark.parametrize(("format", "bits"), FORMATS)
@pytest.mark.parametrize(("out_features", "in_features"), SHAPES)
@torch.inference_mode()
def test_quantized(
    benchmark: Callable[..., object],
    out_features: int,
    in_features: int,
    format: str,
    bits: int,
    sparse_percent: float,
    tokens: int,
) -> None:
    benchmark(
        rotated_layer(format, bits, sparse_percent, out_features, in_features),
        torch.randn(tokens, in_features, dtype=torch.bfloat16),
    )


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize(("out_features", "in_features"), SHAPES)
@torch.inference_mode()
def test_torch_bf16(benchmark: Callable[..., object], out_features: int, in_features: int, tokens: int) -> None:
    benchmark(
        rotated_torch(out_features, in_features, torch.bfloat16),
        torch.randn(tokens, in_features, dtype=torch.bfloat16),
    )
