"""Drawing MuJoCo's scenes: one context of OpenGL a process, in it one set of meshes a model file, shared by all its scenes.

A second `mujoco.Renderer` beside a living one reads noise, since the buffer that is current is the other's; here the buffer
is made current before each image. Shadows, reflections and multisampling are off, before anything is made: 13 and 2 times
faster. Knows no tasks.
"""

from __future__ import annotations

import atexit
from collections import OrderedDict
from functools import partial
from typing import Any

import numpy as np

from vertebra.simulate.content import require_content
from vertebra.simulate.gl import new_context
from vertebra.simulate.pixels import reduced, rendered_size

LARGEST = 512
"""The largest side of an image."""
_KEPT = 6
"""Sets of meshes that stay: one is 0.2 to 0.5 s to make, and some megabytes."""
_GEOMETRIES = 2000


class Drawing:
    """One scene, drawn by the process's one context. `file` names the model: scenes of one file share their meshes."""

    def __init__(self, model: Any, data: Any, file: str) -> None:
        import mujoco

        self._model, self._data, self._file = model, data, file
        self._scene = mujoco.MjvScene(model, _GEOMETRIES)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._scene.flags[flag] = 0
        self._pert = mujoco.MjvPerturb()

    def image(self, camera: Any, option: Any, size: int, turn: np.ndarray | None = None) -> np.ndarray:
        """[size, size, 3] of a camera, with the groups of geometries that `option` shows; `turn`: radians to the side and up,
        by which the camera is turned about its own axes."""
        side = rendered_size(size)
        pixels = self._pixels(camera, option, side, turn)
        require_content(pixels, partial(self._whole_scene, side))
        return reduced(pixels[::-1], size)

    def _whole_scene(self, side: int) -> np.ndarray:
        """What a camera shows that stands back from everything."""
        import mujoco

        camera = mujoco.MjvCamera()
        mujoco.mjv_defaultFreeCamera(self._model, camera)
        return self._pixels(camera, mujoco.MjvOption(), side, None)

    def _pixels(self, camera: Any, option: Any, side: int, turn: np.ndarray | None) -> np.ndarray:
        """As OpenGL leaves them: the lowest row first."""
        import mujoco

        context = _current(self._model, self._file)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, context)
        every = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(self._model, self._data, option, self._pert, camera, every, self._scene)
        if turn is not None:
            for view in self._scene.camera:
                view.forward[:], view.up[:] = turned(view.forward, view.up, turn)
        area = mujoco.MjrRect(0, 0, side, side)
        pixels = np.empty((side, side, 3), np.uint8)
        mujoco.mjr_render(area, self._scene, context)
        mujoco.mjr_readPixels(pixels, None, area, context)
        return pixels


def prepare(model: Any) -> None:
    """Set a model up for being drawn quickly; its meshes must not have been sent to OpenGL before."""
    model.vis.quality.offsamples = 0
    model.vis.global_.offwidth = model.vis.global_.offheight = LARGEST


def turned(forward: np.ndarray, up: np.ndarray, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The directions of a camera turned to the side (about `up`) and then up, by radians."""
    right = np.cross(forward, up)
    side, rise = turn
    ahead = np.cos(side) * forward + np.sin(side) * right
    return np.cos(rise) * ahead + np.sin(rise) * up, np.cos(rise) * up - np.sin(rise) * ahead


_opengl: list[Any] = []
_meshes: OrderedDict[str, Any] = OrderedDict()


def _current(model: Any, file: str) -> Any:
    """The meshes of a model file, in the process's context, which is made current."""
    import mujoco

    if not _opengl:
        _opengl.append(new_context(LARGEST, LARGEST))
        atexit.register(_free)  # while what frees them is still there
    _opengl[0].make_current()
    if file not in _meshes:
        _meshes[file] = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        if len(_meshes) > _KEPT:
            _meshes.popitem(last=False)[1].free()
    _meshes.move_to_end(file)
    return _meshes[file]


def _free() -> None:
    _opengl[0].make_current()
    while _meshes:
        _meshes.popitem()[1].free()
    _opengl.pop().free()
