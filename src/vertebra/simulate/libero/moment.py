"""The moment at which LIBERO takes its observation, kept so that it can be drawn later, or never.

robosuite samples its sensors in the middle of a control step; what stands there is a handful of small arrays, and drawing
needs nothing else.
"""

from __future__ import annotations

from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from vertebra.simulate.content import require_content

_PLACES = (
    "qpos", "xpos", "xquat", "xmat", "xipos", "ximat", "geom_xpos", "geom_xmat", "site_xpos", "site_xmat",
    "cam_xpos", "cam_xmat", "light_xpos", "light_xdir",
)  # fmt: skip
"""What MuJoCo's drawing reads of a simulation without tendons, skins and flexible bodies."""

_WHOLE_SCENE = "agentview"
"""The camera that stands back from everything, in all of LIBERO's scenes."""


class Moment:
    """What stood where when the environment took its last observation."""

    def __init__(self, env: Any) -> None:
        import mujoco
        from robosuite.utils.observables import Observable, sensor

        self._env = env
        self._kept = mujoco.MjData(env.sim.model._model)
        self._context: Any = None

        @sensor(modality="moment")
        def keep(cache: Any) -> np.ndarray:
            for name in _PLACES:
                getattr(self._kept, name)[:] = getattr(env.sim.data._data, name)
            return np.zeros(1)

        env.add_observable(Observable("moment", keep, sampling_rate=env.control_freq))

    def image(self, camera: str, size: int) -> np.ndarray:
        """[size, size, 3] as policies of LIBERO are given it: robosuite's image, rotated by 180 degrees."""
        pixels = self._pixels(camera, size)
        require_content(pixels, partial(self._pixels, _WHOLE_SCENE, size))
        return np.ascontiguousarray(pixels[::-1, ::-1])

    def _pixels(self, camera: str, size: int) -> np.ndarray:
        """From below, as OpenGL has them; so is robosuite's image."""
        context = self._drawn()
        context.gl_ctx.make_current()  # another simulation may have drawn in between
        context.render(size, size, camera_id=self._env.sim.model.camera_name2id(camera))
        pixels: np.ndarray = context.read_pixels(size, size)
        return pixels

    def _drawn(self) -> Any:
        if self._context is None:
            sim = self._env.sim
            sim.forward = lambda: None  # a renderer that is made would move the simulation on
            self._context = _renderer()(sim, device_id=-1)
            del sim.forward
            self._context.vopt.geomgroup[:2] = 0, 1  # what is seen, without the shapes that collide
            self._context.data = SimpleNamespace(_data=self._kept)
        return self._context

    def close(self) -> None:
        """Give the renderer back."""
        if self._context is not None:
            self._context.free()
        self._context = None


@cache
def _renderer() -> Any:
    from robosuite.utils.binding_utils import MjRenderContextOffscreen

    class Renderer(MjRenderContextOffscreen):
        """robosuite's, which frees what is its own, and once.

        Names of textures and buffers count from 1 in every context. Its own way leaves another context current, and frees
        those of a simulation that goes on, which from then on draws what lies in memory.
        """

        _freed = False

        def free(self) -> None:
            if not self._freed:
                self.gl_ctx.make_current()
                self.con.free()
                self.gl_ctx.free()
                self._freed = True

        def __del__(self) -> None:
            self.free()

    return Renderer
