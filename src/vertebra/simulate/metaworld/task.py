"""`MetaWorld`: one task of Meta-World behind our seam. What happens in an episode is decided by its seed.

Meta-World resets by a random generator of its own, and reads positions before they are computed anew; so the scene is put
back to its file, and the reset is run twice from one seed: the second time, what it reads is where things stand.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from vertebra.errors import ConfigError, DataError, SimulationError
from vertebra.simulate.gl import require_simulator
from vertebra.simulate.metaworld.instructions import TASKS, InstructedTask, limit_of
from vertebra.simulate.metaworld.measured import MEASURED
from vertebra.simulate.metaworld.options import MetaworldOptions
from vertebra.simulate.metaworld.scene import MetaworldScene
from vertebra.simulate.simulation import Outcome


class MetaWorld:
    """One task. `data` and `model` are MuJoCo's."""

    state_names: tuple[str, ...] = ("x", "y", "z", "gripper")
    action_names: tuple[str, ...] = ("x", "y", "z", "gripper")
    fps = 80
    robot = "sawyer"

    def __init__(self, name: str, options: MetaworldOptions | None = None) -> None:
        self.name, self.options, self._row = name, options or MetaworldOptions(), TASKS[name]
        _require_held(name, self._row, self.options)
        require_simulator()
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS
        from metaworld.policies import ENV_POLICY_MAP

        self._env: Any = ALL_V3_ENVIRONMENTS[f"{name}-v3"]()
        self._expert = ENV_POLICY_MAP[f"{name}-v3"]()
        self.instruction, self.cameras = self._row.instruction, self.options.cameras
        self.limit = self.options.limit or limit_of(name)
        self._steps = -1  # not reset yet
        self._open()
        self._scene = MetaworldScene(self._env, self.options, marked=self._row.marked)

    def _open(self) -> None:
        from gymnasium.spaces import Box

        env = self._env
        env._set_task_called, env._freeze_rand_vec, env.seeded_rand_vec = True, False, True
        env._partially_observable = False  # the expert sees the goal
        env.__dict__.pop("sawyer_observation_space", None)
        env.goal_space = Box(-10.0, 10.0, (3,), np.float64)  # what it sees is cut to this; a wider spread must not be
        low, high = placement(env._random_reset_space, self._row, self.options)
        env._random_reset_space = Box(low, high, dtype=np.float64)

    def reset(self, seed: int) -> None:
        import mujoco

        env = self._env
        self._scene.restore()
        for _ in range(2):
            env.seed(seed)
            env.curr_path_length, env._did_see_sim_exception = 0, False
            mujoco.mj_resetData(env.model, env.data)
            env.reset_model()
        if self.options.shared and self._row.shared:
            env.data.joint(self._row.shared.joint).qpos = self._row.shared.at
        mujoco.mj_forward(env.model, env.data)
        self._scene.begin(seed)
        now = env._get_curr_obs_combined_no_goal()
        env._prev_obs = now.copy()
        self._seen = np.hstack((now, now, env._get_pos_goal()))
        self._steps = 0

    def look(self) -> dict[str, np.ndarray]:
        self._require_begun()
        return {camera: self._scene.image(camera, self.options.size) for camera in self.cameras}

    def picture(self, camera: str, size: int) -> np.ndarray:
        """An image of any camera in any size, for people; the simulation goes on as if nobody had looked."""
        self._require_begun()
        return self._scene.image(camera, size)

    def state(self) -> np.ndarray:
        self._require_begun()
        return self._seen[:4].astype(np.float32)

    def step(self, action: np.ndarray) -> Outcome:
        self._require_begun()
        given = np.asarray(action, np.float64)
        if given.shape != (4,) or not np.isfinite(given).all():
            raise DataError(
                f"`{self.name}`: the action is {given.tolist()!s:.80}; expected {len(self.action_names)} finite numbers "
                f"({', '.join(self.action_names)})"
            )
        if self._steps >= self.limit:
            raise SimulationError(f"`{self.name}`: the episode ended after {self.limit} steps; reset it")
        self._seen, _, _, _, info = self._env.step(np.clip(given, -1, 1).astype(np.float32))
        self._steps += 1
        self._require_stable()
        return Outcome(success=bool(info["success"]), ended=self._steps >= self.limit)

    def expert(self) -> np.ndarray:
        self._require_begun()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "Constant(s) may be too high": it is cut below
            action = self._expert.get_action(self._seen)
        return np.clip(np.asarray(action, np.float32), -1, 1)

    def close(self) -> None:
        self._steps = -1

    def _require_begun(self) -> None:
        if self._steps < 0:
            raise SimulationError(f"`{self.name}` was not reset, or is closed; reset(seed) begins an episode")

    def _require_stable(self) -> None:
        """MuJoCo warns of numbers that left all bounds, and then quietly begins anew."""
        from mujoco import mjtWarning

        bad = (mjtWarning.mjWARN_BADQPOS, mjtWarning.mjWARN_BADQVEL, mjtWarning.mjWARN_BADQACC)
        warned = any(self._env.data.warning[int(kind)].number for kind in bad)
        if warned or not np.isfinite(self._seen).all():
            raise SimulationError(f"`{self.name}`: the simulation became unstable at step {self._steps}")


def placement(stock: Any, row: InstructedTask, options: MetaworldOptions) -> tuple[np.ndarray, np.ndarray]:
    """Between what objects are placed: stock, or that of the shared scene, made wider about its middle."""
    low, high = stock.low, stock.high
    if options.shared and row.shared:
        low, high = np.array(row.shared.low), np.array(row.shared.high)
    middle, half = (low + high) / 2, (high - low) / 2
    wider = np.where(np.arange(len(half)) % 3 < 2, options.spread, 1.0)  # heights stay: nothing hangs in the air
    return middle - wider * half, middle + wider * half


def _require_held(name: str, row: InstructedTask, options: MetaworldOptions) -> None:
    if options.shared and row.shared is None:
        pairs = ", ".join(
            f"{one} / {TASKS[one].partner}" for one in TASKS if TASKS[one].partner and one.endswith("open")
        )
        raise ConfigError(f"`{name}` shares its scene with no task; shared=True is for {pairs}")
    widest = MEASURED[name].spread if name in MEASURED else 1.0
    if options.spread > widest and not options.beyond:
        most = f"up to {widest:g}" if widest > 1 else "in the stock range alone"
        raise ConfigError(
            f"`{name}`: spread={options.spread:g}, and its expert holds {most}; demonstrations beyond would be those that "
            "happened to succeed. Lower the spread, or leave the task out"
        )
