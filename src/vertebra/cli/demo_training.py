"""Several trainings of a demo at once, a process and a thread each, and a line that moves for each where somebody watches.

policy  ━━━━━━━━━━━━━━━━━━━━╸━━━━━━━━  640/1000  loss 0.141
blind   ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━ 1000/1000  loss 0.224
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vertebra.simulate.workers import processes
from vertebra.training.watching.metrics import METRICS


@dataclass(frozen=True, kw_only=True)
class Training:
    """One of them."""

    recipe: str
    out: Path
    settings: Sequence[str] = ()
    then: Callable[[], Any] | None = None
    """What its process does when it is done and others still train: a function of a module, or a partial of one."""

    @property
    def overrides(self) -> list[str]:
        return ["watch.bar=false", *self.settings, f"name={self.out.name}", f"out={self.out}"]


def train_at_once(printer: Any, trainings: Sequence[Training], *, workers: int) -> dict[str, dict[str, float]]:
    """What the evaluation of each found, by the name of its folder. With one worker they follow one another in this process."""
    from vertebra.training.recipes import read_recipe

    # all of them are read before the first begins: a mistake in one is refused at once
    steps = {one.out.name: read_recipe(one.recipe, one.overrides).steps or 0 for one in trainings}
    if workers == 1:
        return {one.out.name: _found(one) for one in trainings}
    with processes(len(trainings)) as pool:
        waiting = {one.out.name: pool.submit(_found, one) for one in trainings}
        _watched(printer, trainings, steps, list(waiting.values()))
        return {name: future.result() for name, future in waiting.items()}


def _found(training: Training) -> dict[str, float]:
    """What a process does. Beside another, two threads are slower than one: one that waits holds the core its partner needs."""
    import torch

    from vertebra.training.recipes import read_recipe
    from vertebra.training.run import train

    torch.set_num_threads(1)
    found = dict(train(read_recipe(training.recipe, training.overrides)).found)
    if training.then is not None:
        training.then()
    return found


def _watched(
    printer: Any, trainings: Sequence[Training], steps: Mapping[str, int], waiting: Sequence[Future[Any]]
) -> None:
    """Until all have ended, or one has failed. What is not a terminal gets one line."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    if not printer.is_terminal:
        counts = ", ".join(f"{name} {count:,} steps" for name, count in steps.items())
        printer.print(f"training at once: {counts}; some minutes", soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[loss]}"))
    with Progress(*columns, console=printer, transient=True, disable=not printer.is_terminal) as bars:
        rows = [bars.add_task(one.out.name, total=steps[one.out.name], loss="") for one in trainings]
        while wait(waiting, timeout=1, return_when="FIRST_EXCEPTION").not_done:
            if any(future.done() and future.exception() for future in waiting):
                return
            for one, row in zip(trainings, rows, strict=True):
                step, loss = newest(one.out)
                bars.update(row, completed=step, loss="" if loss is None else f"loss {loss:.3f}")


def newest(run: Path) -> tuple[int, float | None]:
    """The last step that a run has written, and its loss."""
    try:
        rows = (run / METRICS).read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0, None
    for line in reversed(rows):
        try:
            row = json.loads(line)
        except ValueError:  # a line that is being written
            continue
        if "loss" in row:
            return int(row["step"]), float(row["loss"])
    return 0, None
