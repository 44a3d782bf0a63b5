"""`requant benchmark`: prefill and decode times of a model, on every live backend, against the unquantized one."""

from __future__ import annotations

from typing import Annotated

import typer

from requant.cli.options import Activations, Device, Dtype, Json, Merge, Model


def benchmark(
    model: Model,
    prefill: Annotated[int, typer.Option(min=1, help="Tokens of the prompt.")] = 512,
    decode: Annotated[int, typer.Option(min=1, help="Tokens generated after it, one by one.")] = 128,
    baseline: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The unquantized model, measured beside it.")
    ] = None,
    merge: Merge = False,
    activations: Activations = None,
    dtype: Dtype = None,
    device: Device = "cpu",
    json: Json = None,
) -> None:
    """Measure prefill, decode and total milliseconds; medians, all contenders taking turns."""
    import torch

    from requant.cli.session import (
        check_activations,
        check_json_target,
        console,
        emit,
        parse_device,
        parse_dtype,
        quiet_libraries,
    )
    from requant.models import check_source, load_model
    from requant.progress import RichProgress
    from requant.report import benchmark_table
    from requant.speed import Contender, measure
    from requant_kernels import merge_linears, set_activations
    from requant_kernels.dispatch import live_backends
    from requant_kernels.integrations.transformers import is_quantized

    check_json_target(json)
    check_activations(activations)
    chosen, target = parse_dtype(dtype), parse_device(device)
    for source in (model, baseline):
        if source is not None:
            check_source(source)
    quiet_libraries()
    loaded = load_model(model, chosen)[0].to(target)
    if activations is not None:
        set_activations(loaded, activations)
    if merge:
        merge_linears(loaded)
    contenders = []
    if baseline is not None:
        contenders.append(Contender(baseline, load_model(baseline, chosen)[0].to(target)))
    if is_quantized(loaded):
        contenders += [Contender(f"{model} ({name})", loaded, name) for name in live_backends(target.type)]
    else:
        contenders.append(Contender(model, loaded))
    speeds = measure(
        contenders, prefill_tokens=prefill, decode_tokens=decode, progress=RichProgress(console(stderr=True))
    )
    reference_ms = speeds[baseline].total_ms if baseline is not None else None
    result = {
        "prefill_tokens": prefill,
        "decode_tokens": decode,
        "threads": torch.get_num_threads(),
        "device": str(target),
        "results": [
            speeds[contender.name].to_dict()
            | {
                "name": contender.name.removesuffix(f" ({contender.backend})"),
                "backend": contender.backend,
                "speed_up": reference_ms / speeds[contender.name].total_ms if reference_ms else None,
            }
            for contender in contenders
        ],
    }
    emit(result, json, lambda: benchmark_table(result))
