"""LIBERO and LIBERO-PRO: 290 tasks of one arm (`vertebra.simulate.open_task("libero_object/pick_up_the_milk_and_…")`)."""

from __future__ import annotations

from typing import Any

from vertebra.simulate.libero.files import require_package, tasks
from vertebra.simulate.libero.suites import EXPERTS, OFFICIAL, SUITES
from vertebra.simulate.simulation import Simulation
from vertebra.simulate.suites import TaskFacts

ALL = "libero"
VIEW = ("size",)


def suites() -> tuple[str, ...]:
    """The sets of its tasks, those of LIBERO-PRO among them."""
    return (ALL, *SUITES)


def names(suite: str | None = None) -> tuple[str, ...]:
    """The tasks of a suite, or all. Where LIBERO is not installed there are none, which a suite that is named does not hide."""
    if suite is not None:
        require_package()
    return tuple(name for name, one in tasks().items() if suite in (None, ALL, one.suite))


def facts(name: str) -> TaskFacts:
    """What is known of a task without opening it."""
    one = tasks()[name]
    limit, expert = SUITES[one.suite], EXPERTS.get(one.title) if one.has_expert else None
    return TaskFacts(
        name=name, suite=one.suite, instruction=one.instruction, limit=limit, expert=expert, official=OFFICIAL
    )


def open_task(name: str, **options: Any) -> Simulation:
    """A task, ready to act in; MuJoCo is imported here."""
    from vertebra import config
    from vertebra.simulate.libero.options import LiberoOptions
    from vertebra.simulate.libero.task import Libero

    return Libero(tasks()[name], config.build(LiberoOptions, options, where=f"the options of `{name}`"))
