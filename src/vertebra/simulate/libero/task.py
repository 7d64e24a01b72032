"""`Libero`: one task of LIBERO behind our seam, by the protocol of its published evaluations.

An image and a state of LIBERO are taken within a control step, a moment before its end. That moment is kept (`Moment`) and
drawn when somebody looks: the pixels are those of `OffScreenRenderEnv`, to the bit, and an episode costs a quarter. Resets
keep the compiled model, for three seconds less, and run the same number of passes, so that trajectories are the same too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from vertebra.errors import ConfigError, DataError, SimulationError
from vertebra.simulate.libero.environment import environment
from vertebra.simulate.libero.expert import GRASPS, LiberoScene, PickAndPlace
from vertebra.simulate.libero.files import Files
from vertebra.simulate.libero.moment import Moment
from vertebra.simulate.libero.options import LiberoOptions
from vertebra.simulate.libero.turns import axis_angle
from vertebra.simulate.simulation import Outcome

SETTLING = 10
"""Steps of an open hand that does not move, before an episode begins."""
REST = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0)
_TRIES = 20
_PASSES = 2
"""Forward passes that a model made anew has behind it (its loading, its renderer): the solver starts from the last one."""


class Libero:
    """One task. A seed below 50 is the official initial state of that number; any other draws a placement of its own."""

    state_names: tuple[str, ...] = ("x", "y", "z", "axis_x", "axis_y", "axis_z", "finger_left", "finger_right")
    action_names: tuple[str, ...] = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
    fps = 20
    robot = "panda"

    def __init__(self, files: Files, options: LiberoOptions | None = None) -> None:
        self.name, self.options = files.name, options or LiberoOptions()
        self.instruction, self.cameras = files.instruction, self.options.cameras
        self.limit = self.options.limit or files.limit
        self._states = files.states()
        self._steps = -1  # not reset yet
        make = environment()
        with _drawing_from(0):
            self._wrapper: Any = make(str(files.problem), use_camera_obs=False, has_offscreen_renderer=False)
        self._env: Any = self._wrapper.env
        self._env.hard_reset = False
        self._moment: Any = Moment(self._env)
        self._thing = self._basket = None
        if files.has_expert:
            self._thing, self._basket = self._env.obj_of_interest

    def reset(self, seed: int) -> None:
        if self._env is None:
            raise SimulationError(f"`{self.name}` is closed; open it anew")
        official = seed < len(self._states)
        with _drawing_from(0 if official else seed % 2**32):
            self._restart()
        state = self._states[seed] if official else self._wrapper.get_sim_state()
        self._seen = self._wrapper.set_init_state(state)
        for _ in range(SETTLING):
            self._seen, *_ = self._env.step(np.array(REST))
        self._expert = None if self._thing is None else PickAndPlace(GRASPS[self._thing.rpartition("_")[0]])
        self._steps = 0

    def _restart(self) -> None:
        env = self._env
        for robot in env.robots:
            robot.gripper.current_action = np.zeros_like(robot.gripper.current_action)
        whole = env.sim.reset

        def passes() -> None:
            whole()
            for _ in range(_PASSES):
                env.sim.forward()

        env.sim.reset = passes
        try:
            self._place()
        finally:
            del env.sim.reset

    def _place(self) -> None:
        from robosuite.utils.errors import RandomizationError

        for _ in range(_TRIES):
            try:
                self._env.reset()
                return
            except RandomizationError:  # no room was found for an object; the generator has moved on
                continue
        raise SimulationError(f"`{self.name}`: no room was found for its objects in {_TRIES} tries; take another seed")

    def look(self) -> dict[str, np.ndarray]:
        self._require_begun()
        return {camera: self._moment.image(camera, self.options.size) for camera in self.cameras}

    def picture(self, camera: str, size: int) -> np.ndarray:
        """An image of any camera in any size, for people; the simulation goes on as if nobody had looked."""
        self._require_begun()
        return self._moment.image(camera, size)

    def state(self) -> np.ndarray:
        self._require_begun()
        turn = axis_angle(self._seen["robot0_eef_quat"])
        parts = (self._seen["robot0_eef_pos"], turn, self._seen["robot0_gripper_qpos"])
        return np.concatenate(parts).astype(np.float32)

    def step(self, action: np.ndarray) -> Outcome:
        self._require_begun()
        given = np.asarray(action, np.float64)
        if given.shape != (7,) or not np.isfinite(given).all():
            raise DataError(
                f"`{self.name}`: the action is {given.tolist()!s:.80}; expected {len(self.action_names)} finite numbers "
                f"({', '.join(self.action_names)})"
            )
        if self._steps >= self.limit:
            raise SimulationError(f"`{self.name}`: the episode ended after {self.limit} steps; reset it")
        self._seen, _, success, _ = self._env.step(given)
        self._steps += 1
        if not np.isfinite(self._env.sim.data.qpos).all():
            raise SimulationError(f"`{self.name}`: the simulation became unstable at step {self._steps}")
        return Outcome(success=bool(success), ended=self._steps >= self.limit)

    def expert(self) -> np.ndarray:
        self._require_begun()
        if self._expert is None:
            raise ConfigError(f"`{self.name}` has no scripted expert; the tasks of `libero_object` have one")
        return self._expert.act(self._scene()).astype(np.float32)

    def _scene(self) -> LiberoScene:
        data, env = self._env.sim.data, self._env
        site = env.robots[0].eef_site_id
        thing, basket = (data.body_xpos[env.obj_body_id[name]] for name in (self._thing, self._basket))
        return LiberoScene(data.site_xpos[site], data.site_xmat[site].reshape(3, 3), thing, basket)

    def close(self) -> None:
        if self._env is not None:
            self._moment.close()
            self._wrapper.close()
            self._env = self._wrapper = self._moment = None  # megabytes of meshes
        self._steps = -1

    def _require_begun(self) -> None:
        if self._steps < 0:
            raise SimulationError(f"`{self.name}` was not reset, or is closed; reset(seed) begins an episode")


@contextmanager
def _drawing_from(seed: int) -> Iterator[None]:
    """LIBERO draws from numpy's one generator: it is seeded for a while, and then as it was."""
    before = np.random.get_state()
    try:
        np.random.seed(seed)
        yield
    finally:
        np.random.set_state(before)
