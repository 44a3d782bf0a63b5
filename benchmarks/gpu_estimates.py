"""Speed of the CUDA kernels as it can be told without a GPU: figures of the compiled kernels, and estimated times.

    python benchmarks/gpu_estimates.py kernels                       # registers, spills, instructions per weight
    python benchmarks/gpu_estimates.py layers --gpus A100 --tokens 1 --sparse-percent 0 0.5
    python benchmarks/gpu_estimates.py budget                        # write benchmarks/gpu_budget.json anew

Needs nvcc, and nvdisasm and cuobjdump (pip install nvidia-cuda-nvdisasm nvidia-cuda-cuobjdump). The first run compiles
the kernels, for minutes. docs/gpu_estimates.md explains the tables.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gpu_static import budget
from gpu_static.gpus import GPUS, Gpu
from gpu_static.kernels import LinearKernel, Variant, compiled_linear_kernels
from gpu_static.roofline import FORMULA, Estimate, Layer, estimate
from gpu_static.sass import CLASSES

SHAPES = {
    "Llama-3.2-1B": ((2048, 2048), (8192, 2048), (16384, 2048), (2048, 8192), (128256, 2048)),
    "Llama-3.2-3B": ((3072, 3072), (8192, 3072), (16384, 3072), (3072, 8192), (128256, 3072)),
    "Llama-3-8B": ((4096, 4096), (14336, 4096), (28672, 4096), (4096, 14336), (128256, 4096)),
}
"""(out_features, in_features) of attention, gate or up, both merged, down, and the output head."""

FORMATS: dict[str, dict[str, Any]] = {
    "uniform 2": {"format": "uniform", "bits": 2},
    "uniform 2, zeros": {"format": "uniform", "bits": 2, "zeros": True},
    "uniform 3": {"format": "uniform", "bits": 3},
    "uniform 3, zeros": {"format": "uniform", "bits": 3, "zeros": True},
    "uniform 4": {"format": "uniform", "bits": 4},
    "uniform 4, zeros": {"format": "uniform", "bits": 4, "zeros": True},
    "uniform 8": {"format": "uniform", "bits": 8},
    "lut 2": {"format": "lut", "bits": 2},
    "lut 3": {"format": "lut", "bits": 3},
    "lut 4": {"format": "lut", "bits": 4},
    "trellis 2, 1mad": {"format": "trellis", "bits": 2, "code": "1mad"},
    "trellis 2, 3inst": {"format": "trellis", "bits": 2, "code": "3inst"},
    "trellis 2, hyb": {"format": "trellis", "bits": 2, "code": "hyb"},
    "trellis 3, hyb": {"format": "trellis", "bits": 3, "code": "hyb"},
    "trellis 4, hyb": {"format": "trellis", "bits": 4, "code": "hyb"},
}
"""Row of the tables -> arguments of Layer."""

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


def decoding_kernels(kernels: Kernels) -> list[Variant]:
    """Those for few tokens and the usual scales; of both types of x, bf16, and of both heights, 16 rows."""
    left_out = {"any groups", "fp16"}
    shape = (budget.DECODING_TILES, 1)
    return sorted(v for v in kernels if (v.token_tiles, v.row_warps) == shape and left_out.isdisjoint(v.options))


def weight_rows(gpus: Sequence[Gpu], compiled: Mapping[int, Kernels]) -> Iterator[list[str]]:
    """Instructions per weight of every kernel, on every GPU, beside those that it issues at full bandwidth."""
    for variant in decoding_kernels(compiled[gpus[0].architecture]):
        kernels = [compiled[gpu.architecture][variant].figures for gpu in gpus]
        limits = [gpu.instructions_per_weight(variant.bits) for gpu in gpus]
        yield [
            str(variant),
            " / ".join(str(kernel.registers) for kernel in kernels),
            str(max(kernel.spill_bytes for kernel in kernels)),
            *(
                f"{kernel.instructions_per_weight:.2f} of {limit:.2f}"
                for kernel, limit in zip(kernels, limits, strict=True)
            ),
        ]


def class_rows(kernels: Kernels) -> Iterator[list[str]]:
    """One turn of the main loop of every kernel by class."""
    for variant in decoding_kernels(kernels):
        counts = kernels[variant].main_turn
        yield [str(variant), str(counts.total()), *(str(counts[kind]) for kind in (*CLASSES, "integer"))]


def cell(result: Estimate) -> str:
    """One estimate in a few words; the memory bound goes without saying."""
    bound = "" if result.bound == "memory" else f" {result.bound}"
    return f"{result.us:.1f} us {100 * result.share:.0f} %{bound}"


def layer_rows(
    gpu: Gpu, kernels: Kernels, shapes: Sequence[tuple[int, int]], tokens: int, sparse_percent: float
) -> Iterator[list[str]]:
    """One for every format."""
    figures = {variant: kernel.figures for variant, kernel in kernels.items()}
    for name, stored in FORMATS.items():
        layers = (Layer(shape=shape, sparse_percent=sparse_percent, **stored) for shape in shapes)
        yield [name, *(cell(estimate(layer, tokens, gpu, figures)) for layer in layers)]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    options = parse(arguments)
    gpus = [gpu for gpu in GPUS if gpu.name.startswith(tuple(options.gpus))]
    compiled = {gpu.architecture: compiled_linear_kernels(gpu.architecture) for gpu in gpus}
    if options.what == "budget":
        budget.save(compiled)
    if options.what == "kernels":
        print("\nInstructions per weight in the main loop, and as many as the GPU issues at full bandwidth:\n")
        print(
            markdown(["kernel", "registers", "spilled bytes", *(gpu.name for gpu in gpus)], weight_rows(gpus, compiled))
        )
        print(f"\nInstructions of one turn, 64 weights of a lane, on sm_{gpus[0].architecture}:\n")
        rows = class_rows(compiled[gpus[0].architecture])
        print(markdown(["kernel", "all", *CLASSES, "integer"], rows))
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
