"""The largest scores over all matrices together, without sorting or holding all scores.

Scores are not negative, so their fp32 bit patterns have the order of the numbers. A histogram of the leading bits
(sign, exponent, 7 bits of mantissa: about log2 of the score) finds the bin where the cut lies; only scores of that bin
are then compared one by one. Equal scores are taken by ascending position, so that the result is deterministic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

TRAILING_BITS = 16
BINS = 1 << (31 - TRAILING_BITS)

Positions = dict[str, Tensor]
"""Per matrix, int64 ascending flat positions (row x in_features + column)."""


def largest_scores(
    score: Callable[[str], Tensor], names: Sequence[str], count: int, excluded: Mapping[str, Tensor] | None = None
) -> Positions:
    """Positions of the `count` largest of all scores; score(name) -> fp32 [out, in], not negative, is called twice.

    Positions in `excluded` (int64 flat, per matrix) are never taken. Raises ValueError if fewer than `count` are left
    or a score is negative or NaN.
    """
    histogram = torch.zeros(BINS + 1, dtype=torch.int64)
    for name in names:
        # Bin 0 holds the excluded ones, which come out as -1.
        bins = (_ordered_bits(score(name), name, excluded) >> TRAILING_BITS) + 1
        histogram += torch.bincount(bins, minlength=BINS + 1).cpu()
    at_least = histogram[1:].flip(0).cumsum(0).flip(0)
    if count > int(at_least[0]):
        raise ValueError(f"count must be at most the number of eligible weights, {int(at_least[0])}, got {count}")
    if count <= 0:
        return {name: torch.empty(0, dtype=torch.int64) for name in names}
    cut = int((at_least >= count).nonzero().max())
    remaining = count - int(at_least[cut] - histogram[cut + 1])

    above: Positions = {}
    tied: list[Tensor] = []
    tied_bits: list[Tensor] = []
    for name in names:
        bits = _ordered_bits(score(name), name, excluded)
        bins = bits >> TRAILING_BITS
        above[name] = (bins > cut).nonzero()[:, 0].cpu()
        tied.append((bins == cut).nonzero()[:, 0].cpu())
        tied_bits.append(bits.cpu()[tied[-1]])
    order = torch.cat(tied_bits).sort(descending=True, stable=True).indices[:remaining]
    taken = torch.zeros(sum(part.numel() for part in tied), dtype=torch.bool)
    taken[order] = True
    for name, part, flags in zip(names, tied, taken.split([part.numel() for part in tied]), strict=True):
        above[name] = torch.cat((above[name], part[flags])).sort().values
    return above


def _ordered_bits(score: Tensor, name: str, excluded: Mapping[str, Tensor] | None) -> Tensor:
    """int32 [out x in] in the order of the scores, -1 where excluded."""
    # Adding 0 makes a copy, and a negative zero positive.
    bits = (score.flatten().float() + 0.0).view(torch.int32)
    if not bool(((bits >= 0) & (bits <= 0x7F800000)).all()):
        raise ValueError(f"scores of {name} must not be negative or NaN")
    if excluded is not None:
        bits[excluded[name].to(bits.device)] = -1
    return bits


def split_evenly(total: int, steps: int) -> list[int]:
    """`steps` counts that sum to `total`: equal ones, the last takes the remainder."""
    return [total // steps] * (steps - 1) + [total - total // steps * (steps - 1)]
