"""Stopping when asked to: SIGTERM and Ctrl-C end the run after the present step, a second Ctrl-C ends it now."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from types import FrameType
from typing import Any


def exit_code(asked: str) -> int:
    """What a shell expects of a process that ended early, by this signal: 130 after Ctrl-C, 143 after SIGTERM."""
    return 128 + signal.Signals[asked]


class Stopper:
    """A context in which signals ask for a stop; `asked` tells which."""

    def __init__(self) -> None:
        self.asked: str | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stopper:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.asked is not None and number == signal.SIGINT:
            # now: no clean-up, no waiting for a writer
            _announce("stopped at once; the last checkpoint is as it was")
            os._exit(exit_code(name))
        if self.asked is None:
            self.asked = name
            _announce(f"{name}: saving after this step (Ctrl-C again: stop at once)")


def _announce(text: str) -> None:
    """Past Python's own streams: a signal may come while they write, even while the word about the former one is written,
    and they would raise an error in the middle of a step. A terminal that is held (Ctrl-S) holds nobody up."""
    with contextlib.suppress(OSError, ValueError):
        if select.select([], [2], [], 1.0)[1]:
            os.write(2, f"\n{text}\n".encode() if os.isatty(2) else f"{text}\n".encode())
