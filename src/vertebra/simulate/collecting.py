"""Collecting: the experts' demonstrations of several tasks as a data set of LeRobot's v3.0, the same for any number of workers.

Attempts of a task are numbered, each with its own seed; the first that succeed are kept, in that order. Failures are counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vertebra.errors import ConfigError, SimulationError
from vertebra.folders import require_free
from vertebra.simulate.demonstration import Demonstration, demonstrate
from vertebra.simulate.kept import opened
from vertebra.simulate.seeds import episode_seed
from vertebra.simulate.suites import task_facts, view_options
from vertebra.simulate.workers import Workers, working

LEAST_RATE = 0.5
"""An expert that does less than this share of its attempts is no teacher."""
_TRIED = 10
"""Attempts before a rate is believed."""
STATE, ACTION, IMAGES = "observation.state", "action", "observation.images."


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What a collection came to."""

    folder: Path
    episodes: dict[str, int]
    """By task."""
    attempts: dict[str, int]
    """By task, failures among them."""
    broken: dict[str, int]
    """Attempts by task that the simulator failed in."""
    steps: int
    """Rows that were written."""
    images: int
    """Images that were drawn for them, of all cameras."""
    seconds: float
    seeds: dict[str, list[int]] = field(default_factory=dict)
    """Of the episodes, by task."""

    def rate(self, task: str) -> float:
        """The share of a task's attempts that the expert did."""
        return self.episodes[task] / self.attempts[task]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        rates = {task: round(self.rate(task), 4) for task in self.episodes}
        numbers = {"episodes": self.episodes, "attempts": self.attempts, "expert": rates, "broken": self.broken}
        return {
            "folder": str(self.folder),
            **numbers,
            "steps": self.steps,
            "images": self.images,
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class _Attempt:
    task: str
    seed: int
    noise: float
    every: int
    options: tuple[tuple[str, Any], ...]


def collect(
    tasks: str | Sequence[str],
    out: str | Path,
    *,
    episodes: int,
    seed: int = 0,
    noise: float = 0.5,
    every: int = 1,
    workers: int | Workers = 1,
    codec: Literal["h264", "av1", "image"] = "h264",
    progress: Callable[[Progress], None] | None = None,
    **options: Any,
) -> Collected:
    """Write `episodes` demonstrations of each task to the folder `out`, which appears whole.

    `noise`: bursts on the expert's actions; what is recorded is what the expert meant. `every`: draw every n-th step alone;
    each row holds its own state and action, and the image drawn last. `workers`: how many, or those that are there.
    `options` are those of `open_task`.
    """
    from vertebra.episodes.writer import EpisodeWriter

    names = [tasks] if isinstance(tasks, str) else list(dict.fromkeys(tasks))
    count = workers if isinstance(workers, int) else workers.count
    _require(names, episodes=episodes, noise=noise, every=every, workers=count, seed=seed)
    folder, settings = Path(out), tuple(sorted(options.items()))
    require_free(folder, overwrite=None)
    for task in reversed(names):  # what is wrong with a task or an option is known before hours of work
        first = opened(task, options)  # in the end the first; those opened before it may be closed by now
    first.reset(0)
    sides = {IMAGES + camera: image.shape[:2] for camera, image in first.look().items()}
    view = {name: getattr(first.options, name) for name in view_options(names[0])}
    so_far = Progress(planned=episodes, tasks=names)
    with (
        working(workers) as team,
        EpisodeWriter(
            folder, fps=first.fps, cameras=sides, numbers={STATE: first.state_names, ACTION: first.action_names},
            robot=first.robot, view=view, codec=codec,
        ) as writer,
    ):  # fmt: skip
        while missing := so_far.missing():
            wave = [
                _Attempt(
                    task, episode_seed("collect", task, seed, so_far.attempts[task] + more), noise, every, settings
                )
                for task in missing
                for more in range(missing[task])
            ]
            for _, made in team.in_order(_attempt, wave):
                so_far.add(made)
                if made.success:
                    images = {IMAGES + camera: made.frames(camera) for camera in made.images}
                    writer.add(made.instruction, {STATE: made.state, ACTION: made.action}, images)
                if progress is not None:
                    progress(so_far)
            so_far.require_teachers()
    return so_far.collected(folder)


class Progress:
    """How far a collection is."""

    def __init__(self, *, planned: int, tasks: Sequence[str]) -> None:
        self.planned, self.began = planned, time.monotonic()
        self.seeds: dict[str, list[int]] = {task: [] for task in tasks}
        self.attempts, self.broken = dict.fromkeys(tasks, 0), dict.fromkeys(tasks, 0)
        self.steps = self.images = 0
        self.failures: dict[str, str] = {}

    @property
    def kept(self) -> int:
        """Episodes that are written."""
        return sum(map(len, self.seeds.values()))

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self.began

    def add(self, made: Demonstration) -> None:
        self.attempts[made.task] += 1
        if made.failure is not None:
            self.broken[made.task] += 1
            self.failures[made.task] = made.failure
        if made.success:
            self.seeds[made.task].append(made.seed)
            self.steps += len(made.state)
            self.images += sum(map(len, made.images.values()))

    def missing(self) -> dict[str, int]:
        """Episodes that a task still lacks."""
        return {task: self.planned - len(kept) for task, kept in self.seeds.items() if len(kept) < self.planned}

    def require_teachers(self) -> None:
        """Refuse to go on with an expert that fails more often than not."""
        for task, tried in self.attempts.items():
            if tried >= _TRIED and len(self.seeds[task]) < LEAST_RATE * tried:
                why = f" The simulator's last failure: {self.failures[task]}." if task in self.failures else ""
                raise SimulationError(
                    f"`{task}`: the expert did {len(self.seeds[task])} of {tried} episodes, too few to learn from.{why} Lower "
                    "the noise or the spread, or leave the task out"
                )

    def collected(self, folder: Path) -> Collected:
        return Collected(
            folder=folder, episodes={task: len(kept) for task, kept in self.seeds.items()}, attempts=self.attempts,
            broken=self.broken, steps=self.steps, images=self.images, seconds=self.seconds, seeds=self.seeds,
        )  # fmt: skip


def _require(names: Sequence[str], *, episodes: int, noise: float, every: int, workers: int, seed: int) -> None:
    if not names:
        raise ConfigError("no task is named; `vertebra sim tasks` lists them")
    without = [name for name in names if task_facts(name).expert is None]
    if without:
        more = f" and {len(without) - 3} more" if len(without) > 3 else ""
        raise ConfigError(
            f"{', '.join(f'`{name}`' for name in without[:3])}{more}: no scripted expert; `vertebra sim tasks --suite SUITE` "
            "lists the success of those that there are"
        )
    counts = {"episodes": episodes, "every": every, "workers": workers}
    faults = [f"{name}={value}; expected at least 1" for name, value in counts.items() if value < 1]
    faults += [f"noise={noise}; expected 0 to 2"] if not 0 <= noise <= 2 else []
    faults += [f"seed={seed}; expected 0 or more"] if seed < 0 else []
    if faults:
        raise ConfigError("; ".join(faults))


def _attempt(work: _Attempt) -> Demonstration:
    """What a worker does."""
    return demonstrate(opened(work.task, dict(work.options)), work.seed, noise=work.noise, every=work.every)
