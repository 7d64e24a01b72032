"""Meta-World: fifty tasks of one arm, with scripted experts (`vertebra.simulate.open_task("drawer-open")`)."""

from __future__ import annotations

from typing import Any

from vertebra.simulate.metaworld.instructions import MT10, TASKS, limit_of
from vertebra.simulate.metaworld.measured import MEASURED
from vertebra.simulate.simulation import Simulation
from vertebra.simulate.suites import TaskFacts

SUITES: dict[str, tuple[str, ...]] = {"metaworld": tuple(TASKS), "mt10": MT10}
"""All fifty, and the ten of the benchmark of that name."""

VIEW = ("size", "bare_wrist")


def suites() -> tuple[str, ...]:
    """The sets of its tasks."""
    return tuple(SUITES)


def names(suite: str = "metaworld") -> tuple[str, ...]:
    """The tasks of a suite."""
    return SUITES[suite]


def facts(name: str) -> TaskFacts:
    """What is known of a task without opening it."""
    row, found = TASKS[name], MEASURED.get(name)
    return TaskFacts(
        name=name, suite="metaworld", instruction=row.instruction, paraphrases=row.paraphrases, partner=row.partner,
        limit=limit_of(name), expert=found.expert if found else None, spread=found.spread if found else 1.0,
    )  # fmt: skip


def open_task(name: str, **options: Any) -> Simulation:
    """A task, ready to act in; MuJoCo is imported here."""
    from vertebra import config
    from vertebra.simulate.metaworld.options import MetaworldOptions
    from vertebra.simulate.metaworld.task import MetaWorld

    return MetaWorld(name, config.build(MetaworldOptions, options, where=f"the options of `{name}`"))
