"""Requests of many robots become passes of one model: as many at once as came, none waits for long, each answered as if alone.

    submit ──► queue ──► batch: one request a robot, the same `done` ──► policy.decide_many ──► each its own answer
                 │full: Busy                                  │one fails: each alone, from what was remembered before

A thread of its own runs the model, so that the server goes on listening meanwhile. A lone client never waits for others: a
pass waits at most `batch_wait`, and only for those who got an answer last time and will soon be back. Without them, robots that
once fell into two groups would stay so, each waiting for the other's pass.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from vertebra import log
from vertebra.errors import DataError, VertebraError
from vertebra.policies.decision import Decision
from vertebra.policies.observation import Observation, faults
from vertebra.policies.policy import Policy
from vertebra.serve.line import WaitingLine
from vertebra.serve.metrics import ServerMetrics
from vertebra.serve.refusals import Broken, OutOfTime
from vertebra.serve.settings import ServeSettings


@dataclass(kw_only=True, eq=False)
class QueuedRequest:
    """A request in the queue."""

    observation: Observation
    instruction: str
    key: str | None
    robot: Hashable
    done: int | None
    answer: Callable[[Decision | BaseException], None]
    kept: bool
    """Whether the robot is remembered behind this request."""
    came: float = field(default_factory=time.monotonic)
    left: bool = False
    """Nobody waits for it any more."""


class Scheduler(WaitingLine[QueuedRequest]):
    """Asks one policy for many clients."""

    def __init__(self, policy: Policy, settings: ServeSettings, metrics: ServerMetrics) -> None:
        super().__init__(settings, name="policy")
        self.policy, self.metrics = policy, metrics
        self._expected = 1
        """Who will ask: the robots of the last pass, and those who waited meanwhile."""
        self._seen: OrderedDict[Hashable, float] = OrderedDict()
        self._gone: set[Hashable] = set()

    @property
    def sessions(self) -> int:
        return len(self._seen)

    async def ask(
        self,
        observation: Observation,
        instruction: Any,
        key: str | None,
        robot: Hashable | None,
        done: int | None = None,
    ) -> Decision:
        """The decision about one observation. `robot`: whose; None: a robot that is forgotten at once."""
        self._require_fit(observation, instruction, key, done)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Decision] = loop.create_future()

        def settle(outcome: Decision | BaseException) -> None:
            if future.done():
                return
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        def answer(outcome: Decision | BaseException) -> None:
            loop.call_soon_threadsafe(settle, outcome)

        job = QueuedRequest(
            observation=observation, instruction=instruction, key=key, robot=object() if robot is None else robot, done=done,
            answer=answer, kept=robot is not None,
        )  # fmt: skip
        self._put(job)
        try:
            return await asyncio.wait_for(future, self.settings.time_limit)
        except TimeoutError:
            raise OutOfTime(f"no answer within {self.settings.time_limit:g} s, the server's limit") from None
        finally:
            job.left = True

    def forget(self, robot: Hashable) -> None:
        """A robot's episode is over: forgotten before anything else is computed."""
        with self._here:
            self._seen.pop(robot, None)
            self._gone.add(robot)
            self._here.notify_all()

    def forget_rows(self, client: str) -> None:
        """The same of all robots that one client asks for at once, as `CLIENT/0`, `CLIENT/1` …"""
        for robot in [one for one in list(self._seen) if str(one).startswith(f"{client}/")]:
            self.forget(robot)

    def _require_fit(self, observation: Observation, instruction: Any, key: str | None, done: int | None) -> None:
        """What can be found out before anything waits, so that others do not wait for it."""
        policy = self.policy
        found = faults(observation, instruction, policy.record, missing=policy.settings.missing_camera)
        if found:
            raise DataError("this policy cannot act on what it was given:\n" + "\n".join(f"  {one}" for one in found))
        policy.known_key(key)
        if done is not None and policy.settings.real_time is None:
            raise DataError(f"done={done} is about real-time chunking, which is off; leave it out")
        if done is not None and done > policy.record.chunk:
            raise DataError(f"done={done} of a chunk of {policy.record.chunk} actions")

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            if batch:
                self._answer(batch)

    def _next(self) -> list[QueuedRequest] | None:
        """The jobs of the next pass; none where only robots are to be forgotten; None at the end."""
        with self._here:
            free = time.monotonic()
            while not self._queue and not self._gone and not self._ended:
                self._here.wait(self.settings.idle / 4 or None)
                self._forget_silent()
            if self._ended:
                return None
            self._forget_gone()
            if not self._queue:
                return []
            until = max(free, self._queue[0].came) + self.settings.batch_wait
            while len(self._queue) < min(self._expected, self.settings.max_batch) and not self._ended:
                left = until - time.monotonic()
                if left <= 0 or not self._here.wait(left):
                    break
            self._forget_gone()
            return self._taken()

    def _taken(self) -> list[QueuedRequest]:
        batch: list[QueuedRequest] = []
        rest: deque[QueuedRequest] = deque()
        robots: set[Hashable] = set()
        while self._queue:
            job = self._queue.popleft()
            if job.left:
                continue
            fits = len(batch) < self.settings.max_batch and job.robot not in robots
            if fits and (not batch or job.done == batch[0].done):
                batch.append(job)
            else:
                rest.append(job)
            robots.add(job.robot)  # what a robot asks later is answered later
        self._queue = rest
        return batch

    def _answer(self, batch: list[QueuedRequest]) -> None:
        begun = time.monotonic()
        before = self.policy.memories([job.robot for job in batch]) if self.policy.remembers else {}
        outcome: list[Decision | BaseException]
        try:
            outcome = list(self._decided(batch))
        except Exception as error:  # a model may raise anything; it is logged
            outcome = [error]
            if len(batch) > 1:
                self.policy.recall(before)
                outcome = [self._alone(job) for job in batch]
        with self._here:  # before anybody is answered, and back
            self._expected = len(batch) + len(self._queue)
        self.metrics.batch(len(batch), [begun - job.came for job in batch], time.monotonic() - begun)
        for job, one in zip(batch, outcome, strict=True):
            if isinstance(one, Exception) and not isinstance(one, VertebraError):
                log.logger.error("a pass failed", exc_info=one)
                one = Broken("the model failed; the server's log has the rest")
            if not job.kept:
                self.policy.forget(job.robot)
            elif self.policy.remembers:
                self._remember(job.robot)
            job.answer(one)

    def _decided(self, batch: list[QueuedRequest]) -> list[Decision]:
        return self.policy.decide_many(
            [job.observation for job in batch], [job.instruction for job in batch], [job.key for job in batch],
            robots=[job.robot for job in batch], done=batch[0].done, sure=False,
        )  # fmt: skip

    def _alone(self, job: QueuedRequest) -> Decision | BaseException:
        try:
            return self._decided([job])[0]
        except Exception as error:  # a model may raise anything; it is logged
            return error

    def _remember(self, robot: Hashable) -> None:
        with self._here:
            self._seen[robot] = time.monotonic()
            self._seen.move_to_end(robot)
            while len(self._seen) > self.settings.sessions:
                self._gone.add(self._seen.popitem(last=False)[0])

    def _forget_silent(self) -> None:
        oldest = time.monotonic() - self.settings.idle
        while self._seen and next(iter(self._seen.values())) < oldest:
            self._gone.add(self._seen.popitem(last=False)[0])

    def _forget_gone(self) -> None:
        while self._gone:
            self.policy.forget(self._gone.pop())
