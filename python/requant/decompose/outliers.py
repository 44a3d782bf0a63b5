"""Outliers: the weights of largest magnitude, taken out before the dense part is quantized again.

How many each matrix gives up is the self-adaptive part of ReQuant (arXiv 2503.01901, Algorithm 1). The paper's rule is
not public; the power law here is inferred, an option, and tried against the even share:

    ratio of matrix l  ~  (mean PQI of matrix l)^t       t = 0: the same ratio everywhere

SqueezeLLM's rule (arXiv 2306.07629): a weight is an outlier if |w| >= max(|q1 - c x IQR|, |q3 + c x IQR|), with q1 and
q3 the quartiles of its matrix, IQR = q3 - q1 and one c for the whole model, set so that the total is right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from requant.decompose.selection import largest_scores


def total_count(sizes: Sequence[int], percent: float) -> int:
    """round(percent of the sum of sizes)."""
    return round(percent / 100 * sum(sizes))


def power_law_counts(
    sensitivity: Sequence[float], sizes: Sequence[int], percent: float, exponent: float, limit: float = 10.0
) -> list[int]:
    """Outliers per matrix, with a ratio proportional to sensitivity^exponent; the counts sum to
    `total_count(sizes, percent)`. (Inferred.)

    sensitivity is not negative. No ratio exceeds `limit` times the mean one; the excess goes to the other matrices in
    proportion.
    """
    total = total_count(sizes, percent)
    mean_ratio = total / max(1, sum(sizes))
    highest = min(1.0, limit * mean_ratio)
    largest = max(sensitivity, default=0.0)
    shares = [(value / largest) ** exponent if largest > 0 else 1.0 for value in sensitivity]
    ratios = [0.0] * len(sizes)
    open_matrices, left = list(range(len(sizes))), float(total)
    while open_matrices:
        mass = sum(sizes[index] * shares[index] for index in open_matrices)
        if mass <= 0:
            # Nothing distinguishes the matrices that are left.
            shares = [1.0] * len(sizes)
            continue
        for index in open_matrices:
            ratios[index] = left * shares[index] / mass
        full = [index for index in open_matrices if ratios[index] > highest]
        if not full:
            break
        for index in full:
            ratios[index] = highest
            left -= highest * sizes[index]
        open_matrices = [index for index in open_matrices if index not in full]
    return _round_to_total([ratio * size for ratio, size in zip(ratios, sizes, strict=True)], sizes, total)


def _round_to_total(exact: Sequence[float], sizes: Sequence[int], total: int) -> list[int]:
    """Integers near `exact` that sum to `total`: rounded down, then one more where most was cut off."""
    counts = [min(int(value), size) for value, size in zip(exact, sizes, strict=True)]
    by_cut = sorted(range(len(exact)), key=lambda index: (counts[index] - exact[index], index))
    while sum(counts) < total:
        for index in by_cut:
            if sum(counts) < total and counts[index] < sizes[index]:
                counts[index] += 1
    return counts


def interquartile_counts(weight: Callable[[str], Tensor], names: Sequence[str], percent: float) -> list[int]:
    """Outliers per matrix by SqueezeLLM's rule; weight(name) -> fp32 [out, in].

    Solved for c, the rule is a score of each weight, c = (|w| - max(-q1, q3)) / IQR, of which the largest are taken.
    """

    def score(name: str) -> Tensor:
        values = weight(name)
        flat = values.flatten()
        # Exact quartiles by order statistics (torch.quantile refuses more than 16 million values).
        first, third = (float(flat.kthvalue(max(1, round(share * flat.numel()))).values) for share in (0.25, 0.75))
        spread = max(third - first, torch.finfo(torch.float32).tiny)
        return ((values.abs() - max(-first, third)) / spread).clamp_(min=0.0)

    total = total_count([weight(name).numel() for name in names], percent)
    return [positions.numel() for positions in largest_scores(score, names, total).values()]


def select_outliers(weight: Tensor, count: int) -> Tensor:
    """int64 ascending flat positions of the `count` largest |w| of one matrix, of equal ones the first. (Taking |w|
    rather than another score within a matrix is inferred.)
    """
    return largest_scores(lambda name: weight.abs(), ["weight"], count)["weight"]
