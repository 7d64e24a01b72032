"""Whether an image shows anything, for every way in which it may not."""

from __future__ import annotations

import numpy as np
import pytest

from vertebra.errors import SimulationError
from vertebra.simulate.content import require_content

NOTHING = np.zeros((64, 64, 3), np.uint8)
BLUE = np.full((64, 64, 3), (0, 0, 190), np.uint8)
SCENE = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None, None] * 3, (64, 64, 3))
NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


def not_asked() -> np.ndarray:
    raise AssertionError("an image that shows something needs no second one")


def test_an_image_that_shows_something_is_drawn_once():
    require_content(SCENE, not_asked)
    spot = NOTHING.copy()
    spot[32, 5] = 1  # the least that an image can show in a row that is looked at
    require_content(spot, not_asked)


@pytest.mark.parametrize("image", [NOTHING, BLUE])
def test_one_color_is_the_truth_where_the_scene_shows_something(image):
    require_content(image, lambda: SCENE)


@pytest.mark.parametrize("image", [NOTHING, BLUE])
@pytest.mark.parametrize("whole", [NOTHING, BLUE])
def test_one_color_is_a_failure_where_the_scene_has_one_too(image, whole):
    with pytest.raises(SimulationError, match=r"images of one color.*MUJOCO_GL=egl, or osmesa"):
        require_content(image, lambda: whole)


def test_noise_is_a_failure():
    with pytest.raises(SimulationError, match=r"noise.*MUJOCO_GL=egl, or osmesa"):
        require_content(NOISE, not_asked)
