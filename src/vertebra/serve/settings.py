"""How a server serves: where, for whom, how much at once, and how long anything may take. Data alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from vertebra import config
from vertebra.config import Bound
from vertebra.errors import ConfigError
from vertebra.wire.bounds import Bounds

Some = Annotated[int, Bound(least=1)]
Seconds = Annotated[float, Bound(least=0)]


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Choices of whoever runs a server."""

    host: str = "127.0.0.1"
    """The address; 0.0.0.0 is open to the network, and should have a token."""
    port: Annotated[int, Bound(least=0, most=65535)] = 8000
    """0: any that is free."""
    groot: Annotated[int, Bound(least=0, most=65535)] | None = None
    """A port for GR00T's clients, who speak ZMQ; 0: any that is free. None: they are not served."""
    token: str | None = None
    """Who knows it may ask: `Authorization: Bearer …`, or openpi's `Api-Key …`. None: everybody."""
    max_batch: Some = 8
    """Robots that are answered in one pass."""
    batch_wait: Seconds = 0.005
    """Seconds that a request waits at most for others, and only while others are active."""
    queue: Some = 64
    """Requests that wait; more are sent away, to come back later."""
    time_limit: Seconds = 60.0
    """Seconds from a request to its answer."""
    body_time: Seconds = 10.0
    """Seconds in which the body of a request must be here."""
    drain: Seconds = 30.0
    """Seconds in which accepted requests are answered after SIGTERM."""
    connections: Some = 256
    """Websockets that are open at once."""
    sessions: Some = 1024
    """Robots that are remembered; the one that was silent for longest is forgotten first."""
    idle: Seconds = 900.0
    """Seconds of silence after which a robot is forgotten, and its websocket closed."""
    body: Some = Bounds().size
    """Bytes of one request."""
    pixels: Some = Bounds().pixels
    """Of one image."""
    rename: dict[str, str] = field(default_factory=dict)
    """Cameras of clients by those of the model: {"agentview": "image"}."""
    history: Some = 240
    """Decisions that the live page shows."""

    def __post_init__(self) -> None:
        config.require_bounds(self)
        if not self.host.strip():
            raise ConfigError("host is empty; expected an address of this machine, as 127.0.0.1")
        # what cannot stand in a header would be refused for ever, and an empty one would let everybody in
        token = self.token
        if token is not None and not (token.isascii() and token.isprintable() and token == token.strip() != ""):
            raise ConfigError("the token is empty, begins or ends with a space, or holds more than ASCII's characters")

    @property
    def bounds(self) -> Bounds:
        """Of one message."""
        return Bounds(size=self.body, pixels=self.pixels)
