"""Progress bars with rows a second, on a terminal; silence anywhere else, and on every rank but the first."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vertebra import log


def on_terminal() -> bool:
    """Whether somebody watches."""
    return log.rank() == 0 and sys.stderr.isatty()


@contextmanager
def progress(what: str, total: int | None, *, unit: str = "rows", show: bool = True) -> Iterator[Callable[[int], None]]:
    """`with progress("tokenizing", 1000) as advance: advance(10)`."""
    if not show or not on_terminal():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:,.0f} {unit}/s" if speed else f"– {unit}/s")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Speed(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)
