"""Seeded noise on an expert's actions, in bursts: the robot is pushed off its path for a while, and seen coming back.

Noise at every step alone would average out, and demonstrations would never show what to do beside the path.
"""

from __future__ import annotations

import numpy as np

_BEGINS = 0.06
"""The chance that a burst begins at a step without one."""
_STEPS = (4, 16)
"""A burst's length: from, to (without)."""


class Bursts:
    """What is added to the actions of one episode; the episode's seed decides all of it."""

    def __init__(self, seed: int, dims: int, scale: float) -> None:
        self._rng = np.random.default_rng([seed, 0xB025])
        self._dims, self._scale = dims, scale
        self._left, self._push = 0, np.zeros(dims)

    def next(self) -> np.ndarray:
        """[dims] for the next step; zeros between bursts."""
        if self._left == 0:
            if self._rng.random() >= _BEGINS:
                return np.zeros(self._dims)
            self._left = int(self._rng.integers(*_STEPS))
            self._push = self._rng.normal(0, self._scale, self._dims)
        self._left -= 1
        return self._push + self._rng.normal(0, 0.2 * self._scale, self._dims)
