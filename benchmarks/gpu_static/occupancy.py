"""CTAs that run side by side on one multiprocessor."""

from __future__ import annotations

from gpu_static.gpus import MULTIPROCESSORS, SCHEDULERS

WARP_LANES = 32
REGISTER_UNIT = 256
"""Registers are handed to a warp in pieces of this size, from the file of its scheduler."""
SYSTEM_SHARED_BYTES = 1024
"""That the system keeps, of every CTA."""


def resident_ctas(architecture: int, threads: int, registers: int, shared_bytes: int) -> int:
    """The least that any of the four limits allows.

    Args:
        architecture: 10 * major + minor of the compute capability.
        threads: of one CTA.
        registers: of one thread.
        shared_bytes: of one CTA, static and dynamic.
    """
    limits = MULTIPROCESSORS[architecture]
    warps = -(-threads // WARP_LANES)
    registers_per_warp = -(-registers * WARP_LANES // REGISTER_UNIT) * REGISTER_UNIT
    warps_by_registers = limits.registers // SCHEDULERS // registers_per_warp * SCHEDULERS
    by_shared = limits.shared_bytes // (shared_bytes + SYSTEM_SHARED_BYTES)
    return min(limits.ctas, limits.warps // warps, warps_by_registers // warps, by_shared)
