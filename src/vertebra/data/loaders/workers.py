"""What the processes that make batches do with signals: a terminal and a batch system send theirs to the whole group.

A worker that died of one would take the run along before it could save; when to stop is the run's to say. Only the
process that started a worker may end it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

_HELD = (signal.SIGTERM, signal.SIGINT)


def starting(workers: int) -> str | None:
    """How workers start: forked wherever a system forks safely; else its own way.

    They share the samples with their parent. A process that was itself spawned (a twin of a demo, a sweep's trial)
    would spawn them, and so does Python from 3.14 on: every one would be sent a copy of the samples, and of a model
    that they know.
    """
    forks = sys.platform == "linux" and "fork" in multiprocessing.get_all_start_methods()
    return "fork" if workers and forks else None


def begin(loader: Any) -> Iterator[Any]:
    """`iter(loader)`, whose workers begin with these signals held back: none falls before `only_parent_ends` is in force."""
    if not loader.num_workers or not hasattr(signal, "pthread_sigmask"):
        return iter(loader)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    try:
        return iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def only_parent_ends(worker: int) -> None:
    """In a worker, at its beginning: Ctrl-C is ignored, and SIGTERM unless it is the parent's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # who sent it cannot be known here
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # and so in every thread from here on
    threading.Thread(target=_wait_for_parent, args=(os.getppid(),), name="signals", daemon=True).start()


def _wait_for_parent(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
