"""Ctrl-C reaches a command and its workers at once: it ends, and they with it, whatever they are at."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.simulate.test_collecting import ended, workers_of
from vertebra.simulate.workers import Workers

HANG = 60
"""Seconds after which nothing will come any more; a work takes longer."""


def long(work: int) -> bytes:
    """Some sleep, some send much, some wait for work: what a worker may be at."""
    if work % 3 == 0:
        time.sleep(10 * HANG)
    return bytes(30_000_000)


def endless(started: Path, works: int) -> None:
    with Workers(2) as team:
        for _ in team.in_order(long, range(works)):
            started.touch()


@pytest.mark.parametrize(("works", "seconds"), [(2, 0.5), (100, 0.0), (100, 0.3), (100, 1.0)])
def test_it_ends_with_its_workers(works: int, seconds: float, tmp_path: Path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom tests.simulate.test_stopped import endless\n"
        "if __name__ == '__main__': endless(Path(sys.argv[1]), int(sys.argv[2]))"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "started"), str(works)],
        cwd=Path(__file__).parents[2], start_new_session=True, stderr=subprocess.PIPE,
    )  # fmt: skip
    workers = workers_of(running)
    time.sleep(2 + seconds)
    os.killpg(running.pid, signal.SIGINT)
    try:
        _, error = running.communicate(timeout=HANG)
    finally:
        running.kill()
    assert b"KeyboardInterrupt" in error
    for process in workers:
        ended(process)


def mistaken() -> None:
    with Workers(2) as team:
        for _ in team.in_order(long, [1, 0, 0]):
            raise ZeroDivisionError


def test_a_mistake_ends_it_too():
    with pytest.raises(ZeroDivisionError):
        mistaken()
    with Workers(2) as team:
        assert [len(made) for _, made in team.in_order(long, [1, 2, 4])] == [30_000_000] * 3
