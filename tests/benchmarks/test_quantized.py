"""Random layers stand for real ones: same tensors, same sizes, finite results."""

from __future__ import annotations

import copy

import pytest
import torch
from contender import Kind
from quantized import FORMATS, Format, QuantizedLayer, contenders, is_supported, quantize_layer, random_layer
from rotation import Rotation, copies_for
from torch import nn

SUPPORTED = [format for format in FORMATS if is_supported(format)]


@pytest.mark.parametrize("sparse_percent", [0.0, 0.5])
@pytest.mark.parametrize("format", SUPPORTED, ids=lambda format: format.name)
def test_as_large_as_a_real_layer(format: Format, sparse_percent: float) -> None:
    layer = random_layer(format, sparse_percent, 96, 320)
    real = quantize_layer(nn.Linear(320, 96, bias=False), format, sparse_percent)
    for name in layer.dense.tensors():
        assert getattr(layer, name).shape == getattr(real, name).shape
        assert getattr(layer, name).dtype == getattr(real, name).dtype
    assert (layer.sparse is None) == (real.sparse is None)
    assert layer(torch.randn(3, 320)).isfinite().all()


def test_unknown_format_is_not_supported() -> None:
    assert not is_supported(Format("none", "no such format", 4))
    assert {format.format for format in SUPPORTED} >= {"uniform", "lut"}


def test_names_are_unique() -> None:
    names = [contender.name for contender in contenders()]
    assert len(names) == len(set(names)) >= 2 * len(SUPPORTED)
    assert all(contender.kind is Kind.OURS for contender in contenders())


def test_rotation_uses_every_copy_in_turn() -> None:
    layer = QuantizedLayer(random_layer(SUPPORTED[0], 0.0, 32, 64))
    rotation = Rotation(layer, 3 * layer.weight_bytes)
    assert len(rotation) == 3
    for index, each in enumerate(rotation._layers):
        each.module.scale.fill_(index)
    call = rotation.bind(torch.ones(1, 64))
    sums = [float(call().abs().sum()) for _ in range(6)]
    assert sums[:3] == sums[3:]
    assert len(set(sums)) == 3


def test_copies_are_independent() -> None:
    layer = QuantizedLayer(random_layer(SUPPORTED[0], 0.5, 32, 64))
    assert copy.deepcopy(layer).module.codes.data_ptr() != layer.module.codes.data_ptr()


@pytest.mark.parametrize(("size", "copies"), [(100, 10), (99, 11), (10_000, 2), (1, 512)])
def test_number_of_copies(size: int, copies: int) -> None:
    assert copies_for(size, 1000) == copies
