"""A policy or a language model behind HTTP and websockets, for the clients that people already have.

It takes policies and models and does without their names; the other end is `vertebra.client`.
"""

from __future__ import annotations

from vertebra.lazy import offer

__getattr__, __dir__, __all__ = offer(
    __name__,
    {
        "settings": "ServeSettings",
        "server": "Server",
        "asgi": "Application",
    },
)
