"""A language model that answers many clients, one after the other: a thread, a queue, and the pieces of text as they come.

It takes a conversation and settings of decoding; whose protocol they came in is the business of `chat.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from vertebra import log
from vertebra.decode.asking import ask
from vertebra.decode.engine import DecodeRun
from vertebra.decode.settings import question_of, settings_of
from vertebra.decode.start import eval_mode, start
from vertebra.errors import VertebraError
from vertebra.model.model import Model
from vertebra.serve.line import WaitingLine
from vertebra.serve.metrics import ServerMetrics
from vertebra.serve.refusals import Broken, OutOfTime
from vertebra.serve.settings import ServeSettings


@dataclass(frozen=True, kw_only=True)
class AnswerPiece:
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
    answer: Callable[[AnswerPiece | BaseException | None], None]
    came: float = field(default_factory=time.monotonic)
    left: bool = False


class Speaker(WaitingLine[_Job]):
    """Asks one model for many clients."""

    def __init__(self, model: Model, settings: ServeSettings, metrics: ServerMetrics) -> None:
        super().__init__(settings, name="model")
        self.model, self.metrics = model, metrics
        self.sees = "image" in model.sizes

    async def warm_up(self) -> None:
        async for _ in self.answer([{"role": "user", "content": "warm up"}], {"max_new_tokens": 2}):
            pass

    async def answer(self, turns: list[Any], options: dict[str, Any]) -> AsyncIterator[AnswerPiece]:
        """The pieces of the answers; whoever stops listening stops the model too."""
        loop = asyncio.get_running_loop()
        coming: asyncio.Queue[AnswerPiece | BaseException | None] = asyncio.Queue()

        def give(one: AnswerPiece | BaseException | None) -> None:
            loop.call_soon_threadsafe(coming.put_nowait, one)

        job = _Job(turns=turns, options=options, answer=give)
        self._put(job)
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
            self._answer(job)
            self.metrics.batch(1, [begun - job.came], time.monotonic() - begun)

    def _answer(self, job: _Job) -> None:
        try:
            self._run(job)
            job.answer(None)
        except VertebraError as error:
            job.answer(error)
        except Exception as error:  # a model may raise anything; it is logged
            log.logger.error("a pass failed", exc_info=error)
            job.answer(Broken("the model failed; the server's log has the rest"))

    def _run(self, job: _Job) -> None:
        if job.left:
            return
        question, options = question_of(job.options)
        config = settings_of(None, **options)
        asked = ask(self.model, job.turns, question)
        with eval_mode(asked.model):
            run = DecodeRun(start(asked.model, asked.prompt, config), config, text=True)
            for step in run.go():
                if job.left:
                    return
                if any(step.text):
                    job.answer(AnswerPiece(text=list(step.text)))
            reasons = [run.ends.reasons[row] for row in range(run.total)]
            counts = [len(ids) for ids in run.tokens]
            job.answer(AnswerPiece(text=[""] * run.total, reasons=reasons, prompt=run.prompt_length, tokens=counts))
