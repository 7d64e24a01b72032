"""The seam between a simulator and whoever acts in it. A simulator is reset to a number, and everything follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np


@dataclass(frozen=True)
class Outcome:
    """What became of one step."""

    success: bool
    """The task is done at this moment."""
    ended: bool
    """The step limit is reached: nothing more can be done."""


@runtime_checkable
class Simulation(Protocol):
    """One task in one simulator.

    The images, states and success of an episode depend on the seed of `reset`, on the options the task was opened with and
    on the actions, whatever ran before. Nothing is rendered before `look`.
    """

    name: str
    instruction: str
    cameras: tuple[str, ...]
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    limit: int
    """Steps of an episode."""
    fps: int
    """Steps of a second."""
    robot: str
    """What it is called in a data set."""
    options: Any
    """A dataclass of the options that it was opened with, defaults among them."""

    def reset(self, seed: int) -> None:
        """Begin the episode of this seed."""
        ...

    def look(self) -> dict[str, np.ndarray]:
        """8-bit pixels [H, W, 3] by camera, as things stand."""
        ...

    def state(self) -> np.ndarray:
        """The robot's own numbers."""
        ...

    def step(self, action: np.ndarray) -> Outcome:
        """Carry out one action, in the robot's units."""
        ...

    def expert(self) -> np.ndarray:
        """What the scripted expert would do now."""
        ...

    def close(self) -> None:
        """Give back what it holds; a closed simulation is of no more use."""
        ...
