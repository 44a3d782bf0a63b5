"""Facts about GPUs, from NVIDIA's white papers and the CUDA programming guide."""

from __future__ import annotations

from typing import NamedTuple


class Multiprocessor(NamedTuple):
    """What one multiprocessor of an architecture holds (CUDA programming guide, "Compute Capabilities")."""

    warps: int
    ctas: int
    registers: int
    shared_bytes: int


MULTIPROCESSORS = {
    80: Multiprocessor(warps=64, ctas=32, registers=65536, shared_bytes=164 << 10),
    89: Multiprocessor(warps=48, ctas=24, registers=65536, shared_bytes=100 << 10),
    90: Multiprocessor(warps=64, ctas=32, registers=65536, shared_bytes=228 << 10),
    100: Multiprocessor(warps=64, ctas=32, registers=65536, shared_bytes=228 << 10),
}
"""By 10 * major + minor of the compute capability."""

SCHEDULERS = 4
"""Of one multiprocessor, on all of these: each issues one instruction of one warp per cycle."""


class Gpu(NamedTuple):
    """One product. Nothing here was measured."""

    name: str
    architecture: int
    multiprocessors: int
    clock_ghz: float
    """Boost clock."""
    bandwidth_gb_per_s: float
    """Of memory, by its specification."""

    @property
    def issues_per_us(self) -> float:
        """Warp instructions."""
        return self.multiprocessors * SCHEDULERS * self.clock_ghz * 1e3

    @property
    def bytes_per_us(self) -> float:
        """Of memory."""
        return self.bandwidth_gb_per_s * 1e3

    def instructions_per_weight(self, bits: int) -> float:
        """Of one thread, that fit into the time in which memory delivers a weight."""
        weights_per_us = self.bytes_per_us * 8 / bits
        return self.issues_per_us * 32 / weights_per_us


A100 = Gpu("A100-80G", 80, multiprocessors=108, clock_ghz=1.41, bandwidth_gb_per_s=2039)
RTX_4090 = Gpu("RTX 4090", 89, multiprocessors=128, clock_ghz=2.52, bandwidth_gb_per_s=1008)
H100 = Gpu("H100 SXM", 90, multiprocessors=132, clock_ghz=1.83, bandwidth_gb_per_s=3350)
B200 = Gpu("B200", 100, multiprocessors=148, clock_ghz=1.85, bandwidth_gb_per_s=8000)
GPUS = (A100, RTX_4090, H100, B200)
