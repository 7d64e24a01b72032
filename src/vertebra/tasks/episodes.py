"""Kind `episodes`, a robot's policy: what its cameras saw and it was asked, and the chunk of actions that came next.

    <s> ▣▣…▣ (a camera) ▣▣…▣ (another) ▢ (proprio) Open the drawer. │ <ACT> ▢     chunk × dims numbers, or their tokens

A set in LeRobot's format is read, or a mixture of several by weight, each with statistics of its own. Whole episodes are
held out. What it makes is a policy: `vertebra.policy(folder)` asks it for actions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np

from vertebra.action.bins import Bins, uniform_bins
from vertebra.action.counting import Counter
from vertebra.action.frames import Frame, Gripper
from vertebra.action.normalization import Norm
from vertebra.action.record import POLICY, PROPRIO, ActionRecord, segment_of
from vertebra.action.statistics import DatasetStatistics
from vertebra.config import Bound, Count, Some
from vertebra.data.model_facts import ModelFacts
from vertebra.data.read.frames import Frames, KeptFrames
from vertebra.data.read.rows import digest
from vertebra.data.samples.augment import Augmentation
from vertebra.data.samples.mixture import TableMixture
from vertebra.data.samples.samples import Samples
from vertebra.errors import ConfigError, DataError, UnknownNameError
from vertebra.model.encoders.images import prepare_images
from vertebra.tasks.acting import SEGMENT, Acting, ActingConfig, acting
from vertebra.tasks.config import DataConfig
from vertebra.tasks.demonstrations import Demonstrations, Prepared, Shown, frames_wanted
from vertebra.tasks.task import Features, Job, Task

if TYPE_CHECKING:
    from vertebra.episodes import EpisodeSet

ACT = "<ACT>"
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
    """Vectors that the policy is told of the robot, joined; `[]`: none."""
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


class Episodes(Task):
    """A policy, learned from demonstrations."""

    name: ClassVar[str] = "episodes"
    settings: ClassVar[tuple[str, ...]] = ("path", "mix", "stop", "cache", "head", "chunk", "block")
    Options: ClassVar[type | None] = EpisodesConfig

    def options(self, data: DataConfig) -> Any:
        if data.path is None and not data.mix:
            raise ConfigError("kind `episodes` needs a path: a set of episodes; or a mix of several")
        made: EpisodesConfig = super().options(data)
        acting(data.head, chunk=data.chunk, dims=1, options=_of_head(made))
        if made.execute is not None and made.execute > data.chunk:
            raise ConfigError(f"data.options.execute is {made.execute}, and a chunk has {data.chunk} actions")
        return made

    def tokens(self, data: DataConfig) -> tuple[str, ...]:
        bins = self.options(data).bins if _way(self, data).speaks else 0
        return (ACT, *(f"<ACT:{number}>" for number in range(bins)))

    def cameras(self, data: DataConfig) -> tuple[str, ...]:
        return tuple(segment_of(name) for name in _first(data, self.options(data)).cameras)

    def vectors(self, data: DataConfig) -> Mapping[str, int]:
        wide = _first(data, self.options(data)).proprio
        return {PROPRIO: wide} if wide else {}

    def queries(self, data: DataConfig) -> Mapping[str, int]:
        slots = _way(self, data).slots
        return {SEGMENT: slots} if slots else {}

    def heads(self, data: DataConfig, backbone: Any) -> Mapping[str, Any]:
        return _way(self, data).heads(backbone)

    def record(self, data: DataConfig, backbone: Any) -> Mapping[str, Any]:
        return {POLICY: self._record(data, backbone.tokenizer).to_json()}

    def example(self, job: Job) -> tuple[Any, str] | None:
        """The first frame of the first episode."""
        options = self.options(job.data)
        read = _first(job.data, options)
        one = read.shown[0]
        images = {name: read.set.frames(one.episode, key, [0])[0] for name, key in read.cameras.items()}
        return {"images": images} | ({"proprio": one.state[0]} if read.proprio else {}), one.sentence

    def features(self, job: Job) -> Features | None:
        return Prepared()

    def packs(self, data: DataConfig) -> bool:
        return False  # images fill most of a row

    def drawn(self, job: Job) -> tuple[Samples, Samples | None]:
        data, options = job.data, self.options(job.data)
        record = self._record(data, job.model.tokenizer)
        _require_eyes(record, job.model)
        make = partial(self._samples, job=job, options=options, record=record)
        train: dict[str, Samples] = {}
        apart: dict[str, Samples] = {}
        for key, read in _read(data, options).items():
            one, two = read.divided(data.held_out)
            train[key] = make(key, read, one, augmentation=options.augmentation)
            if two:
                apart[key] = make(key, read, two)
        if len(train) == 1:
            return next(iter(train.values())), next(iter(apart.values()), None)
        weights = {key: part.weight for key, part in data.mix.items()}
        return TableMixture(train, weights, stop=data.stop), TableMixture(apart) if apart else None

    def _samples(
        self, key: str, read: ReadSet, shown: list[Shown], *, job: Job, options: EpisodesConfig, record: ActionRecord,
        augmentation: Augmentation | None = None,
    ) -> Samples:  # fmt: skip
        frames = {name: read.frames(name, job, options, record) for name in record.cameras}
        return Demonstrations(
            shown, job.model, record, _way(self, job.data), key, frames, bins=None if record.bins is None else
            Bins.of(record.bins), every=options.every, seed=job.seed, augmentation=augmentation, named=key,
        )  # fmt: skip

    def _record(self, data: DataConfig, tokenizer: Any) -> ActionRecord:
        options, way = self.options(data), _way(self, data)
        read = _read(data, options)
        first = next(iter(read.values()))
        ids = [int(one) for one in tokenizer.convert_tokens_to_ids(list(self.tokens(data)))]
        made = ActionRecord(
            head=way.name,
            dims=first.dims,
            chunk=data.chunk,
            execute=options.execute,
            bins=uniform_bins(ids[1:]).to_json() if way.speaks else None,
            cameras=tuple(first.cameras),
            history=options.history,
            proprio=first.proprio or None,
            template=options.template,
            lower=options.lower,
            lead=(ids[0],),
            normalization=options.normalization,
            proprio_normalization=options.proprio_normalization,
            frame=options.frame,
            frame_dims=options.frame_dims,
            gripper=options.gripper,
            **way.record(),
        )
        statistics = {key: one.statistics(made).to_json() for key, one in read.items()}
        return ActionRecord(**{**vars(made), "statistics": statistics})


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

    def divided(self, share: float) -> tuple[list[Shown], list[Shown]]:
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

    def frames(self, camera: str, job: Job, options: EpisodesConfig, record: ActionRecord) -> Frames:
        """A camera's frames, prepared: kept where they fit on the disk."""
        how = job.model.preparation
        assert how is not None, "asked before"
        decode, prepare = partial(_decoded, self.set, self.cameras[camera]), partial(prepare_images, how=how)
        wanted = {one.episode: frames_wanted(len(one), options.every, record) for one in self.shown}
        size = 3 * how.size**2 * sum(len(one) for one in wanted.values())
        if job.data.cache is False or size > KEPT:
            return Frames(decode, prepare)
        content = digest(self.content, self.cameras[camera], sorted(how.settings().items()))
        folder = None if job.data.cache is True else str(job.data.cache)
        return KeptFrames(decode, prepare, wanted=wanted, size=how.size, content=content, folder=folder)

    @property
    def content(self) -> str:
        """A hash of the set's files, by name, size and time."""
        files = sorted(path for path in self.set.folder.rglob("*") if path.is_file())
        said = [(str(path.relative_to(self.set.folder)), path.stat()) for path in files]
        return digest(str(self.set.folder.resolve()), [(name, one.st_size, one.st_mtime_ns) for name, one in said])


def _read(data: DataConfig, options: EpisodesConfig) -> dict[str, ReadSet]:
    """The sets of a recipe by name, all of one robot."""
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
    return found


def _written(folder: Path) -> int | None:
    """When a set was last written."""
    info = folder / "meta" / "info.json"
    return info.stat().st_mtime_ns if info.is_file() else None


@cache
def _opened(folder: str, options: EpisodesConfig, written: int | None) -> ReadSet:
    """A recipe's task is asked for many facts, one after the other, that are all in the set."""
    return ReadSet(folder, options)


def _first(data: DataConfig, options: EpisodesConfig) -> ReadSet:
    return next(iter(_read(data, options).values()))


def _way(task: Episodes, data: DataConfig) -> Acting:
    """How a config has actions answered."""
    options = task.options(data)
    return acting(data.head, chunk=data.chunk, dims=_first(data, options).dims, options=_of_head(options))


def _of_head(options: EpisodesConfig) -> ActingConfig:
    return ActingConfig(**{one.name: getattr(options, one.name) for one in fields(ActingConfig)})


def _short(key: str) -> str:
    return key.removeprefix(IMAGES)


def _cameras(read: EpisodeSet, wanted: tuple[str, ...] | None) -> list[str]:
    if wanted is None:
        return list(read.cameras)
    known = {_short(key): key for key in read.cameras} | {key: key for key in read.cameras}
    for name in wanted:
        if name not in known:
            raise UnknownNameError("camera", name, [_short(key) for key in read.cameras])
    return [known[name] for name in wanted]


def _shown(read: EpisodeSet, options: EpisodesConfig) -> list[Shown]:
    """Every demonstration that is not left out; faults of all of them in one error."""
    for name in (*options.state, options.action):
        if name not in read.numbers:
            raise UnknownNameError("vector of the set", name, read.numbers)
    found, faults = [], []
    for one in read.episodes:
        if one.index in options.skip:
            continue
        columns = read.columns(one.index, [*options.state, options.action])
        actions = np.asarray(columns[options.action], np.float32)
        own = [np.asarray(columns[name], np.float32) for name in options.state]
        state = np.concatenate([np.zeros((len(actions), 0), np.float32), *own], 1)
        if not (np.isfinite(actions).all() and np.isfinite(state).all()):
            faults.append(one.index)
            continue
        found.append(Shown(episode=one.index, sentence=read.sentence(one.index), state=state, actions=actions))
    if faults:
        raise DataError(
            f"`{read.folder}`: NaN or infinite numbers in the episodes {faults[:20]} ({len(faults)} in all); mend them, or "
            f"leave them out: data.options.skip={faults}"
        )
    return found


def _decoded(read: EpisodeSet, key: str, episode: int, frames: Any) -> np.ndarray:
    return read.frames(episode, key, frames)


def _require_eyes(record: ActionRecord, model: ModelFacts) -> None:
    seen = [segment_of(name) for name in record.cameras]
    absent = [name for name in seen if name not in model.sizes and "image" not in model.sizes]
    if absent:
        raise ConfigError(
            f"the policy sees {', '.join(record.cameras)}, and `{model.name}` has no image part for {', '.join(absent)}; "
            "give the model `image` settings, or make it blind: data.options.cameras=[]"
        )
