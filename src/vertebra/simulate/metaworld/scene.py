"""What is seen of a task of Meta-World: cameras, which parts are drawn, and what an episode's seed changes of both."""

from __future__ import annotations

from typing import Any

import numpy as np

from vertebra.simulate.drawing import Drawing, prepare
from vertebra.simulate.metaworld.options import CAMERAS, WRIST, Free, MetaworldOptions

_ARM, _HIDDEN = 5, 5
"""Groups of geometries and of sites that Meta-World has no use for."""
_PRISTINE = ("body_pos", "body_quat", "site_pos", "site_quat", "geom_pos", "geom_rgba", "site_rgba", "mat_rgba")
"""What resets change in a model, and leave changed."""


class MetaworldScene:
    """The scene of one task's environment."""

    def __init__(self, env: Any, options: MetaworldOptions, *, marked: bool) -> None:
        import mujoco

        self._model, self._data, self._options = env.model, env.data, options
        prepare(env.model)
        _set_arm_apart(env.model)
        self._marked, self._env = marked, env
        self._show_marks(set())
        self._pristine = {name: getattr(env.model, name).copy() for name in _PRISTINE}
        self._drawing = Drawing(env.model, env.data, env.model_name)
        self._whole, self._bare = mujoco.MjvOption(), mujoco.MjvOption()
        self._whole.geomgroup[_ARM] = 1
        self._bare.geomgroup[_ARM] = 0
        self._turns: dict[str, np.ndarray] = {}

    def restore(self) -> None:
        """Put the model back to what its file says."""
        for name, values in self._pristine.items():
            getattr(self._model, name)[:] = values

    def begin(self, seed: int) -> None:
        """What the seed of an episode changes of what is seen, after the task is reset."""
        if self._marked:
            self._show_marks({name for name, _ in self._env._target_site_config})
        rng = np.random.default_rng([seed, 0x5EE])
        jitter = self._options.jitter
        self._turns = {name: rng.uniform(-jitter, jitter, 2) for name in CAMERAS}
        if self._options.colors:
            model = self._model
            for name in ("table_wood", "basic_floor", "wall_metal"):
                model.mat_rgba[model.material(name).id, :3] = rng.uniform(0.25, 1.0, 3)

    def image(self, camera: str, size: int) -> np.ndarray:
        bare = camera == WRIST and self._options.bare_wrist
        made, turn = self._camera(camera)
        return self._drawing.image(made, self._bare if bare else self._whole, size, turn)

    def _camera(self, name: str) -> tuple[Any, np.ndarray | None]:
        """A camera as MuJoCo has it, and by what it is turned about its own axes; one that stands free goes around."""
        import mujoco

        made, turn = mujoco.MjvCamera(), self._turns[name]
        known = CAMERAS[name]
        if isinstance(known, Free):
            made.type = mujoco.mjtCamera.mjCAMERA_FREE.value
            made.lookat[:] = known.at
            made.distance = known.distance
            made.azimuth, made.elevation = known.azimuth + turn[0], known.elevation + turn[1]
            return made, None
        made.type = mujoco.mjtCamera.mjCAMERA_FIXED.value
        made.fixedcamid = self._model.camera(known).id
        return made, np.radians(turn) if turn.any() else None

    def _show_marks(self, names: set[str]) -> None:
        for number in range(self._model.nsite):
            self._model.site_group[number] = 0 if self._model.site(number).name in names else _HIDDEN


def _set_arm_apart(model: Any) -> None:
    """Give the links above the hand a group of their own, so that a view may leave them out."""
    hand = model.body("hand").id
    for geom in range(model.ngeom):
        body, chain = int(model.geom_bodyid[geom]), []
        while body:
            chain.append(body)
            body = int(model.body_parentid[body])
        is_arm = bool(chain) and model.body(chain[-1]).name == "base" and hand not in chain
        if is_arm and model.geom_group[geom] < 3:  # those of higher groups are never drawn
            model.geom_group[geom] = _ARM
