"""A simulator's rates: steps, images ours beside Meta-World's own (gymnasium, `render_mode="rgb_array"`), a whole evaluation.

    python benchmarks/bench_simulate.py [--quick]

One thread, process time; the two ways to draw take turns. Meta-World draws with shadows, reflections and multisampling.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from timing import in_turn, seconds
from vertebra.evaluate import EvaluationSettings, evaluate_policy
from vertebra.simulate import open_task

TASK = "drawer-open"
QUICK = "--quick" in sys.argv


def stock(camera: str, size: int) -> Any:
    """Meta-World as it comes, reset to some placement."""
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    env = ALL_V3_ENVIRONMENTS[f"{TASK}-v3"](render_mode="rgb_array", camera_name=camera, width=size, height=size)
    env._set_task_called, env._freeze_rand_vec = True, False
    env.reset()
    env.render()
    return env


def beside(name: str, ours: Callable[[], Any], theirs: Callable[[], Any], repeats: int) -> None:
    """Medians of several turns, and their ratio."""
    rounds = 2 if QUICK else 7
    taken = in_turn({"ours": ours, "theirs": theirs}, rounds=rounds, repeats=repeats, clock=time.process_time)
    mine, other = 1 / taken["ours"], 1 / taken["theirs"]
    print(f"{name:<44} {mine:9.1f} {other:9.1f} /s   {mine / other:6.2f} ×")


class Still:
    """A policy that costs nothing, so that an episode is its simulation: the longest there is."""

    def reset(self) -> None:
        """Nothing is remembered."""

    def act(self, observation: Any, instruction: str) -> np.ndarray:
        return np.zeros((8, 4))


def main() -> None:
    print(f"{'':44} {'ours':>9} {'stock':>9}")
    still = np.zeros(4, np.float32)
    for camera in ("corner2", "gripperPOV"):
        for size in (64, 128, 224):
            task = open_task(TASK, cameras=(camera,), size=size, seed=0)
            task.look()
            env = stock(camera, size)
            beside(f"images of {camera} at {size}", task.look, env.render, 8)
            env.close()
    task, env = open_task(TASK, limit=500), stock("corner2", 64)

    def step(one: Any) -> None:
        if one is task:
            if task._steps in (-1, task.limit):
                task.reset(0)
            task.step(still)
            return
        if env.curr_path_length == env.max_path_length:
            env.reset()
        env.step(still)

    beside("steps", lambda: step(task), lambda: step(env), 300)
    bare = open_task(TASK, cameras=("gripperPOV",), bare_wrist=True, seed=0)
    whole = open_task(TASK, cameras=("gripperPOV",), seed=0)
    beside("images of the wrist, bare and whole", bare.look, whole.look, 8)
    taken = seconds(lambda: task.reset(1), repeats=5, clock=time.process_time)
    print(f"{'a reset, from a seed to the bit':<44} {1000 * taken:9.1f} ms")
    with tempfile.TemporaryDirectory() as folder:
        count = 2 if QUICK else 5
        began = time.process_time()
        settings = EvaluationSettings(tasks=(TASK,), episodes=count)
        evaluate_policy(Still(), settings, f"{folder}/out", films=False)
        spent = (time.process_time() - began) / count
    print(f"{'an episode of 200 steps and 25 looks, chunk 8':<44} {1000 * spent:9.0f} ms, the policy's time apart")


if __name__ == "__main__":
    main()
