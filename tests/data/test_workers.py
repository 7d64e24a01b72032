"""Signals that reach a loader's workers: a group's are ignored from the first moment on, the parent's ends them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import Any

import pytest
from torch.utils.data import DataLoader, Dataset

from vertebra.data.loaders.workers import begin, only_parent_ends


class Slow(Dataset[int]):
    def __getitem__(self, index: int) -> int:
        time.sleep(0.02)
        return index * index

    def __len__(self) -> int:
        return 24


def loader(**options: Any) -> DataLoader[int]:
    return DataLoader(Slow(), batch_size=None, num_workers=2, worker_init_fn=only_parent_ends, **options)


def kill(*arguments: Any) -> None:
    """By a process that is not the workers' parent."""
    subprocess.run(["kill", *map(str, arguments)], check=True)


@pytest.mark.parametrize("name", ["TERM", "INT"])
def test_signals_of_others_are_ignored_from_the_beginning(name: str):
    """The plain twin: the same numbers, made here."""
    for _ in range(3):
        batches = begin(loader())
        workers = [worker.pid for worker in batches._workers]  # type: ignore[attr-defined]
        kill(f"-{name}", *workers)  # they have hardly begun
        found = [next(batches)]
        kill(f"-{name}", *workers)
        assert [*found, *batches] == [index * index for index in range(24)]


def test_the_parent_ends_its_workers():
    """As torch does with one that does not end by itself."""
    batches = begin(loader(persistent_workers=True))
    next(batches)
    worker = batches._workers[0]  # type: ignore[attr-defined]
    os.kill(worker.pid, signal.SIGTERM)
    worker.join()
    assert worker.exitcode == 0


def test_what_the_parent_does_with_signals_stays_as_it_was():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert [int(index) for index in begin(loader())] == [index * index for index in range(24)]
    assert [int(index) for index in begin(DataLoader(Slow(), batch_size=None))][-1] == 23 * 23
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
