"""Work for several processes, whose results come in the order of the work: how many there are changes nothing.

A worker begins as a new process (OpenGL does not survive a fork), keeps what it opened, and ends with whoever started it.
"""

from __future__ import annotations

import itertools
import multiprocessing
import multiprocessing.process
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from vertebra.errors import SimulationError, VertebraError

Work = TypeVar("Work")
Result = TypeVar("Result")


class Workers:
    """A context manager: `in_order` as often as needed. One worker is this process itself."""

    def __init__(self, count: int, *, ahead: int = 2) -> None:
        self.count, self._ahead = count, ahead
        self._pool: ProcessPoolExecutor | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Workers:
        if self.count > 1:
            self._pool = self._stack.enter_context(processes(self.count))
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def in_order(self, call: Callable[[Work], Result], works: Iterable[Work]) -> Iterator[tuple[Work, Result]]:
        """(work, result), in the order of `works`; few of them wait, so that memory stays bounded."""
        if self._pool is None:
            for work in works:
                yield work, call(work)
            return
        guarded: Callable[[Work], Result | _Fault] = partial(_guarded, call)
        waiting: deque[tuple[Work, Future[Result | _Fault]]] = deque()
        rest = iter(works)
        try:
            for work in itertools.islice(rest, self.count + self._ahead):
                waiting.append((work, self._pool.submit(guarded, work)))
            while waiting:
                work, future = waiting.popleft()
                result = future.result()
                for more in itertools.islice(rest, 1):
                    waiting.append((more, self._pool.submit(guarded, more)))
                if isinstance(result, _Fault):
                    raise result.kind(result.message)
                yield work, result
        except BrokenProcessPool as error:
            raise SimulationError(
                "a worker process ended in the middle of its work (killed, or out of memory). Try again with fewer workers "
                "(--workers)"
            ) from error


@contextmanager
def processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """New processes, which end with whoever started them; and at once, where this block ends by an error or Ctrl-C."""
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_begin)
    try:
        yield pool
    except BaseException:
        # what they are at is of no use any more, and may take minutes; one that was just starting is not the pool's yet
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
        writer = getattr(getattr(pool, "_result_queue", None), "_writer", None)
        if writer is not None:
            writer.close()  # half a result that a process was sending would be waited for
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin() -> None:
    """Ctrl-C reaches every process of a terminal: a worker that it ended would be waited for, who started it decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


@contextmanager
def working(workers: int | Workers) -> Iterator[Workers]:
    """So many workers, for as long as this lasts; or those that are there, who go on afterwards with what they have loaded."""
    if isinstance(workers, Workers):
        yield workers
        return
    with Workers(workers) as team:
        yield team


@dataclass(frozen=True)
class _Fault:
    """A mistake of the user's that a worker met: errors with words of their own do not travel between processes."""

    kind: type[VertebraError]
    message: str


def _guarded(call: Callable[[Work], Result], work: Work) -> Result | _Fault:
    try:
        return call(work)
    except VertebraError as error:
        plain = next(kind for kind in type(error).__mro__ if "__init__" not in vars(kind))
        return _Fault(plain if issubclass(plain, VertebraError) else VertebraError, str(error))


def end_with_parent() -> None:
    """In a process that another one spawned, at its beginning: when that one is killed, this one ends too.

    It would go on with its work, and then wait for more for ever.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_wait, args=(parent,), name="parent", daemon=True).start()


def _wait(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)
