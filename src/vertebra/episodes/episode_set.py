"""A set of episodes on the disk: what is in it, the numbers of an episode, frames by their number, the sentence.

    episodes = open_episodes("put-the-cup")
    episodes.columns(0)["action"]                     (length, dims)
    episodes.frames(0, "observation.images.top", [0, 8])      (2, height, width, 3)

Opening reads `meta/` alone. Files are opened when they are needed, the last ones stay open, and a worker that was forked
or spawned opens its own. What a training makes of it is not known here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vertebra.episodes.facts import BOOKKEEPING, COUNTED, Camera, Episode, Info, Numbers, read_info
from vertebra.episodes.modality import Modality, read_modality
from vertebra.episodes.pictures import picture_of
from vertebra.episodes.places import EpisodePlaces, find_places
from vertebra.episodes.tables import Tables, whole_numbers
from vertebra.episodes.tasks import read_tasks
from vertebra.episodes.videos import Videos
from vertebra.episodes.view import read_view
from vertebra.errors import DataError, UnknownNameError


def open_episodes(folder: str | os.PathLike[str]) -> EpisodeSet:
    """A set in LeRobot's format (v2.0, v2.1 or v3.0), with GR00T's `modality.json` where it has one."""
    path = Path(folder)
    if not is_episodes(path):
        raise DataError(f"`{path}` is no set of episodes: it has no `meta/info.json`.{_below(path)}")
    info = read_info(path)
    return EpisodeSet(path, info, read_tasks(path), find_places(path, info), read_modality(path, info))


def is_episodes(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is a set of episodes."""
    return (Path(folder) / "meta" / "info.json").is_file()


class EpisodeSet:
    """What `open_episodes` gives."""

    folder: Path
    version: str
    fps: int | float
    robot: str | None
    cameras: tuple[str, ...]
    """Keys as in info.json."""
    sizes: Mapping[str, tuple[int, int]]
    """(height, width) of each camera."""
    numbers: Mapping[str, Numbers]
    """Vectors by their name, slices of modality.json (`state.left_arm`) too."""
    tasks: tuple[str, ...]
    """Sentences, by the number of the task."""
    episodes: Sequence[Episode]
    view: Mapping[str, object]
    """How a simulator drew the images; nothing for real robots."""

    def __init__(
        self, folder: Path, info: Info, tasks: tuple[str, ...], places: EpisodePlaces, modality: Modality | None = None
    ) -> None:
        self.folder, self.info, self.tasks = folder, info, tasks
        self.version, self.fps, self.robot = info.version, info.fps, info.robot
        self.modality = modality or Modality()
        self.cameras = tuple(info.cameras)
        self.sizes = {key: (camera.height, camera.width) for key, camera in info.cameras.items()}
        self.numbers = {**info.numbers, **self.modality.numbers}
        self.episodes = places.episodes
        self.places = places
        self.view = read_view(folder)
        self._at = {one.index: at for at, one in enumerate(places.episodes)}
        self.tables = Tables(folder, one=info.major < 3)
        self.videos = Videos(folder, info.fps)

    def __repr__(self) -> str:
        frames = sum(one.length for one in self.episodes)
        return f"EpisodeSet({str(self.folder)!r}, {self.version}, {len(self.episodes)} episodes, {frames} frames)"

    def columns(self, episode: int, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """{name: (length, dims)} of a whole episode: of all numbers, or of the names given, bookkeeping and texts too."""
        at = self.at(episode)
        name = self.places.data(at)
        length = self.episodes[at].length
        there = self.tables.count(name, episode)
        if there != length:
            raise DataError(
                f"`{self.folder / name}` has {there} rows of episode {episode}, and `meta` says {length}; fetch or copy the "
                "set again, or leave the episode out"
            )
        return {column: self._column(name, episode, column) for column in (self.numbers if names is None else names)}

    def frames(self, episode: int, camera: str, frames: Sequence[int]) -> np.ndarray:
        """uint8 (n, height, width, 3), in the order asked for."""
        at, key = self.at(episode), self._camera(camera).key
        length = self.episodes[at].length
        numbers = [int(frame) for frame in frames]
        outside = [frame for frame in numbers if not 0 <= frame < length]
        if outside:
            raise DataError(f"episode {episode} has the frames 0 to {length - 1}; asked for {outside[:6]}")
        if not numbers:
            return np.zeros((0, *self.sizes[key], 3), np.uint8)
        if not self.info.cameras[key].video:
            return self._pictures(at, key, numbers)
        name, start = self.places.clip(at, key)
        first = round(start * self.fps)  # a whole frame: sums of durations drift
        return self.videos.frames(name, [first + frame for frame in numbers])

    def sentence(self, episode: int, frame: int = 0, *, annotation: str | None = None) -> str:
        """The instruction at a frame; of several annotations (GR00T) the one asked for."""
        one = self.episodes[self.at(episode)]
        if annotation is None and len(one.tasks) == 1 and one.tasks[0].strip():
            return one.tasks[0]
        column = "task_index" if annotation is None else self._annotation(annotation)
        numbers = self.columns(episode, [column])[column].reshape(-1)
        if not 0 <= frame < len(numbers):
            raise DataError(f"episode {episode} has the frames 0 to {len(numbers) - 1}; asked for {frame}")
        number = int(numbers[frame])
        if not 0 <= number < len(self.tasks):
            raise DataError(
                f"episode {episode} has the task {number} at frame {frame}, and the table of tasks ends at "
                f"{len(self.tasks) - 1}; mend `meta/tasks`, or leave the episode out"
            )
        return self.tasks[number]

    def at(self, episode: int) -> int:
        """The place of an episode in `episodes`."""
        if episode not in self._at:
            known = f"{self.episodes[0].index} to {self.episodes[-1].index}" if self.episodes else "none"
            raise DataError(f"`{self.folder}` has no episode {episode}; it has {known} ({len(self.episodes)} in all)")
        return self._at[episode]

    def _column(self, name: str, episode: int, column: str) -> np.ndarray:
        known = self.numbers.get(column)
        if known is None and column not in BOOKKEEPING and column not in self.info.other:
            raise UnknownNameError("column", column, [*self.numbers, *BOOKKEEPING, *self.info.other])
        values = self.tables.column(name, episode, known.column if known else column)
        what = f"`{self.folder / name}`, column `{column}`,"
        if column in COUNTED and known is None:
            return whole_numbers(values, what)
        if (known is not None or column in BOOKKEEPING) and values.dtype.kind not in "biuf":
            raise DataError(f"{what} holds {_kind(values)} where numbers are expected; store numbers in it")
        if known is None:
            return values
        if values.ndim == 1:
            values = values[:, None]
        whole = known.shape if known.part is None else self.info.numbers[known.column].shape
        if values.shape[1:] != whole and values.shape[1:] != (whole or (1,)):
            raise DataError(
                f"`{self.folder / name}`, column `{known.column}`, has the shape {list(values.shape[1:])} a frame, and "
                f"`meta/info.json` says {list(whole)}; mend the one that is wrong"
            )
        return values if known.part is None else values[:, slice(*known.part)]

    def _pictures(self, at: int, key: str, numbers: list[int]) -> np.ndarray:
        episode = self.episodes[at].index
        items = self.tables.items(self.places.data(at), episode, key, numbers)
        where = f"`{self.folder}`, episode {episode}, `{key}`"
        found = [
            picture_of(item, self.folder, f"{where}, frame {frame}") for item, frame in zip(items, numbers, strict=True)
        ]
        if len({one.shape for one in found}) > 1:
            raise DataError(f"{where} has images of several sizes: {sorted({one.shape[:2] for one in found})}")
        return np.stack(found)

    def _camera(self, name: str) -> Camera:
        key = self.modality.cameras.get(name, name)
        if key not in self.info.cameras:
            raise UnknownNameError("camera", name, [*self.cameras, *self.modality.cameras])
        return self.info.cameras[key]

    def _annotation(self, name: str) -> str:
        if name not in self.modality.sentences:
            raise UnknownNameError("annotation", name, self.modality.sentences)
        return self.modality.sentences[name]


def _kind(values: np.ndarray) -> str:
    """What stands in a column that has no numbers."""
    first = next(iter(values.reshape(-1).tolist()), None)
    return "no numbers" if first is None else f"values of the type `{type(first).__name__}` ({first!r:.20})"


def _below(folder: Path) -> str:
    """Where a set may be meant."""
    if not folder.exists():
        return " There is nothing of that name; expected a folder in LeRobot's format"
    if not folder.is_dir():
        return " It is a file; expected a folder in LeRobot's format"
    sets = [one.name for one in sorted(folder.iterdir()) if is_episodes(one)][:6]
    if sets:
        return f" Did you mean {' or '.join(f'`{folder / name}`' for name in sets)}?"
    return " Expected a folder in LeRobot's format (v2.0, v2.1 or v3.0); make one of other files: vertebra data convert"
