"""Draws what `table.py --json` wrote as one SVG: time per call relative to torch's bf16, by number of tokens.

    python benchmarks/plot.py results.json docs/benchmarks.svg --shape 8192x3072

One panel per number of tokens, one bar per contender: how many times as fast as the baseline, with the ideal speed-up
(what a layer limited by reading alone would reach) as a tick. Written by hand, so that no plotting library is needed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import result_tables

COLORS = {"baseline": "#8a8f98", "peer": "#c9ccd1", "naive": "#e0b070", "ours": "#2f6db5"}
LEGEND = {
    "ours": "requant-kernels",
    "naive": "dense, torch CSR beside it",
    "peer": "other libraries",
    "baseline": "torch bf16",
}
BAR, GAP, LABELS, PANEL, MARGIN, HEAD, SIDE = 14, 4, 250, 190, 40, 76, 12
VALUE, LEAST_WIDTH = 34, 860
"""Pixels: height of a bar and gap below it, width of the names and of a panel, between panels, above, at the
sides; of a value beside its bar, and of the whole, for the legend."""

Row = Mapping[str, Any]


def text(x: float, y: float, content: str, *, size: int = 11, anchor: str = "start", color: str = "#222") -> str:
    """One line of text; y is its baseline."""
    style = f'font-size="{size}" text-anchor="{anchor}" fill="{color}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(content)}</text>'


def rectangle(x: float, y: float, width: float, height: float, color: str) -> str:
    """A filled box."""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{color}"/>'


def panel(rows: Sequence[Row | None], left: float, top: float, title: str) -> list[str]:
    """One number of tokens: a bar for every row that was measured."""
    measured = [row for row in rows if row is not None and row["speed_up"] is not None]
    largest = max([row["speed_up"] for row in measured] + [1.0])
    scale = (PANEL - VALUE) / largest
    parts = [text(left, top - 8, title, size=12)]
    one = left + scale
    height = len(rows) * (BAR + GAP)
    parts.append(
        f'<line x1="{one:.1f}" y1="{top}" x2="{one:.1f}" y2="{top + height}" stroke="#555" stroke-dasharray="3 3"/>'
    )
    for index, row in enumerate(rows):
        if row is None or row["speed_up"] is None:
            continue
        y = top + index * (BAR + GAP)
        width = scale * row["speed_up"]
        parts.append(rectangle(left, y, width, BAR, COLORS[row["kind"]]))
        ideal = scale * row["ideal_speed_up"]
        label = width
        if row["tokens"] == 1 and ideal <= PANEL - VALUE:
            parts.append(rectangle(left + ideal - 1, y - 1, 2, BAR + 2, "#d33"))
            if width < ideal < width + VALUE:
                label = ideal
        parts.append(text(left + label + 3, y + BAR - 3, f"{row['speed_up']:.2f}", size=9))
    return parts


def draw(result: Mapping[str, Any], shape: str) -> str:
    """The SVG. Raises ValueError if nothing of that shape was measured."""
    rows = [row for row in result["rows"] if row["shape"] == shape]
    if not rows:
        shapes = ", ".join(dict.fromkeys(row["shape"] for row in result["rows"]))
        raise ValueError(f"shape must be one of {shapes}, got {shape}")
    cells = {(row["name"], row["tokens"]): row for row in rows}
    names = list(dict.fromkeys(row["name"] for row in rows))
    tokens = sorted({row["tokens"] for row in rows})
    width = max(LEAST_WIDTH, SIDE + LABELS + len(tokens) * (PANEL + MARGIN) - MARGIN + SIDE)
    height = HEAD + len(names) * (BAR + GAP) + SIDE
    machine = result["machine"]
    title = f"{shape}: speed relative to torch bf16 (dashed line), {machine['cpu']}, {machine['threads']} threads"
    parts = [rectangle(0, 0, width, height, "#fff"), text(SIDE, 20, title, size=14)]
    x = float(SIDE)
    for kind, label in LEGEND.items():
        parts += [rectangle(x, 30, 11, 11, COLORS[kind]), text(x + 16, 40, label)]
        x += 26 + 6.2 * len(label)
    parts += [
        rectangle(x + 4, 29, 2, 13, "#d33"),
        text(x + 12, 40, "1 token: if reading the weights were all that counts"),
    ]
    for index, name in enumerate(names):
        parts.append(text(SIDE + LABELS - 8, HEAD + index * (BAR + GAP) + BAR - 3, name, anchor="end"))
    for index, count in enumerate(tokens):
        chosen = [cells.get((name, count)) for name in names]
        left = SIDE + LABELS + index * (PANEL + MARGIN)
        parts += panel(chosen, left, HEAD, result_tables.tokens(count))
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    body = "\n".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif">\n{body}\n</svg>\n'


def main() -> None:
    """Reads JSON, writes SVG."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--shape", default="8192x3072", help="default: %(default)s")
    options = parser.parse_args()
    options.target.write_text(draw(json.loads(options.results.read_text()), options.shape))


if __name__ == "__main__":
    main()
