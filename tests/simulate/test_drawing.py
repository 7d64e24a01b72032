"""What an image of one color means: a camera that something covers, or a library that draws nothing."""

from __future__ import annotations

import numpy as np
import pytest

from vertebra.errors import SimulationError
from vertebra.simulate.drawing import Drawing

pytestmark = pytest.mark.usefixtures("draws")

SCENE = """
<mujoco>
  <visual><headlight ambient="0.9 0.9 0.9" diffuse="0 0 0" specular="0 0 0"/></visual>
  <worldbody>
    <geom type="plane" size="1 1 0.1" rgba="0.2 0.6 0.2 1"/>
    <geom name="box" type="box" size="0.4 0.4 0.4" pos="0 0 0.4" rgba="0.8 0 0 1"/>
    <camera name="covered" pos="0 0 0.9" xyaxes="1 0 0 0 1 0"/>
    <camera name="away" pos="2 0 2" xyaxes="0 1 0 -0.7 0 0.7"/>
  </worldbody>
</mujoco>
"""


@pytest.fixture
def drawn(tmp_path):
    """A function: the image of a camera of the scene above."""
    import mujoco

    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    drawing = Drawing(model, data, str(tmp_path))

    def image(name: str) -> np.ndarray:
        camera = mujoco.MjvCamera()
        camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, model.camera(name).id
        return drawing.image(camera, mujoco.MjvOption(), 64)

    return image


def test_a_camera_that_something_covers_shows_one_color(drawn):
    """A hand's camera in a box: the episode goes on, and counts."""
    assert drawn("away").std() > 10
    covered = drawn("covered")
    assert (covered == covered[0, 0]).all()
    assert covered[0, 0, 0] > 100 > covered[0, 0, 1]


@pytest.mark.parametrize("camera", ["away", "covered"])
def test_a_library_that_draws_nothing_is_found(drawn, monkeypatch, camera):
    import mujoco

    monkeypatch.setattr(mujoco, "mjr_readPixels", lambda pixels, *_: pixels.fill(0))
    with pytest.raises(SimulationError, match="one color; its OpenGL library failed"):
        drawn(camera)


def test_a_library_that_leaves_what_lay_in_memory_is_found(drawn, monkeypatch):
    import mujoco

    def read(pixels: np.ndarray, *_: object) -> None:
        pixels[:] = np.random.default_rng(0).integers(0, 256, pixels.shape)

    monkeypatch.setattr(mujoco, "mjr_readPixels", read)
    with pytest.raises(SimulationError, match="noise"):
        drawn("away")
