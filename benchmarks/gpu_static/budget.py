"""Figures of every linear kernel that must not grow: benchmarks/gpu_budget.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from gpu_static.kernels import Figures, LinearKernel, Variant
from gpu_static.roofline import SparseCost

FILE = Path(__file__).resolve().parents[1] / "gpu_budget.json"

TOLERANCES = {"main_turn": 1.02} | dict.fromkeys(("chunk", "frame", "sparse_turn", "sparse_chunk", "sparse_frame"), 1.1)
"""Of instructions: what another version of the compiler may do."""
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


LARGE_LAYER_BYTES = 64e6
"""Packed: from here on, a layer of one token is to be bound by memory."""
SHARE_OF_MEMORY_BOUND = 0.85
BOUND_BY_MEMORY: dict[int, dict[str, tuple[int, ...]]] = {
    80: {"uniform": (2, 3, 4, 8), "lut": (2, 3, 4)},
    89: {"uniform": (2, 3, 4, 8), "lut": (2, 3, 4), "trellis": (2, 3, 4)},
    90: {"uniform": (2, 3, 4, 8), "lut": (3, 4)},
}
"""Architecture -> format -> bits of which all large layers have that share of the memory bound."""
SPARSE_PERCENT = 0.5
SPARSE_COST = SparseCost(instructions=0.1, time=0.02)
"""Of so many per cent, at most, in all large layers of any format."""
SPARSE_TIME_HELD = (80, 89, 90)
"""Architectures on which its time is; where instructions bound everything, those of the sparse part are all time."""


def excesses(fresh: Figures, committed: Figures) -> list[str]:
    """How fresh figures exceed the committed ones; empty if they do not."""
    limits: dict[str, float] = committed._asdict()
    limits |= {name: limits[name] * tolerance for name, tolerance in TOLERANCES.items()}
    limits |= {"registers": -(-committed.registers // REGISTER_UNIT) * REGISTER_UNIT, "spill_bytes": 0}
    found = fresh._asdict()
    return [f"{name}: {found[name]}, more than {most:.4g}" for name, most in limits.items() if found[name] > most]


def limit(architecture: int, variant: Variant) -> float | None:
    """Of instructions per weight, or None where there is none."""
    kept_up = variant.bits in KEPT_UP.get(architecture, {}).get(variant.format, ())
    if kept_up and variant.token_tiles == DECODING_TILES and "any groups" not in variant.options:
        return LIMITS[architecture][variant.bits]
    return None


def load() -> dict[int, dict[Variant, Figures]]:
    """Architecture -> variant -> figures."""
    content = json.loads(FILE.read_text(encoding="utf-8"))
    return {
        int(architecture): {Variant.parse(name): Figures(**figures) for name, figures in kernels.items()}
        for architecture, kernels in content.items()
    }


def save(compiled: Mapping[int, Mapping[Variant, LinearKernel]]) -> None:
    """Writes the figures of all kernels, a line each."""
    blocks = []
    for architecture, kernels in sorted(compiled.items()):
        lines = [
            f'    "{variant}": {json.dumps(kernel.figures._asdict())}' for variant, kernel in sorted(kernels.items())
        ]
        blocks.append(f'  "{architecture}": {{\n' + ",\n".join(lines) + "\n  }")
    FILE.write_text("{\n" + ",\n".join(blocks) + "\n}\n", encoding="utf-8")
