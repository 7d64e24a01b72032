"""Whether an image shows anything: a library of OpenGL that fails does so in silence, and a policy would look at nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vertebra.errors import SimulationError

_OTHER = "its OpenGL library failed. Try the other one: MUJOCO_GL=egl, or osmesa"


def require_content(pixels: np.ndarray, whole: Callable[[], np.ndarray]) -> None:
    """Refuse what a library leaves that draws nothing, or whatever lay in memory.

    A hand's camera may lie against a wall, or inside a box: its image of one color is then the truth. So `whole`, an image of
    the scene from where everything is seen, decides.
    """
    if _of_one_color(pixels) and _of_one_color(whole()):
        raise SimulationError(f"the simulator drew images of one color; {_OTHER}")
    neighbors = np.abs(np.diff(pixels[::4].astype(np.int16), axis=1))
    if neighbors.mean() > 60:  # they have nothing to do with each other
        raise SimulationError(f"the simulator drew noise; {_OTHER}")


def _of_one_color(pixels: np.ndarray) -> bool:
    sample = pixels[::4]
    return bool((sample == sample[0, 0]).all())
