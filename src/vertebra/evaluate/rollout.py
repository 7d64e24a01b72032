"""Episodes in a closed loop: look, decide, carry out, until the task is done or the steps are used up.

Several simulations go side by side, and the policy is asked once for all of them that need it; each goes as if alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vertebra.errors import DataError, SimulationError
from vertebra.evaluate.actor import ActionChunk, Actor
from vertebra.evaluate.records import EpisodeRecord, packed
from vertebra.simulate.simulation import Simulation


@dataclass(eq=False)
class Live:
    """An episode that is running."""

    simulation: Simulation
    arm: str
    task: str
    number: int
    seed: int
    instruction: str
    frozen: bool = False
    success: bool = False
    done: bool = False
    broken: str | None = None
    refused: str | None = None
    outside: int = 0
    not_a_number: int = 0
    milliseconds: list[float] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)
    images: dict[str, np.ndarray] | None = None

    def look(self) -> dict[str, np.ndarray]:
        """What is shown now: where images are frozen, the first."""
        if self.images is None or not self.frozen:
            self.images = self.simulation.look()
        return self.images

    def fail(self, error: SimulationError) -> None:
        self.broken, self.success, self.done = str(error), False, True

    def carry_out(self, chunk: ActionChunk) -> None:
        self.outside += chunk.outside
        self.not_a_number += chunk.not_a_number
        if not len(chunk.actions):
            self.refused, self.done = "it gave no action", True
        for action in chunk.actions:
            if self.done:
                return
            try:
                outcome = self.simulation.step(action)
            except SimulationError as error:
                self.fail(error)
                return
            except DataError as error:  # an action that is none
                self.refused, self.done = str(error), True
                return
            self.actions.append(np.asarray(action, np.float32))
            self.success, self.done = outcome.success, outcome.success or outcome.ended

    def record(self) -> EpisodeRecord:
        return EpisodeRecord(
            arm=self.arm, task=self.task, number=self.number, seed=self.seed, instruction=self.instruction,
            success=self.success, steps=len(self.actions), decisions=len(self.milliseconds), broken=self.broken,
            refused=self.refused, outside=self.outside, not_a_number=self.not_a_number,
            milliseconds=tuple(round(one, 3) for one in self.milliseconds), actions=packed(self.actions),
        )  # fmt: skip


def run(actor: Actor, episodes: Sequence[Live]) -> list[EpisodeRecord]:
    """Let the episodes run to their ends, side by side."""
    for robot, one in enumerate(episodes):
        try:
            one.simulation.reset(one.seed)
            actor.begin(robot)
        except SimulationError as error:
            one.fail(error)
    while waiting := [(robot, one) for robot, one in enumerate(episodes) if not one.done]:
        _decide(actor, waiting)
    return [one.record() for one in episodes]


def _decide(actor: Actor, waiting: Sequence[tuple[int, Live]]) -> None:
    ready, seen = [], []
    for robot, one in waiting:
        try:
            seen.append(actor.observation(one.look(), one.simulation.state()))
            actor.require_fit(seen[-1], one.instruction, one.simulation.action_names)
            ready.append((robot, one))
        except SimulationError as error:
            one.fail(error)
    if not ready:
        return
    began = time.perf_counter()
    try:
        chunks = actor.decide(seen, [one.instruction for _, one in ready], [robot for robot, _ in ready])
    except DataError as error:
        if len(ready) > 1:  # one of them is refused: which, only each alone can tell
            for pair in ready:
                _decide(actor, [pair])
            return
        ready[0][1].refused, ready[0][1].done = str(error), True
        return
    each = 1000 * (time.perf_counter() - began) / len(ready)
    for (_, one), chunk in zip(ready, chunks, strict=True):
        one.milliseconds.append(each)
        one.carry_out(chunk)
