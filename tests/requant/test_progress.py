from __future__ import annotations

import io

from requant.progress import RichProgress, SilentProgress
from rich.console import Console


def test_bar_shows_name_share_and_time_left() -> None:
    stream = io.StringIO()
    with RichProgress(Console(file=stream, width=100, force_terminal=True)).task("counting", total=4) as advance:
        advance(1)
        advance(2)
    shown = stream.getvalue()
    assert "counting" in shown
    assert "75%" in shown
    assert "left" in shown


def test_silence_takes_any_amount() -> None:
    with SilentProgress().task("nothing", total=0) as advance:
        advance(0.5)
