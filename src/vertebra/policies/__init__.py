"""Policies: an observation and an instruction become a chunk of actions, by any model that records how (`vertebra.policy`).

It takes models and does without names of models; how they are trained is not its business.
"""

from __future__ import annotations

from vertebra.lazy import offer

__getattr__, __dir__, __all__ = offer(
    __name__,
    {
        "policy": "Policy",
        "observation": "Observation",
        "settings": "PolicySettings",
        "decision": "Decision",
        "golden": "Golden GoldenReport golden_pair check_golden",
        "golden_files": "write_golden read_golden",
        "drawn": "drawn_observation",
    },
)
