"""Round to nearest: evenly spaced levels between the least and the greatest weight of each group.

Asymmetric (a zero point per group) or symmetric; scales and zeros are stored in bf16 and codes are chosen against the
stored values. Kept positions are left out of a group's range, instead of counting as zeros: that keeps the range tight.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from requant.quantizers.base import Statistics
from requant_kernels.formats.rounding import round_uniform
from requant_kernels.formats.uniform import UniformWeight


@dataclass(frozen=True)
class RoundToNearest:
    """Settings of the method; `group_size` is a multiple of 32, or -1 for a whole row. A last group may be short."""

    bits: int
    group_size: int = 128
    symmetric: bool = False

    @property
    def needs_fisher(self) -> bool:
        """It does not."""
        return False

    def quantize(self, weight: Tensor, statistics: Statistics, *, keep_mask: Tensor | None = None) -> UniformWeight:
        """Quantizes weight fp32 [out, in]; positions in keep_mask bool [out, in] do not influence the scales."""
        return round_uniform(
            weight, bits=self.bits, group_size=self.group_size, symmetric=self.symmetric, keep_mask=keep_mask
        )
