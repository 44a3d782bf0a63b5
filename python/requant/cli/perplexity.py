"""`requant perplexity`: how well a model predicts a text."""

from __future__ import annotations

from typing import Annotated

import typer

from requant.cli.options import Activations, Device, Dtype, Json, Model


def perplexity(
    model: Model,
    text: Annotated[
        str, typer.Option(metavar="FILE|wikitext2|pydoc", help="pydoc and wikitext2: the part held out for this.")
    ] = "pydoc",
    window: Annotated[int, typer.Option(help="Tokens per window.")] = 2048,
    windows: Annotated[int | None, typer.Option(help="Use the first N windows only.")] = None,
    bos: Annotated[
        str, typer.Option(help="BOS token: auto (as the tokenizer does it), yes (every window) or no.")
    ] = "auto",
    stride: Annotated[int | None, typer.Option(help="Slide the window by so many tokens instead.")] = None,
    activations: Activations = None,
    dtype: Dtype = None,
    device: Device = "cpu",
    json: Json = None,
) -> None:
    """Measure perplexity on a text, by the paper's protocol: adjacent windows, each predicted on its own."""
    from requant.cli.session import (
        check_activations,
        check_json_target,
        console,
        emit,
        parse_device,
        parse_dtype,
        quiet_libraries,
    )
    from requant.data import load_text
    from requant.evaluate import perplexity as measure_perplexity
    from requant.models import load_model
    from requant.progress import RichProgress
    from requant.report import model_bits, perplexity_table
    from requant_kernels import set_activations

    check_json_target(json)
    check_activations(activations)
    chosen, target = parse_dtype(dtype), parse_device(device)
    content = load_text(text, split="evaluation")
    quiet_libraries()
    loaded, tokenizer = load_model(model, chosen)
    if activations is not None:
        set_activations(loaded, activations)
    measured = measure_perplexity(
        loaded.to(target),
        tokenizer,
        content,
        window=window,
        windows=windows,
        bos=bos,
        stride=stride,
        progress=RichProgress(console(stderr=True)),
    )
    paper_bits, true_bits = model_bits(loaded)
    result = {
        "model": model,
        "text": text,
        "window": window,
        "stride": stride,
        "perplexity": measured.value,
        "tokens": measured.tokens,
        "paper_bits": paper_bits,
        "true_bits": true_bits,
    }
    emit(result, json, lambda: perplexity_table(result))
