"""Seeds of episodes. What is collected and what is evaluated never meet, and every task draws its own."""

from __future__ import annotations

import zlib
from typing import Literal

import numpy as np

Purpose = Literal["collect", "evaluate"]
_PURPOSES: dict[Purpose, int] = {"collect": 0, "evaluate": 1}


def episode_seed(purpose: Purpose, task: str, seed: int, number: int) -> int:
    """The seed of an episode, below 2⁶²: of a purpose and a task, the `number`-th under one seed of the whole."""
    words = [_PURPOSES[purpose], zlib.crc32(task.encode()), seed, number]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(2))
