"""One demonstration by a scripted expert: what it saw, what it was, and what it meant to do while noise pushed it about.

The action that is recorded is the expert's own; the one carried out has the noise on it. So the set shows the way back.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vertebra.errors import SimulationError
from vertebra.simulate.noise import Bursts
from vertebra.simulate.simulation import Simulation

AFTER = 8
"""Steps recorded after the task is done, so that the last chunk of actions is whole."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Demonstration:
    """One episode. L steps."""

    task: str
    instruction: str
    seed: int
    success: bool
    failure: str | None = None
    """What the simulator failed by, where it did."""
    state: np.ndarray
    """[L, S]"""
    action: np.ndarray
    """[L, A]"""
    images: dict[str, np.ndarray]
    """[K, H, W, 3] by camera, of the steps that were looked at: 0, `every`, 2 · `every` …; none of a failed episode."""
    every: int = 1

    def frames(self, camera: str) -> np.ndarray:
        """[L, H, W, 3]: what the camera showed at each step; between two looks, the image before."""
        return self.images[camera][np.arange(len(self.state)) // self.every]


def demonstrate(simulation: Simulation, seed: int, *, noise: float = 0.0, every: int = 1) -> Demonstration:
    """Let the expert do an episode. `noise`: the scale of bursts on its actions; `every`: look at every n-th step alone."""
    states: list[np.ndarray] = []
    actions: list[np.ndarray] = []
    images: dict[str, list[np.ndarray]] = {camera: [] for camera in simulation.cameras}
    left, failure = AFTER, None
    done = False
    try:
        simulation.reset(seed)
        bursts = Bursts(seed, len(simulation.action_names), noise)
        while left:
            if len(states) % every == 0:
                for camera, image in simulation.look().items():
                    images[camera].append(image)
            action = simulation.expert()
            states.append(simulation.state())
            actions.append(action)
            outcome = simulation.step(np.clip(action + bursts.next(), -1, 1).astype(np.float32))
            left = 0 if outcome.ended else left - done
            done = done or outcome.success
    except SimulationError as error:
        done, failure = False, str(error)
    return Demonstration(
        task=simulation.name,
        instruction=simulation.instruction,
        seed=seed,
        success=done,
        failure=failure,
        state=np.array(states, np.float32).reshape(len(states), len(simulation.state_names)),
        action=np.array(actions, np.float32).reshape(len(actions), len(simulation.action_names)),
        images={camera: np.stack(found) for camera, found in images.items()} if done else {},
        every=every,
    )
