"""With what a task of LIBERO is opened, and its cameras."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from vertebra import config
from vertebra.config import Bound
from vertebra.errors import UnknownNameError

CAMERAS = ("agentview", "robot0_eye_in_hand", "frontview", "galleryview")
"""The first two are those of LIBERO's own observations."""


@dataclass(frozen=True, kw_only=True)
class LiberoOptions:
    """How a task is opened."""

    cameras: tuple[str, ...] = CAMERAS[:2]
    size: Annotated[int, Bound(least=16, most=512)] = 128
    """Pixels of a side; each size costs the same."""
    limit: Annotated[int, Bound(least=1, most=990)] | None = None
    """Steps of an episode; None: those of the suite's published evaluations."""

    def __post_init__(self) -> None:
        config.require_bounds(self)
        for name in self.cameras:
            if name not in CAMERAS:
                raise UnknownNameError("camera", name, CAMERAS)
