from __future__ import annotations

import pytest
import torch
from requant.decomposition import Decomposition, position_mask
from requant.quantizers import Statistics
from requant.quantizers.rtn import RoundToNearest
from requant.quantizers.squeezellm import SqueezeLLM


@pytest.mark.parametrize("values_dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("quantizer", [RoundToNearest(3, 32), SqueezeLLM(3)])
def test_kept_weights_are_exact_up_to_the_rounding_of_the_residual(
    quantizer: RoundToNearest | SqueezeLLM, values_dtype: torch.dtype
) -> None:
    original = torch.randn(40, 80)
    positions = torch.randperm(original.numel())[:60]
    outliers, significant = positions[:40].sort().values, positions[40:].sort().values
    keep = position_mask(outliers, original.shape)
    dense = quantizer.quantize(original, Statistics(torch.rand(40, 80)), keep_mask=keep)
    whole = Decomposition(lambda name: original, {"a": dense}, {"a": outliers}, {"a": significant}, values_dtype)
    weight = whole.weight("a")
    kept = position_mask(positions, original.shape)
    base = dense.dequantize()
    assert torch.equal(weight[~kept], base[~kept])
    residual = (original - base)[kept].to(values_dtype).float()
    assert torch.equal(weight[kept], base[kept] + residual)
    assert (weight - original)[kept].abs().max() <= (original - base)[kept].abs().max() * 2**-8

    layer = whole.layer("a", None)
    assert torch.equal(layer.dequantize(), weight)
    assert (layer.outliers, layer.significant) == (40, 20)
    assert layer.sparse is not None
    assert layer.sparse.nnz == 60


def test_nothing_kept_has_no_sparse_part() -> None:
    original = torch.randn(16, 32)
    none = {"a": torch.empty(0, dtype=torch.int64)}
    dense = RoundToNearest(4, 32).quantize(original, Statistics())
    layer = Decomposition(lambda name: original, {"a": dense}, none, none, torch.float16).layer("a", torch.ones(16))
    assert layer.sparse is None
    assert layer.bias is not None
