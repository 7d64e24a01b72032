"""Demonstrations: what is recorded, the same set for any number of workers, nothing half after a kill."""

from __future__ import annotations

import hashlib
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from vertebra.episodes import open_episodes
from vertebra.errors import CheckpointError, ConfigError, SimulationError, UnknownNameError
from vertebra.simulate import (
    Bursts,
    Demonstration,
    TaskFacts,
    collect,
    collecting,
    demonstrate,
    episode_seed,
    kept,
    open_task,
)
from vertebra.simulate.collecting import ACTION, IMAGES, STATE
from vertebra.simulate.simulation import Outcome
from vertebra.simulate.workers import Workers


class Toy:
    """A simulation of three numbers: the expert counts, and the task is done at the tenth step. Nothing is drawn."""

    name, instruction, robot = "toy", "count to ten", "none"
    cameras, state_names, action_names = ("top",), ("steps",), ("a", "b")
    limit, fps = 40, 10
    options = SimpleNamespace(size=16, bare_wrist=False)

    def __init__(self, *, fails_at: int | None = None, never: bool = False) -> None:
        self.fails_at, self.never, self.executed, self.closed = fails_at, never, [], False

    def reset(self, seed: int) -> None:
        if self.closed:
            raise SimulationError("it is closed")
        self.steps, self.executed = 0, []

    def look(self) -> dict[str, np.ndarray]:
        return {"top": np.full((16, 16, 3), self.steps, np.uint8)}

    def state(self) -> np.ndarray:
        return np.array([self.steps], np.float32)

    def expert(self) -> np.ndarray:
        return np.array([self.steps / 100, 0.5], np.float32)

    def step(self, action: np.ndarray) -> Outcome:
        if self.steps == self.fails_at:
            raise SimulationError("it fell over")
        self.executed.append(action)
        self.steps += 1
        return Outcome(success=self.steps == 10 and not self.never, ended=self.steps == self.limit)

    def close(self) -> None:
        self.closed = True


def test_the_experts_action_is_recorded_and_the_noisy_one_carried_out():
    toy = Toy()
    made = demonstrate(toy, 8, noise=0.5)
    bursts = Bursts(8, 2, 0.5)
    noise = np.stack([bursts.next() for _ in made.action])
    assert noise.any()
    assert np.allclose(made.action, [[step / 100, 0.5] for step in range(len(made.action))])
    assert np.allclose(toy.executed, np.clip(made.action + noise, -1, 1))


@pytest.mark.parametrize("every", [1, 2, 3, 7, 18, 50])
def test_between_two_looks_the_image_is_the_one_before(every: int):
    made = demonstrate(Toy(), 0, every=every)
    assert len(made.state) == len(made.action) == 18  # ten steps, and a chunk's worth behind
    assert made.state[:, 0].tolist() == list(range(18))
    assert len(made.images["top"]) == -(-18 // every)
    assert made.frames("top")[:, 0, 0, 0].tolist() == [step // every * every for step in range(18)]


def test_a_failure_of_the_expert_is_not_one_of_the_simulator():
    lost = demonstrate(Toy(never=True), 0)
    assert (lost.success, lost.failure, lost.images) == (False, None, {})
    assert len(lost.state) == Toy.limit
    fell = demonstrate(Toy(fails_at=4), 0)
    assert (fell.success, fell.failure) == (False, "it fell over")
    # one that is done, and then falls over, is none either
    assert not demonstrate(Toy(fails_at=12), 0).success


def test_noise_is_its_seed_and_comes_in_bursts():
    def drawn(seed: int, steps: int = 4000) -> np.ndarray:
        bursts = Bursts(seed, 4, 0.5)
        return np.stack([bursts.next() for _ in range(steps)])

    noise = drawn(1)
    assert (noise == drawn(1)).all()
    assert (noise != drawn(2)).any()
    pushed = noise.any(1)
    assert 0.2 < pushed.mean() < 0.5
    runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[0], pushed, [0]]))))[::2]
    assert runs[:-1].min() >= 4  # the last one is cut off
    inside = pushed[1:] & pushed[:-1]
    assert np.corrcoef(noise[1:, 0][inside], noise[:-1, 0][inside])[0, 1] > 0.7


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.usefixtures("draws")
def test_the_set_is_the_same_for_any_number_of_workers(tmp_path):
    seen = []
    options = {"episodes": 1, "seed": 5, "every": 20, "codec": "image", "size": 32}
    made = collect(["faucet-open", "drawer-open"], tmp_path / "one", **options, progress=lambda p: seen.append(p.kept))
    collect(["faucet-open", "drawer-open"], tmp_path / "two", workers=2, **options)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert made.episodes == {"faucet-open": 1, "drawer-open": 1}
    assert seen[-1] == 2
    opened = open_episodes(tmp_path / "one")
    assert [opened.sentence(n) for n in range(2)] == ["open the faucet", "open the drawer"]
    # an episode of the set is the one that its seed gives
    again = demonstrate(open_task("drawer-open", size=32), made.seeds["drawer-open"][0], noise=0.5, every=20)
    columns = opened.columns(1, [STATE, ACTION])
    assert (columns[STATE] == again.state).all()
    assert (columns[ACTION] == again.action).all()
    frames = opened.frames(1, IMAGES + "side", range(len(again.state)))
    assert (frames == again.frames("side")).all()
    assert made.steps == sum(episode.length for episode in opened.episodes)


def test_seeds_are_those_of_attempts_and_failures_are_left_out(tmp_path, monkeypatch):
    """Every third attempt fails, one of them by the simulator; the next ones take their places."""
    tried = []

    def attempt(work):
        tried.append(work.seed)
        made = demonstrate(Toy(never=len(tried) == 3, fails_at=2 if len(tried) == 6 else None), work.seed)
        return Demonstration(**{**vars(made), "task": work.task})

    monkeypatch.setattr("vertebra.simulate.collecting._attempt", attempt)
    monkeypatch.setattr("vertebra.simulate.collecting.opened", lambda task, options: Toy())
    made = collect("reach", tmp_path / "set", episodes=5, codec="image", seed=9)
    assert tried == [episode_seed("collect", "reach", 9, n) for n in range(7)]
    assert made.attempts == {"reach": 7}
    assert made.broken == {"reach": 1}
    assert made.seeds["reach"] == [seed for n, seed in enumerate(tried) if n not in (2, 5)]
    assert made.rate("reach") == 5 / 7
    assert len(open_episodes(tmp_path / "set").episodes) == 5


def test_more_tasks_than_a_process_keeps_open(tmp_path, monkeypatch):
    """The first task was closed by the opening of the others, and a closed one cannot begin."""

    def open_toy(task: str) -> Toy:
        toy = Toy()
        toy.name = task
        return toy

    monkeypatch.setattr(kept, "open_task", open_toy)
    names = ["reach", "push", "door-open", "drawer-open", "drawer-close", "faucet-open"]
    assert len(names) > kept.KEPT
    try:
        made = collect(names, tmp_path / "set", episodes=2, codec="image")
    finally:
        kept.close_all()
    assert made.attempts == dict.fromkeys(names, 2)
    assert len(open_episodes(tmp_path / "set").episodes) == 2 * len(names)


def test_an_expert_that_mostly_fails_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    toy = Toy(never=True)
    toy.name = "reach"
    monkeypatch.setattr("vertebra.simulate.collecting.opened", lambda task, options: toy)
    with pytest.raises(SimulationError, match="the expert did 0 of 10 episodes"):
        collect("reach", tmp_path / "set", episodes=10)
    assert list(tmp_path.iterdir()) == []


def test_tasks_without_an_expert_are_refused_before_a_simulator_is_opened(tmp_path, monkeypatch):
    """LIBERO takes minutes to open."""

    def facts(name: str) -> TaskFacts:
        return TaskFacts(name=name, suite="toy", instruction="count", limit=10, expert=1.0 if name == "able" else None)

    monkeypatch.setattr(collecting, "task_facts", facts)
    monkeypatch.setattr(collecting, "opened", lambda *_: pytest.fail("a simulator was opened"))
    with pytest.raises(ConfigError, match=r"^`b`: no scripted expert; `vertebra sim tasks --suite SUITE` lists"):
        collect(["able", "b"], tmp_path / "set", episodes=1)
    with pytest.raises(ConfigError, match=r"^`b`, `c`, `d` and 2 more: no scripted expert"):
        collect(list("bcdef"), tmp_path / "set", episodes=1)
    assert not (tmp_path / "set").exists()


def test_wrong_orders(tmp_path):
    with pytest.raises(UnknownNameError, match="Did you mean `drawer-open`"):
        collect(["reach", "drawer-openn"], tmp_path / "set", episodes=1)
    with pytest.raises(ConfigError, match=r"episodes=0.*; every=0.*; noise=3"):
        collect("reach", tmp_path / "set", episodes=0, every=0, noise=3)
    with pytest.raises(ConfigError, match="no task is named"):
        collect([], tmp_path / "set", episodes=1)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(CheckpointError, match="exists and is not empty"):
        collect("reach", tmp_path / "full", episodes=1)
    with pytest.raises(ConfigError, match="shares its scene with no task"):
        collect(["drawer-open", "reach"], tmp_path / "set", episodes=1, shared=True)
    assert not (tmp_path / "set").exists()


def _die(number: int) -> int:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def _square(number: int) -> int:
    time.sleep(0.02 * (number % 3))
    return number * number


def test_results_come_in_order():
    numbers = range(11)
    for count in (1, 2):
        with Workers(count) as team:
            assert list(team.in_order(_square, numbers)) == [(n, n * n) for n in numbers]


def test_a_killed_worker_is_one_message():
    with Workers(2) as team, pytest.raises(SimulationError, match="a worker process ended in the middle"):
        list(team.in_order(_die, range(6)))


@pytest.mark.usefixtures("draws")
def test_a_worker_killed_in_the_middle_leaves_nothing(tmp_path):
    command = [
        sys.executable,
        "-c",
        "from vertebra.cli.main import run; run()",
        "sim",
        "collect",
        "--tasks",
        "drawer-open",
    ]
    command += ["--episodes", "500", "--size", "32", "--every", "20", "--workers", "2", "--out", str(tmp_path / "set")]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    os.kill(workers_of(running)[-1], signal.SIGKILL)
    _, reply = running.communicate(timeout=300)
    assert running.returncode == 1
    assert "a worker process ended in the middle" in reply
    assert "Traceback" not in reply
    assert list(tmp_path.iterdir()) == []


def test_workers_end_with_whoever_started_them():
    code = "from tests.simulate.test_collecting import forever\nif __name__ == '__main__': forever()"
    running = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    workers = workers_of(running)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    for worker in workers:
        ended(worker)


def forever() -> None:
    with Workers(2) as team:
        for _ in team.in_order(_square, itertools.count()):
            pass


def workers_of(running: subprocess.Popen) -> list[int]:
    """The two workers of a process, as soon as they are there."""
    found: list[int] = []
    while len(found) < 2 and running.poll() is None:
        found = children(running.pid)
        time.sleep(0.05)
    assert len(found) == 2
    return found


def children(parent: int) -> list[int]:
    """The worker processes of a command."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            number, rest = (
                status.read_text().rpartition(")")[0].partition(" ")[0],
                status.read_text().rpartition(")")[2],
            )
            line = (status.parent / "cmdline").read_text()
        except OSError:
            continue
        if int(rest.split()[1]) == parent and "spawn_main" in line:
            found.append(int(number))
    return found


def ended(process: int) -> None:
    """Waits until a process is gone; a test that hangs here is stopped by its time limit."""
    while True:
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state == "Z":
            return
        time.sleep(0.05)
