"""SqueezeLLM's dense part: per output row, weighted k-means of the weights, 2^bits centroids (arXiv 2306.07629).

The sample weight of a weight is its diagonal Fisher information; it is 0 at kept positions. A row whose sample weights
are all 0 uses equal ones.

In one dimension the clusters of the best solution are intervals of the sorted row, and the cost of any interval follows
from prefix sums of mass and mass x value. So a solution is a list of boundaries:

    sorted row     w0 w1 w2 | w3 w4 | w5 w6 w7 w8 | ...       boundaries 3, 5, 9, ...

1. Exact dynamic programming over a few candidate boundaries per row. They are placed at even steps of the cumulated
   sum of (merge cost of two neighbours)^(1/4), so that they crowd where merging would be costly. (Optimal quantizers
   have a point density like the cube root of the sample density; the smaller exponent isolates heavy samples better,
   measured on the Fisher information of a real model.) A row with few weights has all boundaries as candidates.
2. Lloyd iterations, which move the boundaries to any position and can only lower the cost.
3. Exact dynamic programming over all ways to move each boundary a little, then Lloyd again, which leaves most local
   optima.

The result is within about 0.05 % of the exact optimum. Tables are stored in bf16, ascending, and codes are those of the
nearest stored centroid.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from requant.quantizers.base import Statistics
from requant_kernels.formats.lut import LutWeight
from requant_kernels.formats.rounding import nearest_codes

CANDIDATES = {4: 48, 8: 64, 16: 96}
"""Candidate boundaries by number of clusters."""
LLOYD_ITERATIONS = 30
REACH = 4
"""How far a boundary may move in one search of the neighbourhood."""
CHUNK_ELEMENTS = 1 << 20
"""Weights sorted at a time: bounds the memory."""
COST_ELEMENTS = 1 << 18
"""Entries of the cost matrices held at a time: about what a second-level cache holds."""


@dataclass(frozen=True)
class SqueezeLLM:
    """Settings of the method."""

    bits: int

    @property
    def needs_fisher(self) -> bool:
        """It does."""
        return True

    def quantize(self, weight: Tensor, statistics: Statistics, *, keep_mask: Tensor | None = None) -> LutWeight:
        """Quantizes weight fp32 [out, in] with statistics.fisher [out, in]; keep_mask bool [out, in] has no mass.

        Raises ValueError without Fisher information.
        """
        if statistics.fisher is None:
            raise ValueError("squeezellm needs the Fisher information, got none")
        device = weight.device
        codes = torch.empty(weight.shape, dtype=torch.uint8)
        table = torch.empty((weight.shape[0], 2**self.bits), dtype=torch.bfloat16)
        for rows in _row_chunks(weight.shape[0], weight.shape[1], CHUNK_ELEMENTS):
            values = weight[rows].to("cpu", torch.float32)
            mass = statistics.fisher[rows].to("cpu", torch.float32)
            if keep_mask is not None:
                mass = mass.masked_fill(keep_mask[rows].cpu(), 0.0)
            table[rows] = cluster_rows(values, mass, 2**self.bits).to(torch.bfloat16)
            codes[rows] = nearest_codes(values, table[rows].float())
        return LutWeight.pack(codes.to(device), table.to(device), bits=self.bits)


def _row_chunks(rows: int, row_elements: int, limit: int) -> Iterator[slice]:
    """Slices of rows that have at most `limit` elements (or one row)."""
    step = max(1, limit // row_elements)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def cluster_rows(values: Tensor, mass: Tensor, clusters: int) -> Tensor:
    """Centroids fp32 [rows, clusters], ascending, of values fp32 [rows, n] with sample weights mass >= 0 [rows, n]."""
    mass = torch.where(mass.sum(dim=1, keepdim=True) > 0, mass, 1.0)
    mass = mass / mass.amax(dim=1, keepdim=True)
    mass = mass / mass.sum(dim=1, keepdim=True)
    # Weights without mass would hide the gap between their neighbours; they are put where they make none.
    weighty = mass > 0
    values = torch.where(weighty, values, values.masked_fill(~weighty, -torch.inf).amax(dim=1, keepdim=True))
    values, mass = _sort_rows(values, mass)
    sums = _PrefixSums.of(values, mass)
    boundaries = _best_boundaries(sums, _spread_candidates(values, mass, CANDIDATES[clusters]), clusters)
    boundaries, _ = _lloyd(values, sums, boundaries)
    boundaries = _best_nearby(sums, boundaries)
    return _lloyd(values, sums, boundaries)[1]


def _sort_rows(values: Tensor, mass: Tensor) -> tuple[Tensor, Tensor]:
    """Both [rows, n], by ascending value. Value and mass are sorted as one 64-bit integer: a single vectorised sort,
    no permutation, and the same result whatever the order of equal values.

        bit 63 ... 32  value, as an integer of the same order      bit 31 ... 0  mass (not negative)
    """
    pairs = torch.stack((mass.view(torch.int32), _ordered(values.view(torch.int32))), dim=-1)
    pairs.view(torch.int64).squeeze(-1).numpy().sort(axis=1)
    mass, key = pairs.unbind(dim=-1)
    return _ordered(key).view(torch.float32), mass.contiguous().view(torch.float32)


def _ordered(bits: Tensor) -> Tensor:
    """Maps fp32 bit patterns to int32 in the order of the numbers; its own inverse."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@dataclass(frozen=True)
class _PrefixSums:
    """Sums over the first 0 .. n sorted samples of a row of mass 1, fp64 [rows, n + 1]; values count from its mean."""

    mass: Tensor
    moment: Tensor
    mean: Tensor

    @classmethod
    def of(cls, values: Tensor, mass: Tensor) -> _PrefixSums:
        mean = (values * mass).sum(dim=1, keepdim=True) / mass.sum(dim=1, keepdim=True)
        sums = torch.zeros((2, values.shape[0], values.shape[1] + 1), dtype=torch.float64)
        torch.cumsum(mass, dim=1, dtype=torch.float64, out=sums[0, :, 1:])
        torch.cumsum((values - mean).mul_(mass), dim=1, dtype=torch.float64, out=sums[1, :, 1:])
        return cls(sums[0], sums[1], mean)

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """(mass, moment) fp64 before positions int64 [rows, ...]."""
        flat = positions.flatten(1)
        return self.mass.gather(1, flat).view(positions.shape), self.moment.gather(1, flat).view(positions.shape)

    def __getitem__(self, rows: slice) -> _PrefixSums:
        return _PrefixSums(self.mass[rows], self.moment[rows], self.mean[rows])


def _spread_candidates(values: Tensor, mass: Tensor, count: int) -> Tensor:
    """int64 [rows, count + 1], ascending from 0 to n (see the module's text); all of 0 .. n if there are few."""
    rows, n = values.shape
    if n <= count:
        return torch.arange(n + 1).expand(rows, -1)
    left, right = mass[:, :-1], mass[:, 1:]
    harmonic = left * right / (left + right).clamp_min(torch.finfo(torch.float32).tiny)
    spread = harmonic.mul_(values.diff(dim=1).square_()).sqrt_().sqrt_().cumsum_(dim=1)
    steps = (torch.arange(1, count) - 0.5) / (count - 1)
    inner = torch.searchsorted(spread, spread[:, -1:] * steps) + 1
    ends = torch.tensor([0, n]).expand(rows, -1)
    return torch.cat((ends[:, :1], inner.clamp_(max=n), ends[:, 1:]), dim=1)


def _best_boundaries(sums: _PrefixSums, candidates: Tensor, clusters: int) -> Tensor:
    """int64 [rows, clusters - 1]: the best boundaries among the candidates [rows, m], in chunks of rows."""
    chunks = _row_chunks(len(candidates), candidates.shape[1] ** 2, COST_ELEMENTS)
    return torch.cat([_optimize(sums[rows], candidates[rows], clusters) for rows in chunks])


def _optimize(sums: _PrefixSums, candidates: Tensor, clusters: int) -> Tensor:
    """Dynamic programming over the candidates.

    The cost of an interval is a constant minus its gain, moment^2 / mass, so the sum of gains is to be maximised.
    """
    rows, count = candidates.shape
    mass, moment = (sum.float() for sum in sums.at(candidates))
    # gain[row, stop, start] of the interval between two candidates
    gain = _gain(mass[:, :, None] - mass[:, None, :], moment[:, :, None] - moment[:, None, :])
    gain.masked_fill_(torch.ones(count, count, dtype=torch.bool).triu(1), -torch.inf)
    best = [gain[:, :, 0]]
    for _ in range(clusters - 2):
        best.append((gain + best[-1][:, None, :]).amax(dim=2))
    stop = torch.full((rows, 1), count - 1)
    chosen = []
    for previous in reversed(best):
        gains_to_stop = gain.gather(1, stop[:, :, None].expand(-1, -1, count)).squeeze(1)
        stop = (gains_to_stop + previous).argmax(dim=1, keepdim=True)
        chosen.append(stop)
    return candidates.gather(1, torch.cat(chosen[::-1], dim=1))


def _best_nearby(sums: _PrefixSums, boundaries: Tensor) -> Tensor:
    """int64 [rows, clusters - 1]: the best of all ways to move the boundaries by at most REACH each.

    Dynamic programming from boundary to boundary; choice c of boundary k is at boundaries[k] + c - REACH.
    """
    n = sums.mass.shape[1] - 1
    choices = (boundaries[:, :, None] + torch.arange(-REACH, REACH + 1)).clamp_(0, n)
    mass, moment = sums.at(choices)
    best = _gain(mass[:, 0].clone(), moment[:, 0].clone())
    starts = []
    for index in range(1, boundaries.shape[1]):
        gain = _gain(
            mass[:, index, :, None] - mass[:, index - 1, None, :],
            moment[:, index, :, None] - moment[:, index - 1, None, :],
        )
        gain.masked_fill_(choices[:, index, :, None] < choices[:, index - 1, None, :], -torch.inf)
        best, start = gain.add_(best[:, None, :]).max(dim=2)
        starts.append(start)
    best += _gain(sums.mass[:, -1:] - mass[:, -1], sums.moment[:, -1:] - moment[:, -1])
    choice = best.argmax(dim=1, keepdim=True)
    chosen = [choice]
    for start in reversed(starts):
        choice = start.gather(1, choice)
        chosen.append(choice)
    return choices.gather(2, torch.stack(chosen[::-1], dim=1)).squeeze(2)


def _gain(mass: Tensor, moment: Tensor) -> Tensor:
    """moment^2 / mass of intervals; overwrites both."""
    return moment.square_().div_(mass.clamp_min_(_negligible_mass(mass.dtype)))


def _negligible_mass(dtype: torch.dtype) -> float:
    """Below this a difference of prefix sums of a row of mass 1 is mostly rounding, and must not be a divisor."""
    return 16 * torch.finfo(dtype).eps


def _lloyd(values: Tensor, sums: _PrefixSums, boundaries: Tensor) -> tuple[Tensor, Tensor]:
    """Lloyd iterations from the given boundaries; returns the last boundaries and the centroids fp32 [rows, clusters].

    An interval of negligible mass repeats the centroid before it (the first one: the least value of the row).
    """
    rows, n = values.shape
    first, last = torch.zeros((rows, 1), dtype=torch.int64), torch.full((rows, 1), n)
    for _ in range(LLOYD_ITERATIONS):
        edges = torch.cat((first, boundaries, last), dim=1)
        mass, moment = (sum.diff(dim=1) for sum in sums.at(edges))
        heavy = mass > _negligible_mass(mass.dtype)
        centroids = torch.where(heavy, moment / mass + sums.mean, -torch.inf)
        centroids[:, :1] = torch.maximum(centroids[:, :1], values[:, :1].double())
        centroids = centroids.cummax(dim=1).values.float()
        moved = torch.searchsorted(values, (centroids[:, 1:] + centroids[:, :-1]) / 2)
        if torch.equal(moved, boundaries):
            break
        boundaries = moved
    return boundaries, centroids
