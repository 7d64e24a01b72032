"""`Served`: a policy behind an address, asked as the loop asks any other: each robot by a client of its own, side by side, so
that the server answers them in one pass.

What the server says of its policy (cameras, numbers, the robot's state) is held against the simulator, as a record is. Its
settings (`execute`, `outside`) are those of whoever serves it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from vertebra.client import Client, connect
from vertebra.errors import ConfigError

TOKEN = "VERTEBRA_SERVE_TOKEN"


def is_address(name: str) -> bool:
    """Whether a policy's name is where one is served."""
    return name.startswith(("http://", "https://", "ws://", "wss://"))


@dataclass(frozen=True, kw_only=True)
class ServedFacts:
    """Of a policy's record, what the loop looks at."""

    cameras: tuple[str, ...]
    dims: int
    proprio: int | None
    history: int
    frame: str
    view: Mapping[str, Any]
    gives: int
    """Actions at a time, as the server was started."""


class Served:
    """The policy at an address; `VERTEBRA_SERVE_TOKEN` is the token, where it has one."""

    def __init__(self, address: str, *, key: str | None = None) -> None:
        self.address, self._key = address, key
        self._clients: dict[Hashable, Client] = {}
        about = self._client(0).metadata
        if about.get("kind") == "language model":
            self.close()
            raise ConfigError(f"{address} serves a language model, which does not act")
        self.identity = _identity(about)
        self.record = _facts(about)

    def _client(self, robot: Hashable) -> Client:
        if robot not in self._clients:
            self._clients[robot] = connect(self.address, token=os.environ.get(TOKEN))
        return self._clients[robot]

    def act(self, observation: Any, instruction: str) -> np.ndarray:
        return self._client(0).act(observation, instruction, self._key)

    def act_many(
        self, observations: Sequence[Any], instructions: Sequence[str], *, robots: Sequence[Hashable]
    ) -> list[np.ndarray]:
        """A chunk for each of several robots."""
        clients = [self._client(robot) for robot in robots]
        if len(clients) == 1:
            return [clients[0].act(observations[0], instructions[0], self._key)]
        with ThreadPoolExecutor(len(clients)) as team:
            return list(team.map(lambda one, *asked: one.act(*asked, self._key), clients, observations, instructions))

    def reset(self, robot: Hashable = 0) -> None:
        self._client(robot).reset()

    def close(self) -> None:
        for client in self._clients.values():
            client.close()
        self._clients.clear()


def _facts(about: Mapping[str, Any]) -> ServedFacts | None:
    """None: a server of others, which reports nothing of its policy and is shown everything."""
    if not about.get("vertebra"):
        return None
    return ServedFacts(
        cameras=tuple(about["cameras"]), dims=about["dims"], proprio=about["proprio"], history=about["history"],
        frame=about["frame"], view=about["view"], gives=about["execute"],
    )  # fmt: skip


def _identity(about: Mapping[str, Any]) -> str:
    """What tells whether the same policy is served as before."""
    facts = {
        name: value for name, value in about.items() if name not in ("session", "seq", "timestamp", "paths", "payload")
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]
