"""What the episodes of an evaluation come to: rates with intervals, by task and arm, and arms beside the policy itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import numpy as np

from vertebra.evaluate.arms import POLICY, Arm
from vertebra.evaluate.intervals import mcnemar, paired_difference, wilson
from vertebra.evaluate.records import EpisodeRecord
from vertebra.evaluate.settings import EvaluationSettings


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Success in some episodes."""

    successes: int
    episodes: int
    """Those that the simulator brought to an end."""
    rate: float
    low: float
    high: float

    @classmethod
    def of(cls, records: Sequence[EpisodeRecord]) -> Rate:
        whole = [one for one in records if one.broken is None]
        won = sum(one.success for one in whole)
        low, high = wilson(won, len(whole))
        return cls(successes=won, episodes=len(whole), rate=won / max(len(whole), 1), low=low, high=high)

    @classmethod
    def mean(cls, rates: Sequence[Rate]) -> Rate:
        """The mean over tasks, each with the same weight; its interval is that of as many episodes with this rate."""
        rate, count = fmean(one.rate for one in rates), sum(one.episodes for one in rates)
        low, high = wilson(rate * count, count)
        return cls(successes=sum(one.successes for one in rates), episodes=count, rate=rate, low=low, high=high)


@dataclass(frozen=True, kw_only=True)
class Paired:
    """An arm and the policy itself in the same episodes."""

    both: int
    only_policy: int
    only_arm: int
    neither: int
    difference: float
    """The policy's rate minus the arm's."""
    low: float
    high: float
    p: float
    """McNemar's exact test."""

    @classmethod
    def of(cls, policy: Sequence[EpisodeRecord], arm: Sequence[EpisodeRecord]) -> Paired:
        """Of the episodes that the simulator brought to an end in both."""
        pairs = [
            (one.success, two.success)
            for one, two in zip(policy, arm, strict=True)
            if one.broken is None and two.broken is None
        ]
        both, only_policy, only_arm = (pairs.count(kind) for kind in ((True, True), (True, False), (False, True)))
        neither = len(pairs) - both - only_policy - only_arm
        difference, low, high = paired_difference(both, only_policy, only_arm, neither)
        return cls(
            both=both, only_policy=only_policy, only_arm=only_arm, neither=neither, difference=difference, low=low, high=high,
            p=mcnemar(only_policy, only_arm),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ArmResults:
    """One arm."""

    arm: Arm
    tasks: dict[str, Rate]
    mean: Rate
    instructions: dict[str, str]
    """What was asked in the first episode of each task."""
    steps: float | None
    """The median of those that succeeded."""
    milliseconds: float | None
    """Of a decision, the median."""
    slowest: float | None
    """Of a decision, in 95 % of the cases."""
    change: float | None
    """From one action to the next, the mean of steps and numbers: small is smooth."""
    broken: int
    """Episodes that the simulator failed in; they count for nothing."""
    refused: int
    """Episodes in which the policy gave no action; they are lost."""
    outside: int
    """Numbers of actions beyond the policy's data."""
    not_a_number: int
    paired: Paired | None
    """With the policy itself; None for the policy itself."""
    paired_tasks: dict[str, Paired]


@dataclass(frozen=True, kw_only=True)
class Results:
    """An evaluation."""

    policy: str
    settings: EvaluationSettings
    arms: tuple[ArmResults, ...]
    records: tuple[EpisodeRecord, ...]

    @classmethod
    def of(
        cls, policy: str, settings: EvaluationSettings, arms: Sequence[Arm], records: Sequence[EpisodeRecord]
    ) -> Results:
        """From the records of all episodes, in the order of their numbers."""
        by = {
            (arm.name, task): [one for one in records if (one.arm, one.task) == (arm.name, task)]
            for arm in arms
            for task in settings.tasks
        }
        made = tuple(_arm_results(arm, settings.tasks, by) for arm in arms)
        return cls(policy=policy, settings=settings, arms=made, records=tuple(records))

    def arm(self, name: str) -> ArmResults:
        """The results of an arm."""
        return next(one for one in self.arms if one.arm.name == name)

    def to_json(self) -> dict[str, Any]:
        """As plain data; episodes without their actions."""
        episodes = [{name: value for name, value in vars(one).items() if name != "actions"} for one in self.records]
        for one in episodes:
            one["milliseconds"] = list(one["milliseconds"])
        arms = [_plain(one) for one in self.arms]
        return {"policy": self.policy, "settings": self.settings.to_json(), "arms": arms, "episodes": episodes}


def _arm_results(arm: Arm, tasks: Sequence[str], by: dict[tuple[str, str], list[EpisodeRecord]]) -> ArmResults:
    mine = [one for task in tasks for one in by[arm.name, task]]
    rates = {task: Rate.of(by[arm.name, task]) for task in tasks}
    times = sorted(one for record in mine for one in record.milliseconds)
    changes = np.concatenate([one.changes() for one in mine])
    steps = [one.steps for one in mine if one.success]
    apart = arm.name != POLICY
    itself = [one for task in tasks for one in by[POLICY, task]]
    return ArmResults(
        arm=arm, tasks=rates, mean=Rate.mean(list(rates.values())),
        instructions={task: by[arm.name, task][0].instruction for task in tasks},
        steps=median(steps) if steps else None,
        milliseconds=median(times) if times else None,
        slowest=times[min(int(0.95 * len(times)), len(times) - 1)] if times else None,
        change=float(changes.mean()) if len(changes) else None,
        broken=sum(one.broken is not None for one in mine), refused=sum(one.refused is not None for one in mine),
        outside=sum(one.outside for one in mine), not_a_number=sum(one.not_a_number for one in mine),
        paired=Paired.of(itself, mine) if apart else None,
        paired_tasks={task: Paired.of(by[POLICY, task], by[arm.name, task]) for task in tasks} if apart else {},
    )  # fmt: skip


def _plain(one: ArmResults) -> dict[str, Any]:
    facts = {
        name: value
        for name, value in vars(one).items()
        if name not in ("arm", "tasks", "mean", "paired", "paired_tasks")
    }
    return {
        "arm": one.arm.name,
        "model": one.arm.model,
        "mean": vars(one.mean),
        "tasks": {task: vars(rate) for task, rate in one.tasks.items()},
        "paired": None if one.paired is None else vars(one.paired),
        "paired_tasks": {task: vars(paired) for task, paired in one.paired_tasks.items()},
        **facts,
    }
