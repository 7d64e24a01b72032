"""Arms: the same episodes once more, with one thing changed. A rate alone says little; beside its arms it says what made it.

swapped       the instruction of the task that shares the scene, or of the next task: success must fall
paraphrase    other words for the same, held out from training: success should stay
frozen        the episode's first image all along: what looking again is worth
chunk=K       K actions of each chunk carried out
ensemble=D    asked at every step, and what the chunks so far say of it blended, with decay D
NAME=MODEL    another policy; `blind=DIR` by custom, one that was trained without images
NAME=FOLDER   of an earlier evaluation: its episodes, which are not run again
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vertebra.errors import ConfigError, UnknownNameError
from vertebra.evaluate.listed import listed
from vertebra.simulate.suites import TaskFacts

POLICY = "policy"
"""The arm that all others are compared with."""
_KINDS = ("swapped", "paraphrase", "frozen", "chunk=K", "ensemble=D", "NAME=MODEL")


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to run every episode."""

    name: str
    model: str | None = None
    """Another policy, or the folder of its evaluation; None: the one that is evaluated."""
    words: Literal["own", "swapped", "paraphrase"] = "own"
    frozen: bool = False
    """The episode's first image all along."""
    execute: int | None = None
    """Actions of a chunk that are carried out; None: as the policy has it."""
    ensemble: float | None = None
    """The decay of temporal ensembling; None: as the policy has it."""

    def instruction(self, task: TaskFacts, others: Sequence[TaskFacts], number: int) -> str:
        """What is asked in episode `number` of a task; `others`: all tasks that are evaluated."""
        if self.words == "paraphrase":
            return task.paraphrases[number % len(task.paraphrases)]
        return swapped_with(task, others).instruction if self.words == "swapped" else task.instruction


def swapped_with(task: TaskFacts, others: Sequence[TaskFacts]) -> TaskFacts:
    """Whose instruction is given instead of a task's own: its partner's, else that of the next task."""
    from vertebra.simulate.suites import task_facts

    if task.partner is not None:
        return task_facts(task.partner)
    names = [one.name for one in others]
    return others[(names.index(task.name) + 1) % len(others)]


def arms_of(given: str | Sequence[str], tasks: Sequence[TaskFacts]) -> tuple[Arm, ...]:
    """The arms that a list names (`swapped,blind=DIR`), the policy itself first."""
    made = listed(given, Arm(name=POLICY), _arm)
    _require_words(made, tasks)
    return made


def _arm(text: str) -> Arm:
    name, sign, value = text.partition("=")
    if not sign:
        if name == "frozen":
            return Arm(name=name, frozen=True)
        if name in ("swapped", "paraphrase"):
            return Arm(name=name, words=name)  # type: ignore[arg-type]
        raise UnknownNameError("arm", name, _KINDS)
    if not name or not value:
        raise ConfigError(f"the arm `{text}`: expected NAME=MODEL, or chunk=K")
    if "/" in name or name.startswith("."):
        raise ConfigError(f"the arm `{text}`: its name becomes a folder's, and cannot hold `/` or begin with a dot")
    if name in ("swapped", "paraphrase", "frozen"):
        raise ConfigError(
            f"the arm `{text}`: `{name}` takes no value; give another policy a name of its own, as blind=DIR"
        )
    if name == "ensemble":
        return Arm(name=f"ensemble-{value}", ensemble=_decay(text, value))
    if name != "chunk":
        return Arm(name=name, model=value)
    if not value.isdecimal() or int(value) < 1:
        raise ConfigError(f"the arm `{text}`: expected how many actions of a chunk are carried out, as chunk=1")
    return Arm(name=f"chunk-{value}", execute=int(value))


def _decay(text: str, value: str) -> float:
    try:
        decay = float(value)
    except ValueError:
        decay = -1.0
    if not 0 <= decay < math.inf:
        raise ConfigError(f"the arm `{text}`: expected how fast older chunks count less, 0 or more, as ensemble=0.01")
    return decay


def _require_words(arms: Sequence[Arm], tasks: Sequence[TaskFacts]) -> None:
    words = {arm.words for arm in arms}
    without = [task.name for task in tasks if not task.paraphrases]
    if "paraphrase" in words and without:
        raise ConfigError(f"arm `paraphrase`: {', '.join(without)} have no other words; leave them out, or the arm")
    if "swapped" in words and len(tasks) == 1 and tasks[0].partner is None:
        raise ConfigError(
            f"arm `swapped`: `{tasks[0].name}` shares its scene with no task; evaluate several tasks, or leave the arm out"
        )
