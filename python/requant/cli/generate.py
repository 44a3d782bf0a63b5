"""`requant generate`: text from a model, as it comes."""

from __future__ import annotations

from typing import Annotated

import typer

from requant.cli.options import Activations, Device, Dtype, Json, Merge, Model


def generate(
    model: Model,
    prompt: Annotated[str, typer.Option(help="What the text begins with.")],
    tokens: Annotated[int, typer.Option(min=1, help="Stop after so many new tokens.")] = 128,
    chat: Annotated[bool, typer.Option("--chat", help="Put the prompt into the model's chat template.")] = False,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 always takes the likeliest token.")] = 0.0,
    seed: Annotated[int, typer.Option(help="For a temperature above 0.")] = 0,
    merge: Merge = False,
    activations: Activations = None,
    dtype: Dtype = None,
    device: Device = "cpu",
    json: Json = None,
) -> None:
    """Generate text, streamed, and report tokens per second."""
    import sys

    import torch

    from requant.cli.session import (
        JSON_TO_STDOUT,
        check_activations,
        check_json_target,
        console,
        emit,
        parse_device,
        parse_dtype,
        quiet_libraries,
    )
    from requant.generation import encode_prompt, stream_text
    from requant.models import load_model
    from requant_kernels import merge_linears, set_activations

    check_json_target(json)
    check_activations(activations)
    target, chosen = parse_device(device), parse_dtype(dtype)
    quiet_libraries()
    loaded, tokenizer = load_model(model, chosen)
    loaded.to(target)
    if activations is not None:
        set_activations(loaded, activations)
    if merge:
        merge_linears(loaded)
    torch.manual_seed(seed)
    prompt_tokens = encode_prompt(tokenizer, prompt, chat=chat).to(target)
    show = json != JSON_TO_STDOUT

    def on_text(text: str) -> None:
        if show:
            sys.stdout.write(text)
            sys.stdout.flush()

    if show and not chat:
        sys.stdout.write(prompt)
    generated = stream_text(loaded, tokenizer, prompt_tokens, tokens, on_text, temperature=temperature)
    if show:
        sys.stdout.write("\n")
    speed = f"{generated.tokens} tokens, {generated.decode_tokens_per_second:.1f} tokens/s"
    console(stderr=True).print(speed)
    if json is not None:
        emit({"model": model, "prompt": prompt, **generated.to_dict()}, json, str)
