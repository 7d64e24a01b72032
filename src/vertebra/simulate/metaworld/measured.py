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
    "coffee-button": Measured(1, 42),
    "coffee-pull": Measured(1, 88),
    "coffee-push": Measured(1, 60),
    "dial-turn": Measured(1, 78),
    "disassemble": Measured(1, 273),
    "door-close": Measured(1, 76),
    "door-lock": Measured(1, 122),
    "door-open": Measured(1, 134),
    "door-unlock": Measured(1, 62),
    "hand-insert": Measured(1, 67),
    "drawer-close": Measured(1, 79, 4),
    "drawer-open": Measured(1, 92, 4),
    "faucet-open": Measured(1, 65, 4),
    "faucet-close": Measured(1, 68, 4),
    "hammer": Measured(1, 77),
    "handle-press-side": Measured(1, 52),
    "handle-press": Measured(1, 43),
    "handle-pull-side": Measured(1, 117),
    "handle-pull": Measured(1, 126),
    "lever-pull": Measured(1, 100),
    "pick-place-wall": Measured(1, 104),
    "pick-out-of-hole": Measured(1, 126),
    "pick-place": Measured(1, 59, 3),
    "plate-slide": Measured(1, 54),
    "plate-slide-side": Measured(1, 52),
    "plate-slide-back": Measured(1, 83),
    "plate-slide-back-side": Measured(1, 55),
    "peg-insert-side": Measured(0.833, 271),
    "peg-unplug-side": Measured(0.95, 156),
    "soccer": Measured(0.85, 114),
    "stick-push": Measured(1, 81),
    "stick-pull": Measured(1, 176),
    "push": Measured(1, 74, 2),
    "push-wall": Measured(1, 92),
    "push-back": Measured(1, 340),
    "reach": Measured(1, 64, 2),
    "reach-wall": Measured(1, 66),
    "shelf-place": Measured(0.95, 110),
    "sweep-into": Measured(0.95, 65),
    "sweep": Measured(1, 108),
    "window-open": Measured(1, 96, 2.5),
    "window-close": Measured(1, 86, 2),
}
