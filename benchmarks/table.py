"""Measures layers and prints a markdown table per shape and number of tokens.

    python benchmarks/table.py --shapes 8192x3072 --tokens 1 4 16 --json results.json
    python benchmarks/table.py --from results.json --view speed-ups

All contenders take turns, round by round. docs/benchmarks.md says what the columns mean.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

import machine
import result_tables
import torch
from contender import Contender
from estimate import total_seconds
from measures import Row, summarize
from probes import STREAMS, Limits, Probes
from rotation import Rotation, rotated_bytes
from selection import add_options, select
from turns import measure

VIEWS = {"full": result_tables.full, "speed-ups": result_tables.speed_ups}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--rounds", type=int, default=15, help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, after every table")
    parser.add_argument("--estimate", action="store_true", help="only say how long it would take")
    parser.add_argument(
        "--from", dest="source", type=Path, metavar="FILE", help="print what --json wrote; no measuring"
    )
    parser.add_argument("--view", choices=list(VIEWS), default="full", help="of --from; default: %(default)s")
    return parser.parse_args(arguments)


def print_tables(result: dict[str, Any], view: str) -> None:
    """What was measured before."""
    print(heading(result))
    for shape, rows in groupby(result["rows"], key=lambda row: row["shape"]):
        by_tokens = [list(rows)] if view == "speed-ups" else [list(g) for _, g in groupby(rows, lambda r: r["tokens"])]
        for group in by_tokens:
            tokens = "" if view == "speed-ups" else f", {result_tables.tokens(group[0]['tokens'])}"
            print(f"\n### {shape}{tokens}\n\n{VIEWS[view](group)}")


def heading(result: dict[str, Any]) -> str:
    """The machine in one line."""
    facts, settings = result["machine"], result["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items() if version[0].isdigit())
    return (
        f"{facts['cpu']}, {facts['threads']} threads, {facts['instruction_set']} in use, "
        f"{facts['last_level_cache_bytes'] >> 20} MB last-level cache; {versions}; {settings['rounds']} rounds, "
        f"{settings['rotated_bytes'] >> 20} MB of copies per row"
    )


def probes_line(limits: Sequence[Limits]) -> str:
    """What the machine could do while a table was measured: smallest to largest."""

    def span(values: Sequence[float]) -> str:
        return f"{min(values):.1f}-{max(values):.1f}"

    products = [
        f"{name} {span([limit.gflops[name] for limit in limits])}"
        for name in limits[0].gflops
        if limits[0].gflops[name]
    ]
    return (
        f"read {span([limit.stream_gb_per_s for limit in limits])} GB/s (one stream per thread), "
        f"{span([limit.read_gb_per_s for limit in limits])} GB/s ({STREAMS} streams); GFLOP/s: {', '.join(products)}"
    )


def measure_shape(
    shape: tuple[int, int], contenders: Sequence[Contender], options: argparse.Namespace, rotated: int, probes: Probes
) -> list[tuple[list[Row], list[Limits]]]:
    """Rows and limits for every number of tokens; each printed when it is there."""
    rotations = {contender.name: Rotation(contender.make(*shape), rotated) for contender in contenders}
    sizes = {name: rotation.weight_bytes for name, rotation in rotations.items()}
    results = []
    for tokens in options.tokens:
        x = torch.randn(tokens, shape[1]).to(torch.bfloat16)
        times_ms, limits = measure(contenders, rotations, x, options.rounds, probes)
        rows = summarize(*shape, tokens, contenders, sizes, times_ms, limits)
        print(f"\n### {rows[0].shape}, {result_tables.tokens(tokens)}\n\n{probes_line(limits)}\n")
        print(result_tables.full([row.to_dict() for row in rows]), flush=True)
        results.append((rows, limits))
    return results


@torch.inference_mode()
def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, or prints what was measured."""
    options = parse(arguments)
    if options.source is not None:
        print_tables(json.loads(options.source.read_text()), options.view)
        return
    torch.set_num_threads(options.threads)
    contenders = select(options.formats, options.peers)
    probes = Probes(options.threads)
    rotated = rotated_bytes(len(contenders))
    expected = total_seconds(options.shapes, options.tokens, contenders, options.rounds, rotated, probes.limits())
    print(f"{len(contenders)} contenders; this will take about {expected / 60:.1f} minutes", file=sys.stderr)
    if options.estimate:
        return
    start = time.perf_counter()
    settings = {"rounds": options.rounds, "rotated_bytes": rotated}
    result: dict[str, Any] = {"machine": machine.describe(options.threads), "settings": settings}
    result |= {"rows": [], "limits": []}
    print(heading(result))
    for shape in options.shapes:
        for rows, limits in measure_shape(shape, contenders, options, rotated, probes):
            result["rows"] += [row.to_dict() for row in rows]
            result["limits"].append(
                {"shape": rows[0].shape, "tokens": rows[0].tokens, "rounds": list(map(asdict, limits))}
            )
            if options.json is not None:
                options.json.write_text(json.dumps(result, indent=1) + "\n")
    print(f"took {(time.perf_counter() - start) / 60:.1f} minutes", file=sys.stderr)


if __name__ == "__main__":
    main()
