"""Trainings at once: each ends in its folder, both are watched, and the failure of one is that of all."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from tests.simulate.test_collecting import ended, workers_of
from vertebra.cli.demo_training import Training, _watched, newest, train_at_once
from vertebra.errors import ConfigError

SHORT = ("steps=3", "watch.every=1", "data.count=24", "data.options.asked=4", "optim.batch=2")


def trainings(folder: Path, *settings: str) -> list[Training]:
    return [
        Training(recipe="receipts-drawn", out=folder / "one", settings=SHORT),
        Training(recipe="receipts-drawn", out=folder / "two", settings=[*SHORT, "seed=1", *settings]),
    ]


def test_at_once_is_one_after_the_other(tmp_path: Path):
    shown = io.StringIO()
    at_once = train_at_once(Console(file=shown, width=100), trainings(tmp_path / "a"), workers=2)
    in_turn = train_at_once(Console(file=io.StringIO()), trainings(tmp_path / "b"), workers=1)
    assert list(at_once) == ["one", "two"]
    assert at_once == in_turn
    assert at_once["one"] != at_once["two"]
    assert "training at once: one 3 steps, two 3 steps" in shown.getvalue()
    step, loss = newest(tmp_path / "a" / "one")
    assert step == 3
    assert loss


def test_on_a_terminal_a_line_moves_for_each(tmp_path: Path):
    shown, both, ending = io.StringIO(), trainings(tmp_path), Future()
    for training, loss in zip(both, (2.5, 0.125), strict=True):
        training.out.mkdir()
        (training.out / "metrics.jsonl").write_text(f'{{"step": 2, "loss": {loss}}}\n')
    threading.Timer(1.5, ending.set_result, [None]).start()
    _watched(Console(file=shown, force_terminal=True, width=100), both, {"one": 3, "two": 3}, [ending])
    assert all(part in shown.getvalue() for part in ("one", "two", "2/3", "loss 2.500", "loss 0.125"))


def as_left(folder: Path) -> None:
    (folder / "model" / "seen").write_text(str(sorted(path.name for path in folder.iterdir())))


def fails() -> None:
    raise ConfigError("the evaluation cannot begin")


@pytest.mark.parametrize("workers", [1, 2])
def test_what_follows_a_training_finds_it_finished(workers: int, tmp_path: Path):
    one, two = trainings(tmp_path)
    found = train_at_once(
        Console(file=io.StringIO()), [replace(one, then=partial(as_left, one.out)), two], workers=workers
    )
    assert list(found) == ["one", "two"]
    assert "report.html" in (one.out / "model" / "seen").read_text()
    assert not (two.out / "model" / "seen").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_what_follows_a_training_may_fail(workers: int, tmp_path: Path):
    one, two = trainings(tmp_path)
    with pytest.raises(ConfigError, match="the evaluation cannot begin"):
        train_at_once(Console(file=io.StringIO()), [replace(one, then=fails), two], workers=workers)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_cannot_be_trained_is_refused_before_anything_is_trained(workers: int, tmp_path: Path):
    with pytest.raises(ConfigError, match="unknown setting `step`"):
        train_at_once(Console(file=io.StringIO()), trainings(tmp_path, "step=4"), workers=workers)
    assert list(tmp_path.iterdir()) == []


def test_metrics_that_are_being_written(tmp_path: Path):
    assert newest(tmp_path) == (0, None)
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "loss": 2.5}\n{"step": 1, "eval": {"loss": 9}}\n{"step": 2, "lo'
    )
    assert newest(tmp_path) == (1, 2.5)


def test_trainings_end_with_a_demo_that_is_killed(tmp_path: Path):
    """Else they would go on for minutes, and nobody would know of them."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom tests.cli.test_demo_training import forever\n"
        "if __name__ == '__main__': forever(Path(sys.argv[1]))"
    )
    running = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=Path(__file__).parents[2])
    trained = workers_of(running)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    for process in trained:
        ended(process)


def forever(folder: Path) -> None:
    train_at_once(Console(file=io.StringIO()), trainings(folder, "steps=100000"), workers=2)
