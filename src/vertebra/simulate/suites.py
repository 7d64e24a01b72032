"""Which simulators there are, and the task that a name means. A simulator is a row: its module is imported on first use.

A module has `suites()` (its sets of tasks by name; the first has all of them), `names(suite)`, `facts(name)`,
`open_task(name, **options)` and `VIEW` (those of the options that decide what an image looks like). A suite that is not
installed has no names, and says so when it is asked for.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from vertebra.errors import UnknownNameError
from vertebra.simulate.seeds import episode_seed
from vertebra.simulate.simulation import Simulation

SIMULATORS = {"metaworld": "vertebra.simulate.metaworld", "libero": "vertebra.simulate.libero"}
"""The package of each."""


@dataclass(frozen=True, kw_only=True)
class TaskFacts:
    """What is known of a task without opening it."""

    name: str
    suite: str
    instruction: str
    paraphrases: tuple[str, ...] = ()
    """Other words for the same, held out from training."""
    partner: str | None = None
    """The task whose scene is the same, and whose instruction is another."""
    limit: int
    """Steps of an episode."""
    expert: float | None = None
    """The share of episodes that the scripted expert does, as measured; None: there is no expert."""
    spread: float = 1.0
    """How much wider the objects' range may be made, so that the expert still holds."""
    official: int = 0
    """The benchmark's own initial states: seeds below this. No demonstration begins in one."""


def suites() -> tuple[str, ...]:
    """The names of all sets of tasks."""
    return tuple(suite for module in _modules() for suite in module.suites())


def task_names(suite: str = "metaworld") -> tuple[str, ...]:
    """The tasks of a suite."""
    for module in _modules():
        if suite in module.suites():
            return tuple(module.names(suite))
    raise UnknownNameError("suite of tasks", suite, suites())


def task_facts(name: str) -> TaskFacts:
    """What is known of a task of any suite."""
    made: TaskFacts = _of(name).facts(name)
    return made


def evaluation_seed(task: str, seed: int, number: int) -> int:
    """The seed of the `number`-th episode of an evaluation: the benchmark's own initial states first, where it has some."""
    return number if number < task_facts(task).official else episode_seed("evaluate", task, seed, number)


def open_task(name: str, *, seed: int | None = None, **options: Any) -> Simulation:
    """A task, ready to act in. `options` are the suite's: cameras, size …; `seed`: reset to it at once."""
    made: Simulation = _of(name).open_task(name, **options)
    if seed is not None:
        made.reset(seed)
    return made


def view_options(name: str) -> tuple[str, ...]:
    """The options of a task that decide what its images look like: as they were for demonstrations, so for the policy."""
    made: tuple[str, ...] = _of(name).VIEW
    return made


def _modules() -> list[Any]:
    return [importlib.import_module(name) for name in SIMULATORS.values()]


def _of(name: str) -> Any:
    """The simulator that a task belongs to; an unknown one is answered with the nearest of all."""
    suite = name.partition("/")[0]
    known = {one: module for module in _modules() for one in module.names()}
    if name not in known and suite in suites():
        task_names(suite)  # says so where it is not installed
    if name not in known:
        raise UnknownNameError("task", name, known, hint="`vertebra sim tasks` lists them all.")
    return known[name]
