"""Simulations that a process keeps open: making one costs a quarter of a second, and its meshes half a second more."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from vertebra.simulate.simulation import Simulation
from vertebra.simulate.suites import open_task

KEPT = 3
"""How many, beside those that are in use at once."""
_Key = tuple[str, tuple[tuple[str, Any], ...], int]
_open: OrderedDict[_Key, Simulation] = OrderedDict()


def opened(task: str, options: Mapping[str, Any], *, place: int = 0) -> Simulation:
    """A task that this process opened before with these options, or now. `place`: those in use at once have one each."""
    key = (task, tuple(sorted(options.items())), place)
    if key not in _open:
        _open[key] = open_task(task, **options)
        while len(_open) > KEPT + place:
            _open.popitem(last=False)[1].close()
    _open.move_to_end(key)
    return _open[key]


def close_all() -> None:
    """Close them all."""
    while _open:
        _open.popitem()[1].close()
