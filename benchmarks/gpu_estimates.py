"""Speed of the CUDA kernels as it can be told without a GPU: figures of the compiled kernels, and estimated times.

    python benchmarks/gpu_estimates.py kernels                       # registers, instructions, residents: per kernel
    python benchmarks/gpu_estimates.py layers --gpus A100 --tokens 1 --sparse-percent 0 0.5
    python benchmarks/gpu_estimates.py budget                        # write benchmarks/gpu_budget.json anew

Needs nvcc, and nvdisasm and cuobjdump (pip install nvidia-cuda-nvdisasm nvidia-cuda-cuobjdump). The first run compiles
the kernels, for minutes. docs/gpu_estimates.md explains the tables.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence

from gpu_static import budget
from gpu_static.gpus import GPUS, Gpu
from gpu_static.kernels import LinearKernel, Variant, compiled_linear_kernels
from gpu_static.roofline import FORMULA, Estimate, Layer, estimate

SHAPES = {
    "Llama-3.2-1B": ((2048, 2048), (8192, 2048), (16384, 2048), (2048, 8192), (128256, 2048)),
    "Llama-3.2-3B": ((3072, 3072), (8192, 3072), (16384, 3072), (3072, 8192), (128256, 3072)),
    "Llama-3-8B": ((4096, 4096), (14336, 4096), (28672, 4096), (4096, 14336), (128256, 4096)),
}
"""(out_features, in_features) of attention, gate or up, both merged, down, and the output head."""

FORMATS = (
    ("uniform", 2, False),
    ("uniform", 2, True),
    ("uniform", 3, False),
    ("uniform", 3, True),
    ("uniform", 4, False),
    ("uniform", 4, True),
    ("uniform", 8, False),
    ("lut", 2, False),
    ("lut", 3, False),
    ("lut", 4, False),
)
"""(format, bits, zeros)"""

Kernels = Mapping[Variant, LinearKernel]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("kernels", "layers", "budget"))
    parser.add_argument("--gpus", nargs="+", default=[gpu.name for gpu in GPUS], help="beginnings of names")
    parser.add_argument("--models", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--tokens", nargs="+", type=int, default=[1, 8, 16])
    parser.add_argument("--sparse-percent", nargs="+", type=float, default=[0.0, 0.5])
    return parser.parse_args(arguments)


def markdown(header: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def kernel_rows(gpu: Gpu, kernels: Kernels) -> Iterator[list[str]]:
    """One for every kernel that decodes."""
    for variant, kernel in sorted(kernels.items()):
        if variant.token_tiles != budget.DECODING_TILES or "any groups" in variant.options or "fp16" in variant.options:
            continue
        classes = ", ".join(f"{count} {kind}" for kind, count in kernel.main_turn.most_common())
        yield [
            str(variant),
            str(kernel.kernel.registers),
            str(kernel.kernel.spill_bytes),
            f"{kernel.instructions_per_weight:.2f}",
            f"{gpu.instructions_per_weight(variant.bits):.2f}",
            classes,
        ]


def label(format: str, bits: int, zeros: bool) -> str:
    """Of a row."""
    return f"{format} {bits}{' zeros' if zeros else ''}"


def cell(result: Estimate) -> str:
    """One estimate in a few words; the memory bound goes without saying."""
    bound = "" if result.bound == "memory" else f" {result.bound}"
    return f"{result.us:.1f} us {100 * result.share:.0f} %{bound}"


def layer_rows(
    gpu: Gpu, kernels: Kernels, shapes: Sequence[tuple[int, int]], tokens: int, sparse_percent: float
) -> Iterator[list[str]]:
    """One for every format."""
    for format, bits, zeros in FORMATS:
        layers = (Layer(format, bits, shape, zeros, sparse_percent) for shape in shapes)
        cells = [cell(estimate(layer, tokens, gpu, kernels)) for layer in layers]
        yield [label(format, bits, zeros), *cells]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    options = parse(arguments)
    gpus = [gpu for gpu in GPUS if gpu.name.startswith(tuple(options.gpus))]
    compiled = {gpu.architecture: compiled_linear_kernels(gpu.architecture) for gpu in gpus}
    if options.what == "budget":
        budget.save(compiled)
    for gpu in gpus if options.what == "kernels" else ():
        print(f"\n### {gpu.name} (sm_{gpu.architecture}), from the machine code\n")
        header = [
            "kernel",
            "registers",
            "spilled bytes",
            "instructions per weight",
            "at full bandwidth",
            "one turn of the main loop",
        ]
        print(markdown(header, kernel_rows(gpu, compiled[gpu.architecture])))
    if options.what == "layers":
        print(FORMULA)
    for gpu in gpus if options.what == "layers" else ():
        for model in options.models:
            for tokens in options.tokens:
                for percent in options.sparse_percent:
                    print(f"\n### *Estimate*: {gpu.name}, {model}, M = {tokens}, {percent:g} % sparse\n")
                    shapes = SHAPES[model]
                    header = ["format", *(f"{out_features} x {in_features}" for out_features, in_features in shapes)]
                    rows = layer_rows(gpu, compiled[gpu.architecture], shapes, tokens, percent)
                    print(markdown(header, rows))


if __name__ == "__main__":
    main()
