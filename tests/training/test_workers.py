"""The processes that make batches end with the training, however that ends: not when memory is searched for garbage,
where torch would wait five seconds for each."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from tests.data.streams import loader, rows
from tests.training.models import Words, config, trainer
from vertebra.data.loaders.samplers import InOrder
from vertebra.errors import TrainingError

BEFORE: set[int | None] = set()


@pytest.fixture(autouse=True)
def _before() -> None:
    BEFORE.clear()
    BEFORE.update(child.pid for child in multiprocessing.active_children())


def workers() -> list[Any]:
    return [child for child in multiprocessing.active_children() if child.pid not in BEFORE]


def training(folder: Path, kind: str) -> Any:
    made = trainer(folder, config(steps=6, data__workers=2), samples=Words(200))
    if kind == "stream":
        made.feed.loader = loader(rows(100), InOrder(2), block=8, workers=2)
    return made


def at_step(made: Any, step: int, do: Any) -> list[int]:
    """Calls `do` in that step's forward; how many workers each step saw."""
    seen: list[int] = []

    def before(*_: Any, **__: Any) -> None:
        seen.append(len(workers()))
        if len(seen) == step:
            do()

    made.learner.register_forward_pre_hook(before, with_kwargs=True)
    return seen


@pytest.mark.parametrize("kind", ["table", "stream"])
@pytest.mark.parametrize("end", ["the last step", "a stop", "an error"])
def test_workers_end_with_the_training(kind: str, end: str, tmp_path: Path):
    made = training(tmp_path, kind)

    def ends() -> None:
        if end == "a stop":
            made.stopper.asked = "SIGTERM"
        if end == "an error":
            raise TrainingError("of this test")

    seen = at_step(made, 3, ends)
    if end == "an error":
        with pytest.raises(TrainingError, match="of this test") as raised:
            made.train()
        assert raised.tb is not None, "whoever holds the error holds every frame of it"
    else:
        made.train()
    assert set(seen) == {2}
    assert len(seen) == (6 if end == "the last step" else 3)
    assert not workers()


def test_a_loader_that_was_closed_goes_on_from_its_place(tmp_path: Path):
    made = training(tmp_path, "table").feed.loader
    whole = [batch["input_ids"].tolist() for batch in made]
    made.set_epoch(0)
    passing = iter(made)
    first = [next(passing)["input_ids"].tolist() for _ in range(3)]
    passing.close()
    made.close()
    assert not workers()
    assert first + [batch["input_ids"].tolist() for batch in made] == whole
    made.close()
