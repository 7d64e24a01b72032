"""Films of episodes, drawn again from what was carried out: one success and one failure of each task, as GIF and MP4."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vertebra.episodes.needed import video
from vertebra.errors import SimulationError
from vertebra.evaluate.arms import POLICY
from vertebra.evaluate.records import EpisodeRecord
from vertebra.evaluate.results import Results
from vertebra.evaluate.settings import EvaluationSettings
from vertebra.folders import write_file
from vertebra.simulate.kept import opened
from vertebra.simulate.simulation import Simulation
from vertebra.simulate.workers import Workers

SIDE = 192
"""Pixels of a side."""
FRAMES = 60
"""The most frames of a film."""
RATE = 15
"""Frames a second."""


@dataclass(frozen=True)
class EpisodeFilm:
    """A film of an episode."""

    record: EpisodeRecord
    mp4: bytes
    gif: bytes


def films_of(folder: Path, results: Results, settings: EvaluationSettings, team: Workers) -> dict[str, EpisodeFilm]:
    """The films of the policy itself, by the names of their files in `films/`; those that are there are not drawn again."""
    made = {}
    for task in settings.tasks:
        mine = [one for one in results.records if (one.arm, one.task, one.broken) == (POLICY, task, None) and one.steps]
        for what, success in (("success", True), ("failure", False)):
            record = next((one for one in mine if one.success == success), None)
            if record is not None:
                made[f"{task}-{record.number}-{what}"] = record
    works = [(_paths(folder, name), record, settings) for name, record in made.items()]
    lacking = [work for work in works if not all(path.is_file() for path in work[0])]
    for _ in team.in_order(_draw, lacking):
        pass
    return {
        name: EpisodeFilm(record, *(path.read_bytes() for path in _paths(folder, name)))
        for name, record in made.items()
    }


def _paths(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / "films" / f"{name}.mp4", folder / "films" / f"{name}.gif"


def _draw(work: tuple[tuple[Path, Path], EpisodeRecord, EvaluationSettings]) -> None:
    """What a worker does."""
    paths, record, settings = work
    paths[0].parent.mkdir(parents=True, exist_ok=True)  # LIBERO's names have a suite's before them: `suite/task`
    options = {key: value for key, value in settings.options.items() if key != "cameras"}
    frames = replayed(opened(record.task, options), record)
    for path, content in zip(paths, (as_mp4(frames), as_gif(frames)), strict=True):
        write_file(path, content)


def replayed(simulation: Simulation, record: EpisodeRecord) -> np.ndarray:
    """[frames, H, W, 3]: an episode once more, its cameras side by side."""
    every = max(1, -(-record.steps // FRAMES))
    simulation.reset(record.seed)
    frames = [_shown(simulation)]
    for step, action in enumerate(record.carried_out(), 1):
        outcome = simulation.step(action)
        if step % every == 0 or step == record.steps:
            frames.append(_shown(simulation))
    if outcome.success != record.success:
        raise SimulationError(
            f"`{record.task}`, episode {record.number}: played again it ends otherwise; the simulator is another version than "
            "that of the evaluation"
        )
    return np.stack(frames)


def _shown(simulation: Simulation) -> np.ndarray:
    picture: Any = getattr(simulation, "picture", None)  # simulators that draw in any size
    if picture is not None:
        return np.concatenate([picture(camera, SIDE) for camera in simulation.cameras[:2]], axis=1)
    images = [Image.fromarray(image).resize((SIDE, SIDE)) for image in simulation.look().values()]
    return np.concatenate([np.asarray(image) for image in images[:2]], axis=1)


def as_gif(frames: Sequence[np.ndarray] | np.ndarray) -> bytes:
    """A film that goes round, with the colors of its middle frame."""
    images = [Image.fromarray(frame) for frame in frames]
    colors = images[len(images) // 2].quantize(128)
    reduced = [image.quantize(palette=colors, dither=Image.Dither.NONE) for image in images]
    file = io.BytesIO()
    times = [1000 // RATE] * (len(reduced) - 1) + [1000]  # the end is looked at for a second
    reduced[0].save(file, "GIF", save_all=True, append_images=reduced[1:], duration=times, loop=0, optimize=False)
    return file.getvalue()


def as_mp4(frames: Sequence[np.ndarray] | np.ndarray) -> bytes:
    """H.264, as browsers play it; the last frame stays for a second."""
    av = video("a film as MP4")
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=RATE, options={"crf": "23", "threads": "1"})
        stream.height, stream.width, stream.pix_fmt = frames[0].shape[0], frames[0].shape[1], "yuv420p"
        for frame in (*frames, *[frames[-1]] * RATE):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        out.mux(stream.encode())
    return file.getvalue()
