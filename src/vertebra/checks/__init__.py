"""The correctness checks behind `vertebra check`: what must hold of a backbone before anything is built on it."""

from __future__ import annotations

from vertebra.lazy import offer

__getattr__, __dir__, __all__ = offer(
    __name__,
    {
        "run": "check_backbone",
        "results": "Report",
    },
)
