"""What a base quantizer is: weight in, dense low-bit weight out. ReQuant knows nothing else about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from requant_kernels.formats.lut import LutWeight
from requant_kernels.formats.uniform import UniformWeight

DenseWeight = UniformWeight | LutWeight


@dataclass(frozen=True, eq=False)
class Statistics:
    """What was measured about one weight matrix on the calibration data; a quantizer says which fields it needs."""

    fisher: Tensor | None = None
    """[out, in], any float dtype: the sum over samples of the squared gradient (diagonal Fisher information)."""


class Quantizer(Protocol):
    """A base method with its settings."""

    @property
    def needs_fisher(self) -> bool:
        """Whether `quantize` reads `statistics.fisher`."""
        ...

    def quantize(self, weight: Tensor, statistics: Statistics, *, keep_mask: Tensor | None = None) -> DenseWeight:
        """Quantizes weight fp32 [out, in].

        keep_mask bool [out, in] marks positions that will live in the sparse part: they get codes like any other, but
        must not influence the others.
        """
        ...
