"""Results as plain data (for JSON) and as tables (for people). Nothing here computes what it shows from tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from requant.estimate import Estimate
    from requant_kernels.checkpoint import Checkpoint

MIB = 2**20


def table(title: str, columns: Sequence[tuple[str, str, str]], rows: Iterable[Mapping[str, Any]]) -> Table:
    """A table of `rows`; each column is (key, heading, format), text columns (format "") left, numbers right.

    A key that a row lacks, or None, shows as a dash.
    """
    view = Table(title=title, box=box.SIMPLE, title_justify="left")
    for _, heading, form in columns:
        view.add_column(heading, justify="right" if form else "left", overflow="fold")
    for row in rows:
        cells = []
        for key, _, form in columns:
            value = row.get(key)
            cells.append("-" if value is None else format(value, form) if form else escape(str(value)))
        view.add_row(*cells)
    return view


def model_bits(model: PreTrainedModel) -> tuple[float, float]:
    """(paper_bits, true_bits) per weight over the quantized linears; both are the dtype's if nothing is quantized."""
    from requant_kernels import DenseSparseLinear

    layers = [layer for layer in model.modules() if isinstance(layer, DenseSparseLinear)]
    if not layers:
        bits = 8.0 * model.dtype.itemsize
        return bits, bits
    weights = [layer.in_features * layer.out_features for layer in layers]
    paper = sum(layer.paper_bits * count for layer, count in zip(layers, weights, strict=True)) / sum(weights)
    return paper, 8 * sum(layer.stored_bytes for layer in layers) / sum(weights)


def checkpoint_contents(checkpoint: Checkpoint) -> dict[str, Any]:
    """Per quantized layer and in total: format, bits, sparse density, bytes; from headers and config alone."""
    from requant_kernels import DenseSparseLinear

    layers: list[dict[str, Any]] = []
    for name, spec in sorted(checkpoint.config.modules.items(), key=_natural_order):
        layer = DenseSparseLinear.from_spec(spec, device="meta")
        layers.append(
            {
                "name": name,
                "format": spec.format if spec.table is None else f"{spec.format} ({spec.table} table)",
                "bits": spec.bits,
                "group_size": spec.group_size,
                "out_features": spec.shape[0],
                "in_features": spec.shape[1],
                "outliers": spec.outliers,
                "significant": spec.significant,
                "sparse_percent": 100 * spec.nnz / (spec.shape[0] * spec.shape[1]),
                "paper_bits": layer.paper_bits,
                "true_bits": layer.true_bits,
                "bytes": layer.stored_bytes,
            }
        )
    weights = [layer["out_features"] * layer["in_features"] for layer in layers]

    def mean(key: str) -> float:
        return sum(layer[key] * count for layer, count in zip(layers, weights, strict=True)) / max(1, sum(weights))

    quantized_bytes = sum(layer["bytes"] for layer in layers)
    return {
        "model": str(checkpoint.directory),
        "layers": layers,
        "total": {
            "layers": len(layers),
            "quantized_weights": sum(weights),
            "outliers": sum(layer["outliers"] for layer in layers),
            "significant": sum(layer["significant"] for layer in layers),
            "sparse_percent": mean("sparse_percent"),
            "paper_bits": mean("paper_bits"),
            "true_bits": 8 * quantized_bytes / max(1, sum(weights)),
            "quantized_bytes": quantized_bytes,
            "other_bytes": checkpoint.tensor_bytes - quantized_bytes,
            "tensor_bytes": checkpoint.tensor_bytes,
        },
        "recipe": checkpoint.config.recipe,
        "provenance": checkpoint.config.provenance,
    }


def _natural_order(module: tuple[str, Any]) -> list[tuple[int, str]]:
    """Layer 9 before layer 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in module[0].split(".")]


def contents_table(contents: Mapping[str, Any]) -> Group:
    """`checkpoint_contents` for people."""
    columns = [
        ("name", "layer", ""),
        ("shape", "out x in", ""),
        ("format", "format", ""),
        ("bits", "bits", "d"),
        ("group", "group", ""),
        ("sparse_percent", "sparse %", ".3f"),
        ("outliers", "outliers", ",d"),
        ("significant", "significant", ",d"),
        ("paper_bits", "paper_bits", ".3f"),
        ("true_bits", "true_bits", ".3f"),
        ("kib", "KiB", ",.0f"),
    ]
    rows = [
        layer
        | {
            "shape": f"{layer['out_features']} x {layer['in_features']}",
            "group": "row" if layer["group_size"] == -1 else layer["group_size"],
            "kib": layer["bytes"] / 1024,
        }
        for layer in contents["layers"]
    ]
    total = contents["total"]
    sums = {key: total[key] for key in ("sparse_percent", "outliers", "significant", "paper_bits", "true_bits")}
    rows.append(sums | {"name": f"all {total['layers']} layers", "kib": total["quantized_bytes"] / 1024})
    return Group(
        table(contents["model"], columns, rows),
        f"{total['tensor_bytes'] / MIB:.1f} MiB of tensors: {total['quantized_bytes'] / MIB:.1f} in quantized layers, "
        f"{total['other_bytes'] / MIB:.1f} in everything else.",
    )


def environment_table(environment: Mapping[str, Any]) -> Group:
    """`requant_kernels.env.report()` for people: one small table per section."""
    return Group(
        *(
            table(section, [("name", "name", ""), ("value", "value", "")], _facts(facts))
            for section, facts in environment.items()
            if facts
        )
    )


def _facts(facts: Any) -> list[dict[str, Any]]:
    pairs = facts.items() if isinstance(facts, Mapping) else enumerate(facts)
    return [{"name": name, "value": value} for name, value in pairs]


def estimate_line(estimate: Estimate) -> str:
    """Peak memory and time of a quantization in one line."""
    return f"estimate: {estimate.memory_bytes / 2**30:.2f} GiB at the peak, {_duration(estimate.seconds)}"


def estimate_table(estimate: Estimate) -> Group:
    """`estimate_line`, and what the memory and the time are made of."""
    rows = [
        {
            "part": part.removesuffix(" bytes").removesuffix(" seconds"),
            "mib": amount / MIB if part.endswith("bytes") else None,
            "seconds": amount if part.endswith("seconds") else None,
        }
        for part, amount in estimate.parts.items()
    ]
    columns = [("part", "part", ""), ("mib", "MiB", ",.0f"), ("seconds", "seconds", ",.1f")]
    return Group(table("estimate", columns, rows), estimate_line(estimate))


def quantized_line(summary: Mapping[str, Any]) -> str:
    """What `requant quantize` made, in one line."""
    report = summary["report"]
    outliers, significant = (sum(report[kind].values()) for kind in ("outliers", "significant"))
    return (
        f"{summary['out']}: {summary['bytes'] / MIB:.1f} MiB, {summary['true_bits']:.3f} true_bits "
        f"({summary['paper_bits']:.3f} paper_bits), {outliers:,} outliers, {significant:,} significant weights"
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def perplexity_table(result: Mapping[str, Any]) -> Table:
    """One row: perplexity, tokens, bits."""
    columns = [
        ("model", "model", ""),
        ("perplexity", "perplexity", ".3f"),
        ("tokens", "tokens", ",d"),
        ("paper_bits", "paper_bits", ".3f"),
        ("true_bits", "true_bits", ".3f"),
    ]
    return table(f"perplexity on {result['text']}, window {result['window']}", columns, [result])


def benchmark_table(result: Mapping[str, Any]) -> Table:
    """One row per model and backend."""
    columns = [
        ("name", "model", ""),
        ("backend", "backend", ""),
        ("prefill_ms", "prefill ms", ",.1f"),
        ("decode_ms", "decode ms", ",.1f"),
        ("total_ms", "total ms", ",.1f"),
        ("prefill_tokens_per_second", "prefill tok/s", ",.1f"),
        ("decode_tokens_per_second", "decode tok/s", ",.1f"),
        ("speed_up", "total speed-up", ".2f"),
    ]
    lengths = f"prefill {result['prefill_tokens']} tokens, decode {result['decode_tokens']} tokens"
    return table(f"{lengths}, {result['threads']} threads", columns, result["results"])


def demo_table(title: str, rows: Iterable[Mapping[str, Any]]) -> Table:
    """The one table of the demonstration."""
    columns = [
        ("method", "method", ""),
        ("paper_bits", "paper_bits", ".2f"),
        ("true_bits", "true_bits", ".2f"),
        ("mib", "MiB", ".1f"),
        ("perplexity", "perplexity", ".2f"),
        ("decode_tokens_per_second", "decode tok/s", ".1f"),
        ("prefill_tokens_per_second", "prefill tok/s", ".0f"),
    ]
    return table(title, columns, rows)
