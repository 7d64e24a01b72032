"""Decoding: right with the cache on, piece by piece (`prefill`, `step`, `fork`, `trim`) or in one call (`generate`).

    from vertebra.decode import generate, stream, prefill, score
    from vertebra import fill, trace          # in here, these two are rooms

It knows models and batches; it does not know how prompts are written. Names are resolved on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "generate": "call",
    "stream": "call",
    "prefill": "state.prefill",
    "score": "scoring",
    "Settings": "settings",
    "Capture": "state.capture",
    "AllowedIds": "choose.constraint",
    "AllowedSteps": "choose.constraint",
    "regex": "choose.grammar",
    "one_of": "choose.grammar",
    "json_schema": "choose.grammar",
    "lark": "choose.grammar",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        from vertebra.errors import did_you_mean

        raise AttributeError(f"module 'vertebra.decode' has no attribute '{name}'.{did_you_mean(name, _HOME)}")
    return getattr(importlib.import_module(f"vertebra.decode.{home}"), name)
