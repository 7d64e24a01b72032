"""Training that is exact and resumes bit for bit: the Hugging Face `Trainer`, subclassed and configured.

This floor knows models, data, tuning and folders; it does not know the command line.
"""

from __future__ import annotations

from vertebra.lazy import offer

__getattr__, __dir__, __all__ = offer(
    __name__,
    {
        "config": "RunConfig",
        "recipes": "read_recipe",
        "run": "tiny_config",
        "scale.shards": "consolidate",
    },
)
