"""Measures, on the CUDA device of this machine, up to how many tokens the fused kernels are faster than prefill, and
writes it into a file for REQUANT_ROUTES.

    python -m benchmarks.tune routes.json
    REQUANT_ROUTES=routes.json python my_program.py
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from requant_kernels import DenseSparseLinear, dispatch
from requant_kernels.dispatch import Backend, Phases

SHAPES = ((4096, 4096), (14336, 4096), (4096, 14336))
"""(out_features, in_features): attention and MLP of an 8B model."""

TOKENS = (1, 2, 4, 8, 12, 16, 24, 32, 40, 48, 56, 64)
BITS = 4
ROUNDS = 20
FLUSHED_BYTES = 256 << 20
"""Written between two measurements, so that no weight is still in the second-level cache."""


def phases(fused_ms: Sequence[float], prefill_ms: Sequence[float], tokens: Sequence[int] = TOKENS) -> Phases:
    """The routes that these times, one per number of tokens, speak for: fused as long as it is not slower."""
    limit = 0
    for count, fused, prefill in zip(tokens, fused_ms, prefill_ms, strict=True):
        if fused > prefill:
            break
        limit = count
    return ((limit, "fused"), (None, "prefill")) if limit else ((None, "prefill"),)


def measure_ms(run: Callable[[], object]) -> float:
    """Median time on the device."""
    flushed = torch.empty(FLUSHED_BYTES, dtype=torch.uint8, device="cuda")
    run()
    times = []
    for _ in range(ROUNDS):
        flushed.zero_()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


def tune(backend: Backend, format: str) -> Phases:
    """The routes of one format on the current device, from the total over SHAPES."""
    totals = {"fused": [0.0] * len(TOKENS), "prefill": [0.0] * len(TOKENS)}
    for out_features, in_features in SHAPES:
        linear = nn.Linear(in_features, out_features, bias=False, device="cuda", dtype=torch.bfloat16)
        weight = DenseSparseLinear.from_linear(linear, format, bits=BITS).operands
        for place, count in enumerate(TOKENS):
            x = torch.randn(count, in_features, device="cuda", dtype=torch.bfloat16)
            for phase, total in totals.items():
                kernel = backend.kernels[format, phase]
                total[place] += measure_ms(functools.partial(kernel, x, weight, None, "16bit"))
    for count, fused, prefill in zip(TOKENS, totals["fused"], totals["prefill"], strict=True):
        print(f"{format}, {count} tokens: fused {fused:.3f} ms, prefill {prefill:.3f} ms")
    return phases(totals["fused"], totals["prefill"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Adds this device's routes to the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="JSON; what it says of other architectures stays")
    file: Path = parser.parse_args(arguments).file
    backend = dispatch.backends()["cuda"]
    if backend.unavailable_reason is not None or backend.architecture is None:
        parser.error(f"backend cuda is not live: {backend.unavailable_reason}")
    architecture = backend.architecture(torch.device("cuda", torch.cuda.current_device()))
    formats = sorted(
        format for name, format in dispatch.ROUTES if name == "cuda" and (format, "fused") in backend.kernels
    )
    add_routes(file, backend.name, architecture, {format: tune(backend, format) for format in formats})
    print(f"{file}: routes of {architecture}; use it with REQUANT_ROUTES={file}")


def add_routes(file: Path, backend: str, architecture: str, routes: dict[str, Phases]) -> None:
    """Writes one architecture's routes beside those that the file has."""
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    content.setdefault(backend, {})[architecture] = routes
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
