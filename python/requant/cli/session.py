"""What every command that touches a model does first, and how results leave a command."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType

if TYPE_CHECKING:
    import torch

JSON_TO_STDOUT = "-"
# Wide enough for the widest table when stdout is a file or a pipe, whose width nobody knows.
WIDTH_WITHOUT_TERMINAL = 160


def console(*, stderr: bool = False) -> Console:
    """A console on stdout (results) or stderr (progress and status)."""
    plain = Console(stderr=stderr, highlight=False, soft_wrap=False)
    return plain if plain.is_terminal else Console(stderr=stderr, highlight=False, width=WIDTH_WITHOUT_TERMINAL)


def quiet_libraries() -> None:
    """Silences transformers' own bars and reports: what matters of them is raised as an error."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def parse_dtype(name: str | None) -> torch.dtype | None:
    """The dtype of that name. Raises InputError unless it is one a checkpoint can have."""
    import torch

    from requant.errors import InputError

    choices = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
    if name is None or name in choices:
        return None if name is None else choices[name]
    raise InputError(f"--dtype must be one of {', '.join(choices)}, got {name}")


def parse_device(name: str) -> torch.device:
    """The device of that name. Raises InputError if this machine lacks it."""
    import torch

    from requant.errors import InputError

    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"--device {name} is not available: {str(error).splitlines()[0]}") from None
    return device


def check_activations(name: str | None) -> None:
    """Raises InputError unless layers know the name; None leaves them as they are."""
    from requant.errors import InputError
    from requant_kernels.formats.activations import ACTIVATIONS

    if name is not None and name not in ACTIVATIONS:
        raise InputError(f"--activations must be one of {', '.join(ACTIVATIONS)}, got {name}")


def check_json_target(target: str | None) -> None:
    """Raises InputError, before the long work, if the JSON file cannot be written."""
    from requant.errors import InputError

    if target in (None, JSON_TO_STDOUT):
        return
    file = Path(str(target))
    existed = file.exists()
    try:
        with file.open("a", encoding="utf-8"):
            pass
        if not existed:
            file.unlink()  # an error later on must not leave an empty file behind
    except OSError as error:
        raise InputError(f"--json {target}: cannot be written: {error.strerror}") from None


def emit(result: dict[str, Any], target: str | None, render: Callable[[], RenderableType]) -> None:
    """Shows `render()` on stdout and writes `result` to `target`; with `-`, stdout holds the JSON and nothing else."""
    text = json.dumps(result, indent=2, default=str) + "\n"
    if target == JSON_TO_STDOUT:
        sys.stdout.write(text)
        return
    console().print(render())
    if target is not None:
        Path(target).write_text(text, encoding="utf-8")
