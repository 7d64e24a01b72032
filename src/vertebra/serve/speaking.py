"""A language model that answers many clients, one after the other: a thread, a queue, and the pieces of text as they come.

It takes a conversation and settings of decoding; whose protocol they came in is the business of `chat.py`.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from vertebra import log
from vertebra.decode.asking import ask
from vertebra.decode.engine import Run
from vertebra.decode.settings import question_of, settings_of
from vertebra.decode.start import eval_mode, start
from vertebra.errors import VertebraError
from vertebra.model.model import Model
from vertebra.serve.metrics import Metrics
from vertebra.serve.refusals import Broken, Busy, OutOfTime
from vertebra.serve.settings import ServeSettings


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What became certain of each answer; the last one has the reasons and the counts."""

    text: list[str]
    reasons: list[str] | None = None
    prompt: int = 0
    """Positions of the prompt."""
    tokens: list[int] = field(default_factory=list)
    """Of each answer."""


@dataclass(kw_only=True, eq=False)
class _Job:
    turns: list[Any]
    options: dict[str, Any]
    give: Callable[[Piece | BaseException | None], None]
    came: float = field(default_factory=time.monotonic)
    left: bool = False


class Speaker:
    """Asks one model for many clients."""

    def __init__(self, model: Model, settings: ServeSettings, metrics: Metrics) -> None:
        self.model, self.settings, self.metrics = model, settings, metrics
        self.sees = "image" in model.sizes
        self._queue: deque[_Job] = deque()
        self._here = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._here:
            self._ended = True
            left, self._queue = list(self._queue), deque()
            self._here.notify_all()
        for job in left:
            job.give(Busy("the server ends"))
        if self._thread.is_alive():
            self._thread.join(self.settings.time_limit)

    @property
    def waiting(self) -> int:
        return len(self._queue)

    async def warm_up(self) -> None:
        async for _ in self.answer([{"role": "user", "content": "warm up"}], {"max_new_tokens": 2}):
            pass

    async def answer(self, turns: list[Any], options: dict[str, Any]) -> AsyncIterator[Piece]:
        """The pieces of the answers; whoever stops listening stops the model too."""
        loop = asyncio.get_running_loop()
        coming: asyncio.Queue[Piece | BaseException | None] = asyncio.Queue()

        def give(one: Piece | BaseException | None) -> None:
            loop.call_soon_threadsafe(coming.put_nowait, one)

        job = _Job(turns=turns, options=options, give=give)
        with self._here:
            if self._ended:
                raise Busy("the server ends")
            if len(self._queue) >= self.settings.queue:
                raise Busy(f"{len(self._queue)} requests wait already")
            self._queue.append(job)
            self._here.notify_all()
        until = job.came + self.settings.time_limit
        try:
            while (piece := await asyncio.wait_for(coming.get(), max(0.0, until - time.monotonic()))) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        except TimeoutError:
            raise OutOfTime(f"no answer within {self.settings.time_limit:g} s, the server's limit") from None
        finally:
            job.left = True

    def _work(self) -> None:
        while True:
            with self._here:
                while not self._queue and not self._ended:
                    self._here.wait()
                if self._ended:
                    return
                job = self._queue.popleft()
            begun = time.monotonic()
            self._say(job)
            self.metrics.batch(1, [begun - job.came], time.monotonic() - begun)

    def _say(self, job: _Job) -> None:
        try:
            self._run(job)
            job.give(None)
        except VertebraError as error:
            job.give(error)
        except Exception as error:
            log.logger.error("a pass failed", exc_info=error)
            job.give(Broken("the model failed; the server's log has the rest"))

    def _run(self, job: _Job) -> None:
        if job.left:
            return
        question, options = question_of(job.options)
        wanted = settings_of(None, **options)
        asked = ask(self.model, job.turns, question)
        with eval_mode(asked.model):
            run = Run(start(asked.model, asked.prompt, wanted), wanted, text=True)
            for step in run.go():
                if job.left:
                    return
                if any(step.text):
                    job.give(Piece(text=list(step.text)))
            reasons = [run.ends.reasons[row] for row in range(run.total)]
            counts = [len(ids) for ids in run.tokens]
            job.give(Piece(text=[""] * run.total, reasons=reasons, prompt=run.prompt_length, tokens=counts))
