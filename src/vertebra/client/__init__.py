"""A robot's end of the wire: numpy and the standard library, so that it runs where no model does.

    with connect("ws://127.0.0.1:8000") as robot:
        actions = robot.act({"images": {"image": pixels}}, "put the cup on the plate")

The same call for a policy in this process, for our server over HTTP or a websocket, and for others' servers.
"""

from __future__ import annotations

from vertebra.lazy import offer

__getattr__, __dir__, __all__ = offer(
    __name__,
    {
        "addresses": "connect",
        "clients": "Client",
        "chunks": "Chunks",
    },
)
