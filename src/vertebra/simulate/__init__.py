"""Simulators behind one seam: a task is opened, reset to a seed, looked at, acted on (`vertebra.simulate.open_task`).

Demonstrations are collected here too. It knows no models: whoever acts is an object with a method.
"""

from __future__ import annotations

from vertebra.lazy import offer

__getattr__, __dir__, __all__ = offer(
    __name__,
    {
        "simulation": "Simulation Outcome",
        "suites": "open_task task_names task_facts TaskFacts evaluation_seed",
        "noise": "Bursts",
        "demonstration": "Demonstration demonstrate",
        "collecting": "collect Collected Progress",
        "seeds": "episode_seed",
        "workers": "Workers",
    },
)
