"""Our own contenders: every format, with and without a sparse part, 16-bit and int8 activations."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from contender import Contender, Kind
from rotation import Call
from torch import Tensor, nn

from requant_kernels import DenseSparseLinear
from requant_kernels.formats import LayerSpec, SparseWeight
from requant_kernels.formats.activations import ACTIVATIONS, ROUNDED_FORMATS

SPARSE_PERCENT = 0.5
UNIFORM_GROUP_SIZE = 128
# A layer this small is quantized as a user would; a large one gets its values, drawn at random.
SAMPLE_SHAPE = (64, 256)


@dataclass(frozen=True)
class Format:
    """A dense format as `DenseSparseLinear.from_linear` takes it."""

    name: str
    format: str
    bits: int
    group_size: int = -1
    table: str = "row"
    code: str = "1mad"


FORMATS = (
    *(Format(f"uniform {bits} bit", "uniform", bits, UNIFORM_GROUP_SIZE) for bits in (2, 3, 4, 8)),
    *(Format(f"lut {bits} bit", "lut", bits) for bits in (2, 3, 4)),
    Format("nf4", "lut", 4, UNIFORM_GROUP_SIZE, table="nf4"),
    *(Format(f"trellis {bits} bit", "trellis", bits) for bits in (2, 3, 4)),
    *(Format(f"trellis 2 bit, {code}", "trellis", 2, code=code) for code in ("3inst", "hyb")),
)


def is_supported(format: Format) -> bool:
    """Whether this version can make the format."""
    try:
        _sample(format, 0.0)
    except ValueError:
        return False
    return True


def quantize_layer(linear: nn.Linear, format: Format, sparse_percent: float) -> DenseSparseLinear:
    """As a user would."""
    return DenseSparseLinear.from_linear(
        linear,
        format=format.format,
        bits=format.bits,
        sparse_percent=sparse_percent,
        table=format.table,
        code=format.code,
    )


@functools.cache
def _sample(format: Format, sparse_percent: float) -> DenseSparseLinear:
    out_features, in_features = SAMPLE_SHAPE
    return quantize_layer(nn.Linear(in_features, out_features, bias=False), format, sparse_percent)


def random_layer(
    format: Format, sparse_percent: float, out_features: int, in_features: int, activations: str = "16bit"
) -> DenseSparseLinear:
    """As large and of the same kinds of values as a real layer, without the time that quantizing takes: every tensor
    of the dense part is drawn from the same tensor of a small quantized layer.
    """
    sample = _sample(format, 0.0)
    spec: LayerSpec = replace(sample.spec, shape=(out_features, in_features))
    layer = DenseSparseLinear.from_spec(spec)
    for name in spec.tensors():
        values = getattr(sample, name).flatten()
        buffer = getattr(layer, name)
        buffer.copy_(values[torch.randint(values.numel(), buffer.shape)])
    sparse = None
    if sparse_percent:
        mask = torch.rand(out_features, in_features) < sparse_percent / 100
        sparse = SparseWeight.from_dense(torch.randn(out_features, in_features), mask)
    return DenseSparseLinear(layer.dense, sparse, activations=activations)


class QuantizedLayer:
    """A DenseSparseLinear as a benchmark's layer."""

    def __init__(self, module: DenseSparseLinear) -> None:
        self.module = module
        self.weight_bytes = module.stored_bytes

    def bind(self, x: Tensor) -> Call:
        """The module's own call, with all that it costs from Python."""
        return functools.partial(self.module, x)


def contender(format: Format, sparse_percent: float = 0.0, activations: str = "16bit") -> Contender:
    """One of ours."""
    name = format.name + (f" + {sparse_percent:g} % sparse" if sparse_percent else "")
    if activations != "16bit":
        name += f", {activations} activations"

    def make(out_features: int, in_features: int) -> QuantizedLayer:
        return QuantizedLayer(random_layer(format, sparse_percent, out_features, in_features, activations))

    return Contender(name, Kind.OURS, format.bits, make, format.group_size, sparse_percent)


def contenders() -> Iterator[Contender]:
    """All that this version supports."""
    for format in filter(is_supported, FORMATS):
        for kind in ACTIVATIONS if format.format in ROUNDED_FORMATS else ACTIVATIONS[:1]:
            for sparse_percent in (0.0, SPARSE_PERCENT):
                yield contender(format, sparse_percent, kind)
