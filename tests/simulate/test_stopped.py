"""Ctrl-C reaches a command and its workers at once: it ends, and they with it, whatever they are at."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from tests.simulate.test_collecting import ended, workers_of
from vertebra.simulate.workers import Workers

HANG = 120
"""Seconds after which nothing will come any more; a work takes longer."""


def long(folder: Path, work: int) -> int:
    """The first sleeps; the others are done at once, and their worker waits for more."""
    (folder / str(work)).touch()
    if work == 0:
        time.sleep(10 * HANG)
    return work


def endless(folder: Path) -> None:
    with Workers(2) as team:
        for _ in team.in_order(partial(long, folder), range(3)):
            pass


def large(folder: Path, payload: bytes, work: int) -> bytes:
    """More than a pipe holds, there and back: whenever the signal comes, somebody is in the middle of sending."""
    (folder / str(work)).touch()
    return payload * 6


def flood(folder: Path) -> None:
    with Workers(2) as team:
        for _ in team.in_order(partial(large, folder, bytes(5 << 20)), range(10**6)):
            pass


@pytest.mark.parametrize("at_work", ["endless", "flood"])
def test_it_ends_with_its_workers(at_work: str, tmp_path: Path):
    code = (
        f"import signal, sys\nfrom pathlib import Path\nfrom tests.simulate.test_stopped import {at_work}\n"
        # a shell's background job, which tests may be, hands down that Ctrl-C is ignored
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"if __name__ == '__main__': {at_work}(Path(sys.argv[1]))"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=Path(__file__).parents[2], start_new_session=True,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    workers = workers_of(running)
    while not all((tmp_path / name).exists() for name in "012"):
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)
    try:
        _, error = running.communicate(timeout=HANG)
    finally:
        running.kill()
    assert b"KeyboardInterrupt" in error
    for process in workers:
        ended(process)


def mistaken(folder: Path) -> None:
    with Workers(2) as team:
        for _ in team.in_order(partial(long, folder), [1, 0, 2]):
            raise ZeroDivisionError


def test_a_mistake_ends_it_too(tmp_path: Path):
    with pytest.raises(ZeroDivisionError):
        mistaken(tmp_path)
    with Workers(2) as team:
        assert [made for _, made in team.in_order(partial(long, tmp_path), [1, 2, 4])] == [1, 2, 4]
