"""The command line. Each command is a file here; whatever is slow to import is imported inside the command.

Exit codes: 0 ok, 2 bad arguments or input (one line on stderr, no traceback), 130 interrupted, 1 anything else.
"""

from __future__ import annotations

import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from types import FrameType
from typing import NoReturn, TextIO

import typer

from requant.cli.benchmark import benchmark
from requant.cli.demo import demo
from requant.cli.env import env
from requant.cli.generate import generate
from requant.cli.inspect import inspect
from requant.cli.perplexity import perplexity
from requant.cli.quantize import quantize
from requant.cli.verify import verify

EXIT_FAILURE = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

# Command -> the example that its --help shows.
EXAMPLES: dict[Callable[..., None], str] = {
    quantize: "requant quantize ./model ./model-3bit --method squeezellm --bits 3 --calibration text.txt",
    perplexity: "requant perplexity ./model-3bit --text wiki.txt --window 2048 --windows 4",
    generate: 'requant generate ./model-3bit --prompt "The capital of France is"',
    benchmark: "requant benchmark ./model-3bit --prefill 512 --decode 128 --baseline ./model",
    inspect: "requant inspect ./model-3bit --json layers.json",
    verify: "requant verify ./model-3bit",
    demo: "requant demo",
    env: "requant env",
}

app = typer.Typer(
    name="requant",
    help="Low-bit language models with a sparse part kept in 16 bits: quantize, compare, run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _command, _example in EXAMPLES.items():
    app.command(epilog=f"Example: {_example}")(_command)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Runs one command and exits."""
    signal.signal(signal.SIGTERM, _terminate)
    warnings.showwarning = _show_warning
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Runs one command and returns its exit code; faults of the input become one line on stderr."""
    try:
        code = typer.main.get_command(app).main(arguments, prog_name="requant", standalone_mode=False) or 0
        if code == EXIT_INTERRUPTED:  # typer releases differ in how they pass Ctrl-C on
            raise KeyboardInterrupt
        return code
    except (KeyboardInterrupt, typer.Abort):
        print("requant: interrupted, nothing was written", file=sys.stderr)
        return EXIT_INTERRUPTED
    except typer.Exit as request:
        return request.exit_code
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has left; there is nobody to tell
        return EXIT_FAILURE
    except Exception as error:
        message = _input_fault(error)
        if message is None:
            traceback.print_exc()
            return EXIT_FAILURE
        print(f"requant: {message}", file=sys.stderr)
        return EXIT_BAD_INPUT


def _input_fault(error: Exception) -> str | None:
    """One line if the user's arguments or input are at fault, None if we are."""
    if hasattr(error, "format_message"):  # the command line parser's own errors, whose class typer does not export
        return " ".join(error.format_message().split())
    from requant.errors import InputError
    from requant_kernels.errors import CheckpointError

    if isinstance(error, (InputError, CheckpointError, FileExistsError, PermissionError)):
        return " ".join(str(error).split())
    return None


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """One line, without the place in our code that nobody at a command line wants to see."""
    print(f"requant: warning: {message}", file=sys.stderr)


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    """SIGTERM unwinds like Ctrl-C does, so that unfinished output is removed."""
    sys.exit(EXIT_TERMINATED)
