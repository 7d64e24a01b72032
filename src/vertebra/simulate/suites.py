"""Which simulators there are, and the task that a name means. A simulator is a row: its module is imported on first use.

A module of a suite has `names()`, `facts(name)` and `open_task(name, **options)`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from vertebra.errors import UnknownNameError
from vertebra.simulate.simulation import Simulation

SUITES: dict[str, str] = {"metaworld": "vertebra.simulate.metaworld"}
"""The suites, and the package of each."""


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
    """The share of episodes that the scripted expert does, as measured; None: there is no expert, or no measurement."""
    spread: float = 1.0
    """How much wider the objects' range may be made, so that the expert still holds."""


def task_names(suite: str = "metaworld") -> tuple[str, ...]:
    """The tasks of a suite."""
    return tuple(_module(suite).names())


def task_facts(name: str) -> TaskFacts:
    """What is known of a task of any suite."""
    return _of(name).facts(name)


def open_task(name: str, *, seed: int | None = None, **options: Any) -> Simulation:
    """A task, ready to act in. `options` are the suite's: cameras, size …; `seed`: reset to it at once."""
    made: Simulation = _of(name).open_task(name, **options)
    if seed is not None:
        made.reset(seed)
    return made


def _module(suite: str) -> Any:
    if suite not in SUITES:
        raise UnknownNameError("suite of tasks", suite, SUITES)
    return importlib.import_module(SUITES[suite])


def _of(name: str) -> Any:
    """The suite that a task belongs to; an unknown one is answered with the nearest of all."""
    modules = [_module(suite) for suite in SUITES]
    for module in modules:
        if name in module.names():
            return module
    known = [one for module in modules for one in module.names()]
    raise UnknownNameError("task", name, known, hint="`vertebra sim tasks` lists them all.")
