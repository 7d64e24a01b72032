"""Training that is exact and resumes bit for bit: the Hugging Face `Trainer`, subclassed and configured.

It uses models, data, tuning and folders, and no command line.
"""

from __future__ import annotations

from vertebra.lazy import offer

__getattr__, __dir__, __all__ = offer(
    __name__,
    {
        "config": "RunConfig",
        "recipes": "read_recipe",
        "scale.shards": "consolidate",
        "tiny": "tiny_config",
    },
)
