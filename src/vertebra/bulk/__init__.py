"""Many rows answered by one model, shard by shard: in this process, or on many by Ray; what is there is not answered again.

It takes names of models and of data; how one prompt is decoded is the business of `vertebra.decode`.
"""

from __future__ import annotations

from vertebra.lazy import offer

__getattr__, __dir__, __all__ = offer(
    __name__,
    {
        "settings": "BulkSettings",
        "running": "run_rows",
        "spread": "over_ray",
    },
)
