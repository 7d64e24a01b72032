"""How Meta-World's scripted experts do, as `benchmarks/measure_experts.py` found it in twenty or thirty episodes each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """One task."""

    expert: float
    """The share of episodes that it does, in the stock range and without noise."""
    steps: int
    """Of its slowest success there."""
    spread: float = 1.0
    """The widest spread in which it does at least nine of ten, and so in all narrower ones."""


MEASURED: dict[str, Measured] = {
    "assembly": Measured(1, 98),
    "basketball": Measured(1, 101),
    "bin-picking": Measured(1, 232),
    "box-close": Measured(0.9, 153),
    "button-press-topdown": Measured(1, 76, 3),
    "button-press-topdown-wall": Measured(1, 64),
    "button-press": Measured(1, 63),
    "button-press-wall": Measured(0.95, 70),
    "door-open": Measured(1, 134),
    "drawer-close": Measured(1, 79, 4),
    "drawer-open": Measured(1, 92, 4),
    "faucet-open": Measured(1, 65, 4),
    "faucet-close": Measured(1, 68, 4),
    "pick-place": Measured(1, 59, 3),
    "peg-insert-side": Measured(0.833, 271),
    "push": Measured(1, 74, 2),
    "reach": Measured(1, 64, 2),
    "window-open": Measured(1, 96, 2.5),
    "window-close": Measured(1, 86, 2),
}
