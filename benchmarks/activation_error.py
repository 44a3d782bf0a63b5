"""What rounding the inputs to 8 bits costs in accuracy: the error of a layer's outputs against the same weights with
inputs as they are, beside the error of bf16 inputs and that of the quantized weights themselves.

    python benchmarks/activation_error.py
"""

from __future__ import annotations

import argparse

import torch
from quantized import FORMATS, is_supported
from result_tables import table as markdown_table
from torch import Tensor, nn

from requant_kernels import DenseSparseLinear
from requant_kernels.formats.activations import ROUNDED_FORMATS

OUTLIER_CHANNELS = 0.02
OUTLIER_FACTOR = 20.0
TOKENS = 64


def make_inputs(tokens: int, in_features: int) -> dict[str, Tensor]:
    """Gaussian inputs, and the same with a few channels that are large in every token, as language models have them."""
    plain = torch.randn(tokens, in_features)
    large = torch.ones(in_features)
    large[torch.randperm(in_features)[: round(in_features * OUTLIER_CHANNELS)]] = OUTLIER_FACTOR
    return {"Gaussian": plain, f"{OUTLIER_CHANNELS:.0%} of the channels x {OUTLIER_FACTOR:g}": plain * large}


def relative_error(y: Tensor, reference: Tensor) -> float:
    """||y - reference|| / ||reference||, over all tokens."""
    return float((y.double() - reference).norm() / reference.norm())


def measure(name: str, in_features: int, out_features: int, sparse_percent: float) -> list[list[str]]:
    """One row per kind of inputs: errors of the outputs in percent."""
    format = next(each for each in FORMATS if each.name == name)
    linear = nn.Linear(in_features, out_features, bias=False)
    nn.init.normal_(linear.weight, std=in_features**-0.5)
    layer = DenseSparseLinear.from_linear(
        linear, format=format.format, bits=format.bits, sparse_percent=sparse_percent, table=format.table
    )
    weight = layer.dequantize().double()
    rows = []
    for kind, x in make_inputs(TOKENS, in_features).items():
        exact = x.double() @ weight.T
        with torch.inference_mode():
            unquantized = x.double() @ linear.weight.double().T
            errors = [relative_error(exact, unquantized), relative_error(layer(x.bfloat16().float()), exact)]
            layer.activations = "int8"
            errors.append(relative_error(layer(x), exact))
            layer.activations = "16bit"
        rows.append([name, str(in_features), kind, *(f"{100 * error:.2f} %" for error in errors)])
    return rows


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [format.name for format in FORMATS if format.format in ROUNDED_FORMATS and is_supported(format)]
    parser.add_argument("--formats", nargs="+", default=["uniform 4 bit", "lut 3 bit"], choices=names)
    parser.add_argument("--in-features", nargs="+", type=int, default=[2048, 8192])
    parser.add_argument("--out-features", type=int, default=1024)
    parser.add_argument("--sparse-percent", type=float, default=0.0)
    options = parser.parse_args()
    torch.manual_seed(0)
    rows = [
        row
        for name in options.formats
        for in_features in options.in_features
        for row in measure(name, in_features, options.out_features, options.sparse_percent)
    ]
    header = ["weights", "inputs", "kind of inputs", "quantized weights", "bf16 inputs", "int8 inputs"]
    print(markdown_table(header, rows))


if __name__ == "__main__":
    main()
