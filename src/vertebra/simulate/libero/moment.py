"""The moment at which LIBERO takes its observation, kept so that it can be drawn later, or never.

robosuite samples its sensors in the middle of a control step; what stands there is a handful of small arrays, and drawing
needs nothing else.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

_PLACES = (
    "qpos", "xpos", "xquat", "xmat", "xipos", "ximat", "geom_xpos", "geom_xmat", "site_xpos", "site_xmat",
    "cam_xpos", "cam_xmat", "light_xpos", "light_xdir",
)  # fmt: skip
"""What MuJoCo's drawing reads of a simulation without tendons, skins and flexible bodies."""


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
        context = self._drawn()
        context.gl_ctx.make_current()  # another simulation may have drawn in between
        context.render(size, size, camera_id=self._env.sim.model.camera_name2id(camera))
        pixels = context.read_pixels(size, size)  # from below, as OpenGL has them; so is robosuite's image
        return np.ascontiguousarray(pixels[::-1, ::-1])

    def _drawn(self) -> Any:
        if self._context is None:
            from robosuite.utils.binding_utils import MjRenderContextOffscreen

            sim = self._env.sim
            sim.forward = lambda: None  # a renderer that is made would move the simulation on
            self._context = MjRenderContextOffscreen(sim, device_id=-1)
            del sim.forward
            self._context.vopt.geomgroup[:2] = 0, 1  # what is seen, without the shapes that collide
            self._context.data = SimpleNamespace(_data=self._kept)
        return self._context

    def close(self) -> None:
        """Give the renderer back."""
        self._context = None
