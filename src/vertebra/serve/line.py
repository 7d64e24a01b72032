"""`Line`: clients' jobs in a line before one thread that runs a model, so that the server goes on listening meanwhile."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from vertebra.serve.refusals import Busy
from vertebra.serve.settings import ServeSettings


class Waiting(Protocol):
    """A job in the line."""

    left: bool
    """Nobody waits for it any more."""

    @property
    def answer(self) -> Callable[[Any], None]: ...


J = TypeVar("J", bound=Waiting)


class WaitingLine(ABC, Generic[J]):
    """Subclasses take jobs from `_queue`, under `_here`, until `_ended`. Abstract."""

    def __init__(self, settings: ServeSettings, *, name: str) -> None:
        self.settings = settings
        self._queue: deque[J] = deque()
        self._here = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """No further job; whoever still waits is sent away."""
        with self._here:
            self._ended = True
            left, self._queue = list(self._queue), deque()
            self._here.notify_all()
        for job in left:
            if job.left:  # nor is there a loop that could take an answer
                continue
            job.answer(Busy("the server ends"))
        if self._thread.is_alive():
            self._thread.join(self.settings.time_limit)

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def _put(self, job: J) -> None:
        """Into the line, unless it is full or has ended."""
        with self._here:
            if self._ended:
                raise Busy("the server ends")
            if len(self._queue) >= self.settings.queue:
                raise Busy(f"{len(self._queue)} requests wait already")
            self._queue.append(job)
            self._here.notify_all()

    @abstractmethod
    def _work(self) -> None:
        """What the thread does."""
