"""A loader's workers: how they start; signals of a group are ignored from the first moment on, the parent's ends them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader, Dataset

from tests.data import streams
from tests.data.tables import table_of
from vertebra.data.loaders.collate import Collator
from vertebra.data.loaders.loader import Loader
from vertebra.data.loaders.samplers import InOrder
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


def made_in_a_spawned_process(path: str, workers: int) -> list[Any]:
    """Batches of both loaders, whose samples hold what no process can be sent (a model with hooks is such a thing)."""
    table = table_of([[i] * (1 + i % 3) for i in range(7)])
    table.unsendable = lambda: None  # type: ignore[attr-defined]
    loaded = Loader(table, InOrder(2), Collator(0), workers=workers, shift=False)
    stream = streams.loader(path, InOrder(2), workers=workers)
    stream.reader.unsendable = lambda: None  # type: ignore[attr-defined]
    return [streams.ids(loaded), streams.ids(stream)]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems spawn workers always")
def test_workers_in_a_process_that_was_spawned_itself(tmp_path: Path):
    """A spawned process spawns by itself; workers are forked there too. The plain twin makes its batches by itself."""
    path = tmp_path / "rows.txt"
    path.write_text("\n".join(streams.rows(9)))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        found = [pool.submit(made_in_a_spawned_process, str(path), workers).result() for workers in (0, 2)]
    assert found[0] == found[1]
    assert sum(map(len, found[0][0])) == 7
