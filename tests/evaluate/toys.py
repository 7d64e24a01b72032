"""A simulation without a simulator, and policies for it: a number on a line is to be brought to a place that the image shows.

Nothing here needs a library that draws, and an episode takes a millisecond. The seed decides the place.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vertebra.errors import SimulationError
from vertebra.simulate.simulation import Outcome
from vertebra.simulate.suites import TaskFacts

PLACES = 8


class Line:
    """The task `right` is done where the image shows it, `left` at the mirrored place; the words tell which is asked."""

    state_names, action_names = ("at",), ("to",)
    fps, robot = 10, "toy"

    def __init__(
        self, name: str, *, cameras: tuple[str, ...] = ("top",), size: int = 16, limit: int = 12, breaks: int = 0
    ):
        self.name, self.cameras, self.size, self.limit = name, tuple(cameras), size, limit
        self.instruction = FACTS[name].instruction
        self.breaks, self.looks = breaks, 0

    def reset(self, seed: int) -> None:
        self.seed, self.steps, self.at = seed, 0, 0.0
        self.place = 1 + seed % (PLACES - 1)

    def look(self) -> dict[str, np.ndarray]:
        self.looks += 1
        image = np.zeros((self.size, self.size, 3), np.uint8)
        image[:, 2 * self.place : 2 * self.place + 2] = 255
        image[0, 0] = self.steps % 256
        return dict.fromkeys(self.cameras, image)

    def state(self) -> np.ndarray:
        return np.array([self.at], np.float32)

    def step(self, action: np.ndarray) -> Outcome:
        if self.breaks and self.seed % self.breaks == 0 and self.steps == 2:
            raise SimulationError("it fell over")
        self.steps += 1
        self.at += float(np.clip(action[0], -1, 1))
        goal = self.place if self.name.endswith("right") else -self.place
        return Outcome(success=abs(self.at - goal) < 0.25, ended=self.steps >= self.limit)

    def expert(self) -> np.ndarray:
        return np.array([np.sign((self.place if self.name.endswith("right") else -self.place) - self.at)])

    def close(self) -> None:
        self.steps = -1


FACTS = {
    "right": TaskFacts(
        name="right",
        suite="line",
        instruction="go right",
        paraphrases=("move right", "walk right"),
        partner="left",
        limit=12,
    ),
    "left": TaskFacts(
        name="left",
        suite="line",
        instruction="go left",
        paraphrases=("move left", "walk left"),
        partner="right",
        limit=12,
    ),
    "alone": TaskFacts(name="alone", suite="line", instruction="stay", limit=12),
    # LIBERO's tasks are called `suite/task`
    "line/right": TaskFacts(name="line/right", suite="line", instruction="go right", limit=12),
}


VIEW = ("size",)


def suites() -> tuple[str, ...]:
    return ("line",)


def names(suite: str = "line") -> tuple[str, ...]:
    return tuple(FACTS)


def facts(name: str) -> TaskFacts:
    return FACTS[name]


def open_task(name: str, **options: Any) -> Line:
    return Line(name, **options)


class Looks:
    """Goes to what the image shows, three steps a chunk, in the direction of the words' last one."""

    def __init__(self) -> None:
        self.resets = 0

    def reset(self) -> None:
        self.resets += 1

    def act(self, observation: dict[str, Any], instruction: str) -> np.ndarray:
        shown = int(np.flatnonzero(observation["images"]["top"][8, :, 0])[0]) // 2
        goal = -shown if instruction.endswith("left") else shown
        return self.towards(goal, float(observation["proprio"][0]))

    def towards(self, goal: float, at: float) -> np.ndarray:
        away = goal - at
        return np.array([[np.clip(away - np.sign(away) * k, -1, 1) if abs(away) > k else 0.0] for k in range(3)])


class LooksAtMany(Looks):
    """The same for several robots at once; it remembers each by its name."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[int, ...]] = []
        self.began: list[int] = []

    def reset(self, robot: int | None = None) -> None:
        self.began.append(robot)

    def act_many(self, observations, instructions, *, robots) -> list[np.ndarray]:
        self.asked.append(tuple(robots))
        return [self.act(one, text) for one, text in zip(observations, instructions, strict=True)]


class Blind(Looks):
    """Goes to the middle, whatever it is shown."""

    def act(self, observation: dict[str, Any], instruction: str) -> np.ndarray:
        goal = PLACES // 2
        return self.towards(-goal if instruction.endswith("left") else goal, float(observation["proprio"][0]))
