"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Model = Annotated[str, typer.Argument(metavar="MODEL", help="Model directory, hub name (owner/name) or .gguf file.")]
QuantizedModel = Annotated[str, typer.Argument(metavar="MODEL", help="Directory of a quantized model.")]
Json = Annotated[
    str | None, typer.Option("--json", metavar="FILE|-", help="Also write the result as JSON; - prints only JSON.")
]
Merge = Annotated[
    bool, typer.Option("--merge", help="Compute q/k/v and gate/up projections of a quantized model in one call each.")
]
Activations = Annotated[
    str | None,
    typer.Option(
        metavar="16bit|int8",
        help="int8: layers of a quantized model may round their inputs to 8 bits, which is faster. The model's own by "
        "default, which is 16bit unless it says so.",
    ),
]
Device = Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, ...")]
Dtype = Annotated[
    str | None, typer.Option(metavar="DTYPE", help="bfloat16, float16 or float32; the model's own by default.")
]
