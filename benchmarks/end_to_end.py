"""Prefill and decode of whole models through transformers: quantized ones against the model in bf16.

    python benchmarks/end_to_end.py random-1b --formats "uniform 4 bit" "lut 3 bit" --head-bits 8
    python benchmarks/end_to_end.py DIRECTORY --quantized QUANTIZED_DIRECTORY --gguf FILE

`random-1b` has the shape of Llama-3.2-1B and random weights. --formats replaces every linear layer of the decoder by
one of that format with random values, which takes the same time as a real one; --quantized loads a checkpoint. All
take turns, round by round.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
import torch
from llama_cpp_model import LlamaCppModel
from llama_shape import LLAMA_3_2_1B, random_model
from quantized import FORMATS, SPARSE_PERCENT, Format, is_supported, random_layer
from requant.models import load_model
from requant.speed import STEPS_PER_ROUND, Contender, Speed, decode_step, measure
from requant.weights import find_linears
from result_tables import table
from torch import nn

RANDOM_MODEL = "random-1b"
BASELINE = "transformers bf16"
HEAD_FORMATS = {format.bits: format for format in FORMATS if format.format == "uniform"}


@dataclass(frozen=True)
class Entry:
    """A contender and what it stores."""

    contender: Contender
    stored_bytes: int


def stored_bytes(model: nn.Module) -> int:
    """Of all parameters and buffers, shared ones counted once."""
    tensors = {tensor.data_ptr(): tensor.nbytes for tensor in (*model.parameters(), *model.buffers())}
    return sum(tensors.values())


def quantize(model: nn.Module, format: Format, sparse_percent: float, head_bits: int) -> nn.Module:
    """A copy that shares all but the linear layers with the original."""
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    other = copy.deepcopy(model, shared)
    for name, linear in find_linears(other).items():
        other.set_submodule(name, random_layer(format, sparse_percent, linear.out_features, linear.in_features))
    if head_bits < 16:
        quantize_head(other, head_bits)
    return other


def quantize_head(model: Any, bits: int) -> None:
    """The output embedding in `bits`. The input embedding, of which a step reads one row, stays as it is."""
    head = model.get_output_embeddings()
    model.set_output_embeddings(random_layer(HEAD_FORMATS[bits], 0.0, head.out_features, head.in_features))


def entries(options: argparse.Namespace) -> Iterator[Entry]:
    """The baseline first. Copies in other formats share its embeddings.

    Not to be called in inference mode: torch multiplies the last token's state, a slice, with a weight that needs no
    gradient only after copying the weight, which makes a prefill four times as slow.
    """
    if options.model == RANDOM_MODEL:
        model = random_model(LLAMA_3_2_1B)
    else:
        model = load_model(options.model, torch.bfloat16)[0].eval()
    yield Entry(Contender(BASELINE, model), stored_bytes(model))
    for format in FORMATS:
        if format.name.startswith(tuple(options.formats)) and is_supported(format):
            quantized: Any = quantize(model, format, options.sparse_percent, options.head_bits)
            parts = [format.name]
            if options.sparse_percent:
                parts.append(f"{options.sparse_percent:g} % sparse")
            parts.append(f"{options.head_bits}-bit head")
            yield Entry(Contender(" + ".join(parts), quantized), stored_bytes(quantized))
    for directory in options.quantized:
        loaded = load_model(directory, torch.bfloat16)[0].eval()
        yield Entry(Contender(Path(directory).name, loaded), stored_bytes(loaded))
    for file in options.gguf:
        context = options.prefill + STEPS_PER_ROUND + 1
        try:
            other: Any = LlamaCppModel(file, options.threads, context)
        except ImportError:
            print(f"without {file}: llama-cpp-python is not installed", file=sys.stderr)
        else:
            yield Entry(Contender(f"llama.cpp {file.name}", other), file.stat().st_size)


@torch.inference_mode()
def working_bytes(contender: Contender, prefill_tokens: int) -> int:
    """How far memory rises during one prefill and a step: activations, cache and whatever is made on the way."""
    machine.reset_peak_memory()
    before = machine.memory_bytes("VmRSS")
    output = contender.model(torch.zeros(1, prefill_tokens, dtype=torch.long), use_cache=True, logits_to_keep=1)
    decode_step(contender.model, torch.zeros(1, 1, dtype=torch.long), output)
    return machine.memory_bytes("VmHWM") - before


def report(result: dict[str, Any]) -> str:
    """A markdown table."""
    baseline = result["results"][0]
    lines = [
        [
            row["name"],
            f"{row['stored_bytes'] / 1e6:.0f}",
            f"{row['working_bytes'] / 1e6:.0f}",
            f"{row['prefill_tokens_per_second']:.0f}",
            f"{baseline['prefill_ms'] / row['prefill_ms']:.2f}",
            f"{row['decode_step_ms']:.1f}",
            f"{row['decode_tokens_per_second']:.1f}",
            f"{baseline['decode_step_ms'] / row['decode_step_ms']:.2f}",
        ]
        for row in result["results"]
    ]
    header = [
        "model",
        "stored MB",
        "working MB",
        "prefill tokens/s",
        "x bf16",
        "ms per step",
        "decode tokens/s",
        "x bf16",
    ]
    return table(header, lines)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help=f"a transformers directory, or {RANDOM_MODEL}")
    parser.add_argument(
        "--formats", nargs="*", default=["uniform 4 bit"], metavar="NAME", help="names that start so; %(default)s"
    )
    parser.add_argument("--sparse-percent", type=float, default=SPARSE_PERCENT, help="default: %(default)s")
    parser.add_argument(
        "--head-bits", type=int, default=16, choices=[*sorted(HEAD_FORMATS), 16], help="default: %(default)s"
    )
    parser.add_argument("--quantized", nargs="*", default=[], metavar="DIRECTORY", help="quantized checkpoints")
    parser.add_argument("--gguf", nargs="*", default=[], type=Path, metavar="FILE", help="for llama-cpp-python")
    parser.add_argument("--prefill", type=int, default=512, help="tokens of the prompt; default: %(default)s")
    parser.add_argument("--decode", type=int, default=64, help="tokens generated; default: %(default)s")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    found = list(entries(options))
    working = {entry.contender.name: working_bytes(entry.contender, options.prefill) for entry in found}
    contenders = [entry.contender for entry in found]
    speeds = measure(contenders, prefill_tokens=options.prefill, decode_tokens=options.decode)

    def row(entry: Entry, speed: Speed) -> dict[str, Any]:
        name = entry.contender.name
        return {"name": name, "stored_bytes": entry.stored_bytes, "working_bytes": working[name], **speed.to_dict()}

    result = {
        "machine": machine.describe(options.threads),
        "model": options.model,
        "results": [row(entry, speeds[entry.contender.name]) for entry in found],
    }
    print(f"{options.model}, prompt of {options.prefill} tokens, {options.threads} threads\n\n{report(result)}")
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
