"""What this machine has, as options that start processes need to know."""

from __future__ import annotations

import os

from vertebra.errors import ConfigError

MOST_A_CORE = 8
"""Processes that share one core may be meant, where they wait for other things; more are a slip of the finger."""


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def require_processes(option: str, count: int) -> None:
    """Refuse what would fill the memory of the machine before anything else is noticed."""
    most = MOST_A_CORE * cores()
    if not 1 <= count <= most:
        raise ConfigError(
            f"{option} is {count}; expected 1 or more, and on this machine at most {most} ({MOST_A_CORE} for each of its "
            f"{cores()} cores)"
        )
