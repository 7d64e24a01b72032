"""What is remembered of one robot between two calls: earlier images, and chunks that are blended or gone on from."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from vertebra.action.chunks import Ensemble, remaining
from vertebra.errors import DataError
from vertebra.policies.observation import Observation


class RobotMemory:
    """Of one robot, since its episode began."""

    def __init__(self, history: int) -> None:
        self.images: deque[Mapping[str, Any]] = deque(maxlen=history or None)
        self.ensemble: Ensemble | None = None
        self.values: np.ndarray | None = None
        """[C, D] the last chunk, in −1…1."""

    def copied(self) -> RobotMemory:
        """The same, to go on from twice."""
        made = copy.copy(self)
        made.images, made.ensemble = self.images.copy(), copy.deepcopy(self.ensemble)
        return made

    def remembered(self, observation: Observation) -> Observation:
        """The observation with what came before it, unless it brings that itself."""
        if observation.history:
            return observation
        return Observation(images=observation.images, proprio=observation.proprio, history=tuple(self.images))

    def keep(self, observation: Observation) -> None:
        """Remember what was seen."""
        # arrays are often buffers that a camera writes into again
        kept = {n: i.copy() if isinstance(i, np.ndarray) else i for n, i in observation.images.items() if i is not None}
        self.images.append(kept)

    def blended(self, actions: np.ndarray, decay: float) -> np.ndarray:
        """The action of now, from this chunk and those before it."""
        if self.ensemble is None:
            self.ensemble = Ensemble(decay=decay)
        return self.ensemble.add(actions)

    def left(self, done: int) -> np.ndarray | None:
        """What the last chunk still says after `done` of its actions; None: there is none, or nothing is left of it."""
        if self.values is None:
            return None
        if not 0 <= done <= len(self.values):
            raise DataError(f"done={done} of a chunk of {len(self.values)} actions; expected 0 to {len(self.values)}")
        found = remaining(self.values, done)
        return found if len(found) else None
