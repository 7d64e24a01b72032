"""With what a task of Meta-World is opened, and its cameras by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from vertebra import config
from vertebra.config import Bound
from vertebra.errors import UnknownNameError


@dataclass(frozen=True, kw_only=True)
class Free:
    """A camera that stands anywhere: it looks at a point from a distance, in degrees around and above it."""

    at: tuple[float, float, float] = (0.0, 0.7, 0.1)
    distance: float = 1.05
    azimuth: float = 180.0
    elevation: float = -40.0


CAMERAS: dict[str, Free | str] = {
    "side": Free(),
    "shoulder": Free(azimuth=135.0),
    "facing": Free(azimuth=270.0, elevation=-50.0),
    **{name: name for name in ("corner", "corner2", "corner3", "corner4", "topview", "behindGripper", "gripperPOV")},
}
"""Free cameras that see the gripper and the object whatever the task, and those of Meta-World's files."""
WRIST = "gripperPOV"


@dataclass(frozen=True, kw_only=True)
class MetaworldOptions:
    """How a task is opened."""

    cameras: tuple[str, ...] = ("side", WRIST)
    size: Annotated[int, Bound(least=16, most=512)] = 64
    """Pixels of a side; images are drawn at 192 or more and made smaller by the mean of blocks."""
    spread: Annotated[float, Bound(least=1.0, most=10.0)] = 1.0
    """How much wider than stock the range is in which objects are placed."""
    shared: bool = False
    """Begin in the scene that a task shares with its partner, in which both are still to be done."""
    bare_wrist: bool = False
    """Leave the links of the arm out of the wrist's image, which halves its cost: the hand hides them nearly all."""
    jitter: Annotated[float, Bound(least=0.0, most=45.0)] = 0.0
    """Degrees by which cameras are turned at most, anew in each episode."""
    colors: bool = False
    """New colors of table, floor and walls in each episode."""
    limit: Annotated[int, Bound(least=1, most=500)] | None = None
    """Steps of an episode; None: the task's own."""
    beyond: bool = False
    """Allow a spread in which the expert does not hold; for measuring how far it does."""

    def __post_init__(self) -> None:
        config.require_bounds(self)
        for name in self.cameras:
            if name not in CAMERAS:
                raise UnknownNameError("camera", name, CAMERAS)
