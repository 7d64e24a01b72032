"""Actions as numbers, ids and statistics: bins, normalisation, chunks, and the record that a policy's folder keeps.

It does without models, without torch, and without the source of episodes.
"""

from __future__ import annotations

from vertebra.lazy import offer

__getattr__, __dir__, __all__ = offer(
    __name__,
    {
        "record": "ActionRecord segment_of",
    },
)
