"""The live display of a run: step, loss, learning rate, tokens a second, time left; on a terminal, and never elsewhere.

It only shows: metrics are written whether or not anybody looks.
"""

from __future__ import annotations

import sys
import time
from typing import Any

_REFRESH = 0.1  # seconds; drawing more often would cost steps


class Display:
    """One line that moves."""

    def __init__(self, steps: int, *, shown: bool) -> None:
        self.steps = steps
        self.shown = shown and sys.stderr.isatty()
        self._bar: Any = None
        self._task: Any = None
        self._start = 0
        self._drawn = 0.0
        self._evaluated = ""

    def begin_at(self, step: int) -> None:
        """A resumed run begins here."""
        self._start = step

    def step(self, step: int, loss: float, lr: float, rate: float) -> None:
        if not self.shown:
            return
        now = time.perf_counter()
        if now - self._drawn < _REFRESH and step < self.steps:
            return
        self._drawn = now
        if self._bar is None:
            self._open()
        text = f"loss {loss:.4f}  lr {lr:.2e}  {rate:,.0f} tokens/s"
        self._bar.update(self._task, completed=step, message=text, evaluated=self._evaluated)

    def evaluated(self, loss: float, best: float) -> None:
        self._evaluated = f" eval {loss:.4f} (best {best:.4f})"

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _open(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        # the message matters more than the bar and the last evaluation, which a narrow terminal goes without
        bar = [TextColumn("training"), BarColumn(min(30, console.width - 90))] if console.width >= 100 else []
        evaluated = [TextColumn("{task.fields[evaluated]}")] if console.width >= 130 else []
        self._bar = Progress(
            *bar,
            MofNCompleteColumn(),
            TextColumn("{task.fields[message]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            *evaluated,
            console=console,
        )
        self._task = self._bar.add_task("training", total=self.steps, completed=self._start, message="", evaluated="")
        self._bar.start()
