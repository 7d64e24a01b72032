"""The sets of episodes that a recipe names, as tasks read them: which cameras and vectors, which episodes, their statistics,
their frames. Numbers are held in memory, films are read through `data/read/frames.py`. It knows no models but by their facts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from vertebra import log
from vertebra.action.counting import Counter
from vertebra.action.frames import Frame, Gripper
from vertebra.action.normalization import Norm
from vertebra.action.record import ActionRecord
from vertebra.action.statistics import DatasetStatistics
from vertebra.config import Bound, Count, Some
from vertebra.data.read.frames import Frames, KeptFrames
from vertebra.data.read.rows import digest
from vertebra.data.samples.augment import Augmentation
from vertebra.errors import ConfigError, DataError, UnknownNameError
from vertebra.model.encoders.images import Preparation, prepare_images
from vertebra.tasks.acting import ActingConfig
from vertebra.tasks.config import DataConfig
from vertebra.tasks.demonstrations import ShownDemonstration, frames_needed

if TYPE_CHECKING:
    from vertebra.episodes import EpisodeSet

IMAGES = "observation.images."
"""How keys of cameras begin; policies know them by the rest."""
KEPT = 1 << 33
"""Bytes of prepared frames of one set that are kept on the disk; of a larger one, frames are decoded in every epoch."""


@dataclass(frozen=True, kw_only=True)
class EpisodesConfig(ActingConfig):
    """How episodes become samples, as `data.options`."""

    cameras: tuple[str, ...] | None = None
    """Which, in the order of the sequence; None: all. `top` is `observation.images.top`. `[]`: the policy is blind."""
    state: tuple[str, ...] = ("observation.state",)
    """Vectors of the robot's state that the policy is given, joined; `[]`: none."""
    action: str = "action"
    every: Some = 1
    """How many frames lie between two samples of an episode."""
    history: Count = 0
    """Earlier images of each camera that the policy sees, one for each of its decisions."""
    execute: Some | None = None
    """Actions of a chunk that are carried out before the next decision; None: all."""
    normalization: Norm = "quantile"
    proprio_normalization: Norm = "quantile"
    frame: Frame = "absolute"
    """`delta`, `relative`: learn differences, from the action before or from the state; they come out absolute."""
    frame_dims: tuple[bool, ...] | None = None
    """Which dimensions `frame` is about; None: all."""
    gripper: Gripper = "as-is"
    template: str = "{instruction}"
    lower: bool = False
    wordings: str | None = None
    """In training: a file of other words for the sentences of the set, `sentence: [others]`; each sample is asked in one."""
    bins: Annotated[int, Bound(least=2)] = 64
    """For `tokens`, `parallel`: values that a number can take."""
    shift: Count = 0
    """In training: pixels of the prepared image that it is moved by, at most."""
    crop: Annotated[float, Bound(least=0, below=1)] = 0.0
    """In training: the most of a side that is cut away."""
    color: Annotated[float, Bound(least=0, below=1)] = 0.0
    """In training: how much brightness, contrast and saturation change, at most."""
    skip: tuple[int, ...] = ()
    """Episodes to leave out, as `vertebra data check` lists them."""

    @property
    def augmentation(self) -> Augmentation:
        return Augmentation(shift=self.shift, crop=self.crop, color=self.color)


class ReadSet:
    """One set of a recipe: its films, and all its demonstrations in memory."""

    def __init__(self, folder: str, options: EpisodesConfig) -> None:
        from vertebra.episodes import open_episodes

        self.set: EpisodeSet = open_episodes(folder)
        self.options = options
        self.cameras = {_short(key): key for key in _cameras(self.set, options.cameras)}
        """The key of each camera, by the name that the policy knows."""
        self.shown = _shown(self.set, options)
        if not self.shown:
            raise DataError(f"`{folder}` has no episode to learn from; {len(options.skip)} are left out (skip)")
        self.dims, self.proprio = self.shown[0].actions.shape[1], self.shown[0].state.shape[1]

    def divided(self, share: float) -> tuple[list[ShownDemonstration], list[ShownDemonstration]]:
        """Episodes to train on, and those held out: the same ones in every run, some of each sentence."""
        apart: set[int] = set()
        for number, sentence in enumerate(dict.fromkeys(one.sentence for one in self.shown)):
            own = [one.episode for one in self.shown if one.sentence == sentence]
            count = min(max(1, round(share * len(own))) if share else 0, len(own) - 1)
            apart |= set(np.random.default_rng([0, number]).permutation(own)[:count].tolist())
        train = [one for one in self.shown if one.episode not in apart]
        return train, [one for one in self.shown if one.episode in apart]

    def statistics(self, record: ActionRecord) -> DatasetStatistics:
        """Exact ones of all its episodes; of actions as the record's frame measures them."""
        total = sum(len(one) for one in self.shown)
        actions = Counter(self.dims, total=total * record.chunk)
        proprio = Counter(self.proprio, total=total) if self.proprio else None
        for one in self.shown:
            chunks, pad = one.chunks(record)
            actions.add(one.actions if record.frame == "absolute" else chunks[~pad])
            if proprio is not None:
                proprio.add(one.state)
        return DatasetStatistics(
            action=actions.moments(),
            proprio=None if proprio is None else proprio.moments(),
            num_transitions=total,
            num_trajectories=len(self.shown),
            quantiles="exact",
        )

    def frames(self, camera: str, how: Preparation, record: ActionRecord, cache: bool | str | Path) -> Frames:
        """A camera's frames, prepared: kept where they fit on the disk."""
        decode, prepare = partial(_decoded, self.set, self.cameras[camera]), partial(prepare_images, how=how)
        needed = {one.episode: frames_needed(len(one), self.options.every, record) for one in self.shown}
        size = 3 * how.size**2 * sum(len(one) for one in needed.values())
        if cache is False or size > KEPT:
            return Frames(decode, prepare)
        content = digest(self.content, self.cameras[camera], sorted(how.settings().items()))
        folder = None if cache is True else str(cache)
        return KeptFrames(decode, prepare, requested=needed, size=how.size, content=content, folder=folder)

    @property
    def content(self) -> str:
        """A hash of the set's files, by name, size and time."""
        files = sorted(path for path in self.set.folder.rglob("*") if path.is_file())
        stats = [(str(path.relative_to(self.set.folder)), path.stat()) for path in files]
        return digest(str(self.set.folder.resolve()), [(name, one.st_size, one.st_mtime_ns) for name, one in stats])


def read_sets(data: DataConfig, options: EpisodesConfig) -> dict[str, ReadSet]:
    """The sets of a recipe by name, all of one robot."""
    if data.path is None and not data.mix:
        raise ConfigError(
            "kind `episodes` needs a set of episodes: data.path=FOLDER, or `mix` for several. `vertebra sim collect` "
            "records one in a simulator, `vertebra data convert` makes one of other files; --tiny tries a recipe without any"
        )
    named = {name: part.path for name, part in data.single().items()}
    found = {}
    for name, path in named.items():
        if not isinstance(path, str | Path):
            raise ConfigError(f"data.path is {path!r:.80}; kind `episodes` reads one folder, or a `mix` of several")
        folder = Path(path).expanduser().resolve()
        found[name if data.mix else folder.name] = _opened(str(folder), options, _written(folder))
    first = next(iter(found.values()))
    for name, one in found.items():
        ours, theirs = (first.dims, first.proprio, tuple(first.cameras)), (one.dims, one.proprio, tuple(one.cameras))
        if ours != theirs:
            raise DataError(
                f"`{name}` has actions of {theirs[0]} numbers, a state of {theirs[1]} and the cameras {list(theirs[2])}; the "
                f"first set has {ours[0]}, {ours[1]} and {list(ours[2])}. Choose what all of them have: data.options.cameras, "
                "state, action"
            )
    _warn_of_others(found, options)
    return found


def _warn_of_others(found: Mapping[str, ReadSet], options: EpisodesConfig) -> None:
    """What is allowed, and yet a slip as often as meant: steps of another length, numbers of other names."""
    (name, first), *others = found.items()
    for key, one in others:
        pairs = [("frames a second", first.set.fps, one.set.fps)]
        for vector in (options.action, *options.state):
            ours, theirs = first.set.numbers[vector].names, one.set.numbers[vector].names
            if ours and theirs:
                pairs.append((f"as the dimensions of `{vector}`", ", ".join(ours), ", ".join(theirs)))
        for what, ours, theirs in pairs:
            if ours != theirs:
                log.warn_once(
                    f"`{key}` has {theirs} {what}, and `{name}` has {ours}: one policy learns both as if they were the same"
                )


def _written(folder: Path) -> int | None:
    """When a set was last written."""
    info = folder / "meta" / "info.json"
    return info.stat().st_mtime_ns if info.is_file() else None


@cache
def _opened(folder: str, options: EpisodesConfig, written: int | None) -> ReadSet:
    """A recipe's task is asked for many facts, one after the other, that are all in the set."""
    return ReadSet(folder, options)


def first_set(data: DataConfig, options: EpisodesConfig) -> ReadSet:
    return next(iter(read_sets(data, options).values()))


def _short(key: str) -> str:
    return key.removeprefix(IMAGES)


def _cameras(read: EpisodeSet, names: tuple[str, ...] | None) -> list[str]:
    if names is None:
        return list(read.cameras)
    known = {_short(key): key for key in read.cameras} | {key: key for key in read.cameras}
    for name in names:
        if name not in known:
            raise UnknownNameError("camera", name, [_short(key) for key in read.cameras])
    return [known[name] for name in names]


def _shown(read: EpisodeSet, options: EpisodesConfig) -> list[ShownDemonstration]:
    """Every demonstration that is not left out; faults of all of them in one error."""
    for name in (*options.state, options.action):
        if name not in read.numbers:
            raise UnknownNameError("vector of the set", name, read.numbers)
    found, faults, mute = [], [], []
    for one in read.episodes:
        if one.index in options.skip:
            continue
        columns = read.columns(one.index, [*options.state, options.action])
        with np.errstate(over="ignore"):  # what 32 bits do not hold becomes infinite, and is refused below
            actions = np.asarray(columns[options.action], np.float32)
            own = [np.asarray(columns[name], np.float32) for name in options.state]
        state = np.concatenate([np.zeros((len(actions), 0), np.float32), *own], 1)
        if not (np.isfinite(actions).all() and np.isfinite(state).all()):
            faults.append(one.index)
            continue
        sentence = read.sentence(one.index)
        if not sentence.strip():
            mute.append(one.index)
        found.append(ShownDemonstration(episode=one.index, sentence=sentence, state=state, actions=actions))
    wrong = [
        f"{what} in the episodes {given[:20]} ({len(given)} in all)"
        for what, given in (("NaN or infinite numbers", faults), ("no instruction", mute))
        if given
    ]
    if wrong:
        raise DataError(
            f"`{read.folder}`: {'; '.join(wrong)}; mend them, or leave them out: data.options.skip={sorted([*faults, *mute])}"
        )
    return found


def _decoded(read: EpisodeSet, key: str, episode: int, frames: Any) -> np.ndarray:
    return read.frames(episode, key, frames)
