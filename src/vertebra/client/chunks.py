"""One action at a time from a client that answers with several."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from vertebra.client.clients import Client
from vertebra.errors import ConfigError


class Chunks:
    """Asks again when the actions at hand are carried out. `execute`: how many of each answer, from the first."""

    def __init__(self, client: Client, execute: int | None = None) -> None:
        if execute is not None and execute < 1:
            raise ConfigError(f"execute={execute}; expected how many actions of a chunk are carried out, from 1 on")
        self.client, self.execute = client, execute
        self._left: deque[np.ndarray] = deque()

    def act(self, observation: Any, instruction: str, unnorm_key: str | None = None) -> np.ndarray:
        """[dims] the next action; the observation is looked at only where a new chunk is needed."""
        if not self._left:
            chunk = self.client.act(observation, instruction, unnorm_key)
            self._left.extend(chunk if self.execute is None else chunk[: self.execute])
        return self._left.popleft()

    def reset(self) -> None:
        """A new episode begins: what is left of the chunk is dropped."""
        self._left.clear()
        self.client.reset()
