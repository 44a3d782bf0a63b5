"""`requant quantize`: a model in, a smaller one out."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from requant.cli.options import Device, Dtype, Json, Model


def quantize(
    model: Model,
    out: Annotated[str, typer.Argument(metavar="OUT", help="Directory to write, whole or not at all.")],
    method: Annotated[str, typer.Option(help="Base method: rtn or squeezellm.")] = "squeezellm",
    bits: Annotated[int, typer.Option(help="Bits per code: 2, 3, 4, or 8 (rtn).")] = 3,
    group_size: Annotated[
        int | None, typer.Option(help="rtn: inputs per scale, a multiple of 32 or -1 for the row. (default 128)")
    ] = None,
    outlier_percent: Annotated[
        float | None, typer.Option(help="Weights kept for their size. (default 0.45; rtn 0)")
    ] = None,
    significant_percent: Annotated[
        float | None, typer.Option(help="Weights kept for their influence on the loss. (default 0.05; rtn 0)")
    ] = None,
    significant_steps: Annotated[
        int | None, typer.Option(help="Steps in which significant weights are picked. (default 2)")
    ] = None,
    outlier_rule: Annotated[
        str | None, typer.Option(help="How outliers are shared out: power_law or iqr. (default power_law)")
    ] = None,
    outlier_exponents: Annotated[
        str | None, typer.Option(metavar="T,T,...", help="Exponents the power law tries. (default 0,0.5,1,1.5,2)")
    ] = None,
    calibration: Annotated[str, typer.Option(metavar="FILE|wikitext2|pydoc", help="Text to calibrate on.")] = "pydoc",
    samples: Annotated[int, typer.Option(help="Calibration sequences.")] = 16,
    sequence_length: Annotated[int, typer.Option(help="Tokens of each.")] = 512,
    intervals: Annotated[int, typer.Option(help="Quadrature nodes of the integral.")] = 4,
    quadrature: Annotated[
        str | None, typer.Option(help="midpoint, gauss_legendre, linspace, ... (default midpoint)")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
    head_bits: Annotated[
        int | None,
        typer.Option(help="Bits of the output head, 8 or 4; a tied embedding goes with it. (default unquantized)"),
    ] = None,
    embedding_bits: Annotated[
        int | None, typer.Option(help="Bits of the input embedding, 8 or 4. (default unquantized)")
    ] = None,
    skip: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Layers to leave as they are, like '*.mlp.gate'; repeatable."),
    ] = None,
    dtype: Dtype = None,
    device: Device = "cpu",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the memory and time estimate and stop.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it is a model directory.")] = False,
    json: Json = None,
) -> None:
    """Quantize a model: dense codes from the base method, plus the weights that must stay in 16 bits."""
    from dataclasses import asdict
    from pathlib import Path

    from requant.cli.session import check_json_target, console, emit, parse_device, quiet_libraries
    from requant.data import load_text
    from requant.errors import InputError
    from requant.models import check_source, load_for_quantization, safetensors_bytes
    from requant.recipe import Recipe
    from requant_kernels.atomic_directory import check_output_directory
    from requant_kernels.checkpoint import save_checkpoint

    chosen: dict[str, Any] = {
        "method": method,
        "bits": bits,
        "group_size": group_size,
        "outlier_percent": outlier_percent,
        "significant_percent": significant_percent,
        "significant_steps": significant_steps,
        "outlier_rule": outlier_rule,
        "outlier_exponents": _numbers(outlier_exponents),
        "samples": samples,
        "sequence_length": sequence_length,
        "intervals": intervals,
        "quadrature": quadrature,
        "seed": seed,
        "head_bits": head_bits,
        "embedding_bits": embedding_bits,
        "skip": tuple(skip) if skip else None,
        "dtype": dtype,
    }
    # Every fault of the input comes before the first minute of work.
    recipe = Recipe(**{name: value for name, value in chosen.items() if value is not None})
    check_json_target(json)
    source = check_source(model)
    if not dry_run:
        check_output_directory(out, overwrite=overwrite)
        if source.exists() and Path(out).resolve() == source.resolve():
            raise InputError(f"{out}: is the model itself, expected another directory to write to")
    target = parse_device(device)
    text = load_text(calibration)

    from requant.estimate import estimate
    from requant.pipeline import calibration_windows
    from requant.pipeline import quantize as run_pipeline
    from requant.progress import RichProgress
    from requant.report import estimate_line, estimate_table, model_bits, quantized_line

    quiet_libraries()
    loaded, tokenizer, source_dtype = load_for_quantization(model)
    if recipe.dtype is None and loaded.dtype != source_dtype:
        recipe = Recipe.from_dict(recipe.to_dict() | {"dtype": str(source_dtype).removeprefix("torch.")})
    calibration_windows(tokenizer, text, recipe)
    loaded.to(target)
    expected = estimate(loaded, recipe)
    status = console(stderr=True)
    if dry_run:
        forecast = {"model": model, "recipe": recipe.to_dict(), "estimate": asdict(expected)}
        emit(forecast, json, lambda: estimate_table(expected))
        return
    status.print(estimate_line(expected))
    result = run_pipeline(loaded, tokenizer, text, recipe, progress=RichProgress(status))
    save_checkpoint(result.model, tokenizer, out, overwrite=overwrite)
    paper_bits, true_bits = model_bits(result.model)
    summary = {
        "model": model,
        "out": out,
        "paper_bits": paper_bits,
        "true_bits": true_bits,
        "bytes": safetensors_bytes(Path(out)),
        "recipe": recipe.to_dict(),
        "report": result.report,
    }
    emit(summary, json, lambda: quantized_line(summary))


def _numbers(text: str | None) -> tuple[float, ...] | None:
    from requant.errors import InputError

    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--outlier-exponents must be numbers with commas between them, got {text!r}") from None
