"""Estimated times of one call of a layer: what memory, the schedulers and the latency of memory allow at best."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, log2
from typing import NamedTuple

from gpu_static.gpus import Gpu
from gpu_static.kernels import SPAN_INPUTS, THREADS, WARPS, Figures, Variant
from gpu_static.occupancy import resident_ctas
from gpu_static.plan import Plan, plan_linear

FORMULA = """\
estimate = max(bytes / bandwidth, instructions / issue rate, bytes * latency / bytes in flight) * waves + 2 us a launch
  bytes            codes, scales, zeros, tables, sparse entries and offsets, x, y, and sums of splits, written and read;
                   trellis: always sums (twice with a sparse part) and rotated x, written and read
  instructions     of all warps: main loop and sparse loop by the longest way, code around them by the shortest
  issue rate       multiprocessors * 4 * clock
  bytes in flight  CTAs resident at a time * what their rings have asked for; latency 0.8 us
  waves            ceil(CTAs / multiprocessors) * multiprocessors / CTAs: the fullest multiprocessor is the last
The memory bound is bytes / bandwidth. Nothing here was measured."""

LAUNCH_US = 2.0
TRELLIS_LAUNCHES = 3
"""Between two rotations, which count by their bytes alone."""
LATENCY_US = 0.8
"""Of memory under load; an assumption for all GPUs."""


class Layer(NamedTuple):
    """What is stored; parameters are 16-bit numbers."""

    format: str
    bits: int
    shape: tuple[int, int]
    """(out_features, in_features)"""
    zeros: bool = False
    sparse_percent: float = 0.0
    group_size: int = 128
    """Of uniform."""
    code: str = "1mad"
    """Of trellis."""

    @property
    def weights(self) -> int:
        """How many."""
        return self.shape[0] * self.shape[1]

    @property
    def packed_bytes(self) -> int:
        """Codes, scales, zeros, tables, and the sparse part."""
        out_features, in_features = self.shape
        parameters = {
            "uniform": out_features * ceil(in_features / self.group_size) * (1 + self.zeros),
            "lut": out_features << self.bits,
            "trellis": out_features,
        }[self.format]
        slices = ceil(out_features / 16) * ceil(in_features / 256)
        sparse = 4 * (self.entries + slices + 1) if self.sparse_percent else 0
        signs = out_features + in_features if self.format == "trellis" else 0
        return self.weights * self.bits // 8 + 2 * parameters + sparse + signs

    @property
    def entries(self) -> int:
        """Of the sparse part."""
        return round(self.weights * self.sparse_percent / 100)

    def variant(self, plan: Plan) -> Variant:
        """Its kernel, for bf16 inputs."""
        options = {
            "uniform": ("bf16", *("zeros",) * self.zeros, "groups of spans"),
            "lut": ("bf16", "no groups"),
            "trellis": (self.code,),
        }[self.format]
        return Variant(self.format, self.bits, options, plan.token_tiles, plan.row_warps)


class Estimate(NamedTuple):
    """Of one call."""

    memory_us: float
    issue_us: float
    latency_us: float
    waves: float
    launches: int
    instructions: float
    """Of all warps."""
    resident: int
    """CTAs of one multiprocessor."""

    @property
    def us(self) -> float:
        """By the formula."""
        return max(self.memory_us, self.issue_us, self.latency_us) * self.waves + LAUNCH_US * self.launches

    @property
    def share(self) -> float:
        """Of the memory bound."""
        return self.memory_us / self.us

    @property
    def bound(self) -> str:
        """What it is bound by."""
        times = {"memory": self.memory_us, "issue": self.issue_us, "latency": self.latency_us}
        return max(times, key=times.__getitem__)


class SparseCost(NamedTuple):
    """What a sparse part adds to a layer, as shares of what the dense part takes."""

    instructions: float
    time: float
    """More than its bytes take."""

    @classmethod
    def between(cls, dense: Estimate, sparse: Estimate) -> SparseCost:
        """Of estimates without it and with it."""
        added_us = sparse.us - dense.us - (sparse.memory_us - dense.memory_us)
        return cls(sparse.instructions / dense.instructions - 1, added_us / dense.us)


def warp_instructions(kernel: Figures, layer: Layer, plan: Plan, tokens: int) -> float:
    """Of one warp, on average."""
    input_warps = WARPS // plan.row_warps
    inputs = layer.shape[1] / plan.splits
    chunks = ceil(inputs / plan.chunk_inputs)
    spans = inputs / (SPAN_INPUTS * input_warps)
    main = spans * kernel.main_turn
    if not layer.sparse_percent:
        return kernel.frame + main + chunks * kernel.chunk
    slots = 32 >> ceil(log2(min(tokens, 8 * plan.token_tiles)))
    entries = 16 * inputs / chunks * layer.sparse_percent / 100
    # Warps take turns. Chunks have more or less entries than that: on average, the last turn is half empty.
    turns = max(entries / slots + 0.5, 1) / input_warps
    return kernel.sparse_frame + main + chunks * (kernel.sparse_chunk + turns * kernel.sparse_turn)


def estimate(layer: Layer, tokens: int, gpu: Gpu, kernels: Mapping[Variant, Figures]) -> Estimate:
    """One call with `tokens` rows of x; `kernels` are those compiled for the GPU's architecture."""
    out_features, in_features = layer.shape
    plan = plan_linear(layer.format, layer.bits, layer.shape, layer.sparse_percent > 0, tokens, gpu)
    kernel = kernels[layer.variant(plan)]
    resident = resident_ctas(gpu.architecture, THREADS, kernel.registers, kernel.shared_bytes + plan.shared_bytes)

    sums_bytes, launches = 2 * 4 * plan.splits * tokens * out_features, 1 + (plan.splits > 1)
    if layer.format == "trellis":
        launches = TRELLIS_LAUNCHES
        sums_bytes = sums_bytes * (1 + (layer.entries > 0)) + 2 * 2 * tokens * in_features
    elif launches == 1:
        sums_bytes = 0
    total_bytes = layer.packed_bytes + 2 * tokens * (in_features + out_features) + sums_bytes
    memory_us = total_bytes / gpu.bytes_per_us
    instructions = plan.ctas * WARPS * warp_instructions(kernel, layer, plan, tokens)
    span_bytes = 16 * SPAN_INPUTS * layer.bits // 8
    in_flight = min(plan.ctas, resident * gpu.multiprocessors) * WARPS * plan.spans_ahead * span_bytes
    return Estimate(
        memory_us,
        issue_us=instructions / gpu.issues_per_us,
        latency_us=total_bytes * LATENCY_US / in_flight,
        waves=ceil(plan.ctas / gpu.multiprocessors) * gpu.multiprocessors / plan.ctas,
        launches=launches,
        instructions=instructions,
        resident=resident,
    )
