"""Stopping when asked to: SIGTERM and Ctrl-C end the run after the present step, a second Ctrl-C ends it now."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any


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
        if self.asked is not None and number == signal.SIGINT:
            # now: no clean-up, no waiting for a writer
            sys.stderr.write("stopped at once; the last checkpoint is as it was\n")
            sys.stderr.flush()
            os._exit(130)
        self.asked = signal.Signals(number).name
        sys.stderr.write(f"{self.asked}: saving after this step (Ctrl-C again: stop at once)\n")
        sys.stderr.flush()
