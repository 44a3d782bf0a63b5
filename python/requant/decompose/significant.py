"""Significant weights: those whose quantization costs most by the Post-quantization Integral, restored step by step
(ReQuant, arXiv 2503.01901, Algorithm 2).

    current = dense + outliers
    repeat for every step:
        PQI from the original weights to the current ones
        restore the share of this step that has the largest |PQI| over all matrices together

The ranking over all matrices together is inferred. Outliers and already restored weights are never picked.

`change_score` and `random_score` are controls for studies, weaker reasons to restore a weight. A third one, the
gradient at the original weights x change, is the integral by the rule `left` with one interval.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from requant.decompose.selection import Positions, largest_scores, split_evenly

Score = Callable[[str], Tensor]
"""fp32 [out, in], not negative, for a matrix name."""


def detach_significant(
    measure: Callable[[Positions], Score], names: Sequence[str], count: int, steps: int, outliers: Mapping[str, Tensor]
) -> Positions:
    """`count` positions in all, taken in `steps` equal parts, the last with the remainder.

    measure(significant so far) -> the score of every weight at this point, its |PQI|. Positions in `outliers` are
    excluded.
    """
    significant: Positions = {name: torch.empty(0, dtype=torch.int64) for name in names}
    for part in split_evenly(count, steps):
        if part == 0:
            continue
        excluded = {name: torch.cat((outliers[name], significant[name])) for name in names}
        found = largest_scores(measure(significant), names, part, excluded)
        significant = {name: torch.cat((significant[name], found[name])).sort().values for name in names}
    return significant


def change_score(original: Score, quantized: Score) -> Score:
    """Control: |quantized - original|."""
    return lambda name: (quantized(name) - original(name)).abs()


def random_score(names: Sequence[str], shape: Callable[[str], torch.Size], seed: int) -> Score:
    """Control: uniform random numbers, the same whenever a matrix is asked for."""

    def score(name: str) -> Tensor:
        generator = torch.Generator().manual_seed(seed * len(names) + names.index(name))
        return torch.rand(shape(name), generator=generator)

    return score
