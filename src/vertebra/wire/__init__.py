"""What crosses a network: values and arrays as JSON and as msgpack, bounded, and without anything that could run.

It uses numpy and the standard library; who sends what to whom is the business of `vertebra.client` and `vertebra.serve`.
"""

from __future__ import annotations

from vertebra.lazy import offer

__getattr__, __dir__, __all__ = offer(
    __name__,
    {
        "bounds": "Bounds",
        "text": "from_json to_json",
        "messages": "pack unpack",
    },
)
