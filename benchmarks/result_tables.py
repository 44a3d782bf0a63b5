"""Results as markdown tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Cells = Mapping[str, Any]

COLUMNS: dict[str, Callable[[Cells], str]] = {
    "weights": lambda row: row["name"],
    "stored bits": lambda row: f"{row['stored_bits']:.2f}",
    "ms": lambda row: f"{row['median_ms']:.3f}",
    "middle half": lambda row: f"{row['low_ms']:.3f}-{row['high_ms']:.3f}",
    "GB/s": lambda row: f"{row['gb_per_s']:.1f}",
    "% stream": lambda row: f"{row['stream_percent']:.0f}",
    "% read": lambda row: f"{row['read_percent']:.0f}",
    "GFLOP/s": lambda row: f"{row['gflops']:.0f}",
    "% vdpbf16ps": lambda row: _optional(row["product_percent"], ".0f"),
    "x torch bf16": lambda row: _optional(row["speed_up"], ".2f"),
    "x best peer": lambda row: _optional(row["over_best_peer"], ".2f"),
    "best peer": lambda row: row["best_peer"] or "-",
    "ideal x": lambda row: f"{row['ideal_speed_up']:.2f}",
}


def _optional(value: float | None, format: str) -> str:
    return "-" if value is None else f"{value:{format}}"


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *lines))


def full(rows: Sequence[Cells]) -> str:
    """Every column, for the contenders of one shape and number of tokens."""
    return table(list(COLUMNS), [[column(row) for column in COLUMNS.values()] for row in rows])


def tokens(count: int) -> str:
    """For headings."""
    return f"{count} token{'s' if count > 1 else ''}"


def speed_ups(rows: Sequence[Cells]) -> str:
    """For one shape: a line per contender, a column per number of tokens: milliseconds and speed-up."""
    counts = sorted({row["tokens"] for row in rows})
    cells = {(row["name"], row["tokens"]): row for row in rows}
    lines = []
    for name in dict.fromkeys(row["name"] for row in rows):
        found = [cells.get((name, count)) for count in counts]
        lines.append([name, *(_time_and_speed_up(row) if row else "-" for row in found)])
    header = ["weights", *map(tokens, counts)]
    return table(header, lines)


def _time_and_speed_up(row: Cells) -> str:
    return f"{row['median_ms']:.3f}" + (f" ({row['speed_up']:.2f}x)" if row["speed_up"] is not None else "")
