"""Figures of every linear kernel that must not grow: benchmarks/gpu_budget.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from gpu_static.kernels import LinearKernel, Variant

FILE = Path(__file__).resolve().parents[1] / "gpu_budget.json"

TOLERANCE = 1.02
"""Of instructions per weight: what another version of the compiler may do."""
REGISTER_UNIT = 8
"""Registers are handed out in such pieces."""

DECODING_TILES = 1
"""8-token tiles of a CTA for few tokens: what the limits are for."""

LIMITS = {80: {2: 2.4, 3: 3.6, 4: 4.8}, 89: {2: 10.0, 3: 15.0, 4: 20.0}, 90: {2: 2.3, 3: 3.5, 4: 4.6}}
"""Architecture -> bits -> instructions per weight that A100, RTX 4090, H100 issue in the time that memory takes."""

KEPT_UP: dict[int, dict[str, tuple[int, ...]]] = {
    80: {"uniform": (2, 3, 4), "lut": (3, 4)},
    89: {"uniform": (2, 3, 4), "lut": (2, 3, 4), "trellis": (2, 3, 4)},
    90: {"uniform": (2, 3, 4), "lut": (3, 4)},
}
"""Architecture -> format -> bits for which the limits are to be met: with scales by spans, or without any."""


def figures(kernel: LinearKernel) -> dict[str, float]:
    """What is committed of one kernel."""
    return {
        "registers": kernel.kernel.registers,
        "spill_bytes": kernel.kernel.spill_bytes,
        "shared_bytes": kernel.kernel.shared_bytes,
        "instructions_per_weight": round(kernel.instructions_per_weight, 3),
    }


def excesses(fresh: Mapping[str, float], committed: Mapping[str, float]) -> list[str]:
    """How fresh figures exceed the committed ones; empty if they do not."""
    limits = dict(committed)
    limits["instructions_per_weight"] = committed["instructions_per_weight"] * TOLERANCE
    limits["registers"] = -(-committed["registers"] // REGISTER_UNIT) * REGISTER_UNIT
    limits["spill_bytes"] = 0
    return [f"{name}: {fresh[name]}, more than {most:.4g}" for name, most in limits.items() if fresh[name] > most]


def limit(architecture: int, variant: Variant) -> float | None:
    """Of instructions per weight, or None where there is none."""
    kept_up = variant.bits in KEPT_UP.get(architecture, {}).get(variant.format, ())
    if kept_up and variant.token_tiles == DECODING_TILES and "any groups" not in variant.options:
        return LIMITS[architecture][variant.bits]
    return None


def load() -> dict[int, dict[str, dict[str, float]]]:
    """Architecture -> variant -> figures."""
    content = json.loads(FILE.read_text(encoding="utf-8"))
    return {int(architecture): kernels for architecture, kernels in content.items()}


def save(compiled: Mapping[int, Mapping[Variant, LinearKernel]]) -> None:
    """Writes the figures of all kernels, a line each."""
    blocks = []
    for architecture, kernels in sorted(compiled.items()):
        lines = [f'    "{variant}": {json.dumps(figures(kernel))}' for variant, kernel in sorted(kernels.items())]
        blocks.append(f'  "{architecture}": {{\n' + ",\n".join(lines) + "\n  }")
    FILE.write_text("{\n" + ",\n".join(blocks) + "\n}\n", encoding="utf-8")
