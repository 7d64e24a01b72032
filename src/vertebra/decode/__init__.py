"""Decoding: right with the cache on, in one call (`vertebra.generate`) or piece by piece (`prefill`, `step`, `fork`, `trim`).

It uses models and batches, and lets a model render what a person typed; it has no prompt format.
"""

from __future__ import annotations

from vertebra.lazy import offer

__getattr__, __dir__, __all__ = offer(
    __name__,
    {
        "settings": "DecodeConfig",
        "state.prefill": "prefill",
        "state.decoding": "DecodeState",
        "state.capture": "Capture",
        "prefilled": "Prefilled",
        "result": "Generation Step",
        "scoring": "Scores",
        "actions": "predict",
        "slots.places": "FilledSlots",
        "choose.constraint": "AllowedIds AllowedSteps",
        "choose.grammar": "regex one_of json_schema lark",
        "choose.copying": "copied each",
        "tracing.trace": "Trace",
        "tracing.html": "trace_page",
        "tracing.terminal": "print_trace",
    },
)
