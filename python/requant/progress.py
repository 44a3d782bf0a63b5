"""Progress of long work: a task has a name and a total, and is advanced by some amount at a time.

    with progress.task("quantizing", total=210) as advance:
        advance(1)

The library is silent unless it is given a `RichProgress`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import Console

Advance = Callable[[float], None]


class Progress(Protocol):
    """Anything that can show a task."""

    def task(self, name: str, total: float) -> AbstractContextManager[Advance]:
        """Opens a task of `total` units; the value of the context advances it."""
        ...


class SilentProgress:
    """Shows nothing."""

    @contextmanager
    def task(self, name: str, total: float) -> Iterator[Advance]:
        """Does nothing."""
        yield lambda amount: None


class RichProgress:
    """A bar with percentage, elapsed time and time left, on `console` (standard error by default)."""

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console

        self._console = console if console is not None else Console(stderr=True)

    @contextmanager
    def task(self, name: str, total: float) -> Iterator[Advance]:
        """Shows the bar until the context ends."""
        from rich import progress as rich_progress

        columns = (
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(bar_width=None),  # gives way to the text on a narrow terminal
            rich_progress.TaskProgressColumn(),
            rich_progress.TimeElapsedColumn(),
            rich_progress.TextColumn("left"),
            rich_progress.TimeRemainingColumn(),
        )
        with rich_progress.Progress(*columns, console=self._console, expand=True) as display:
            identifier = display.add_task(name, total=total)
            yield lambda amount: display.advance(identifier, amount)
