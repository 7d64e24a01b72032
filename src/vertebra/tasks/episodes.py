"""Kind `episodes`, a robot's policy: what its cameras saw and it was asked, and the chunk of actions that came next.

    <s> ▣▣…▣ (a camera) ▣▣…▣ (another) ▢ (proprio) Open the drawer. │ <ACT> ▢     chunk × dims numbers, or their tokens

A set in LeRobot's format is read, or a mixture of several by weight, each with statistics of its own. Whole episodes are
held out. What it makes is a policy: `vertebra.policy(folder)` asks it for actions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from functools import partial
from typing import Any, ClassVar

from vertebra.action.bins import Bins, uniform_bins
from vertebra.action.record import POLICY, PROPRIO, ActionRecord, segment_of
from vertebra.data.model_facts import ModelFacts
from vertebra.data.samples.augment import Augmentation
from vertebra.data.samples.mixture import TableMixture
from vertebra.data.samples.samples import Samples
from vertebra.errors import ConfigError
from vertebra.tasks.acting import SEGMENT, Acting, ActingConfig, acting
from vertebra.tasks.config import DataConfig
from vertebra.tasks.demonstrations import Demonstrations, PreparedItems, ShownDemonstration
from vertebra.tasks.drawn_episodes import drawn_episodes
from vertebra.tasks.read_sets import EpisodesConfig, ReadSet, first_set, read_sets
from vertebra.tasks.task import Features, Job, Task
from vertebra.tasks.wordings import Wordings, read_wordings

ACT = "<ACT>"


class Episodes(Task):
    """A policy, learned from demonstrations."""

    name: ClassVar[str] = "episodes"
    settings: ClassVar[tuple[str, ...]] = ("path", "mix", "stop", "cache", "head", "chunk", "block")
    Options: ClassVar[type | None] = EpisodesConfig

    def options(self, data: DataConfig) -> Any:
        made: EpisodesConfig = super().options(data)
        acting(data.head, chunk=data.chunk, dims=1, options=_of_head(made))
        if made.execute is not None and made.execute > data.chunk:
            raise ConfigError(f"data.options.execute is {made.execute}, and a chunk has {data.chunk} actions")
        return made

    def tiny(self, data: DataConfig) -> DataConfig:
        """A recipe that names no set yet is tried on a drawn one."""
        return data if data.path is not None or data.mix else replace(data, path=str(drawn_episodes()))

    def tokens(self, data: DataConfig) -> tuple[str, ...]:
        bins = self.options(data).bins if _way(self, data).by_tokens else 0
        return (ACT, *(f"<ACT:{number}>" for number in range(bins)))

    def cameras(self, data: DataConfig) -> tuple[str, ...]:
        return tuple(segment_of(name) for name in first_set(data, self.options(data)).cameras)

    def vectors(self, data: DataConfig) -> Mapping[str, int]:
        wide = first_set(data, self.options(data)).proprio
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
        read = first_set(job.data, options)
        one = read.shown[0]
        images = {name: read.set.frames(one.episode, key, [0])[0] for name, key in read.cameras.items()}
        return {"images": images} | ({"proprio": one.state[0]} if read.proprio else {}), one.sentence

    def features(self, job: Job) -> Features | None:
        return PreparedItems()

    def packs(self, data: DataConfig) -> bool:
        return False  # images fill most of a row

    def drawn(self, job: Job) -> tuple[Samples, Samples | None]:
        data, options = job.data, self.options(job.data)
        record = self._record(data, job.model.tokenizer)
        _require_eyes(record, job.model)
        make = partial(self._samples, job=job, options=options, record=record)
        train: dict[str, Samples] = {}
        apart: dict[str, Samples] = {}
        sets = read_sets(data, options)
        wordings = _wordings(sets, options)
        for key, read in sets.items():
            one, two = read.divided(data.held_out)
            train[key] = make(key, read, one, augmentation=options.augmentation, wordings=wordings)
            if two:
                apart[key] = make(key, read, two)
        if len(train) == 1:
            return next(iter(train.values())), next(iter(apart.values()), None)
        weights = {key: part.weight for key, part in data.mix.items()}
        return TableMixture(train, weights, stop=data.stop), TableMixture(apart) if apart else None

    def _samples(
        self, key: str, read: ReadSet, shown: list[ShownDemonstration], *, job: Job, options: EpisodesConfig,
        record: ActionRecord, augmentation: Augmentation | None = None, wordings: Wordings | None = None,
    ) -> Samples:  # fmt: skip
        how: Any = job.model.preparation
        frames = {name: read.frames(name, how, record, job.data.cache) for name in record.cameras}
        return Demonstrations(
            shown, job.model, record, _way(self, job.data), key, frames, bins=None if record.bins is None else
            Bins.of(record.bins), every=options.every, seed=job.seed, augmentation=augmentation,
            wordings=wordings, named=key,
        )  # fmt: skip

    def _record(self, data: DataConfig, tokenizer: Any) -> ActionRecord:
        options, way = self.options(data), _way(self, data)
        read = read_sets(data, options)
        first = next(iter(read.values()))
        ids = [int(one) for one in tokenizer.convert_tokens_to_ids(list(self.tokens(data)))]
        made = ActionRecord(
            head=way.name,
            dims=first.dims,
            chunk=data.chunk,
            execute=options.execute,
            bins=uniform_bins(ids[1:]).to_json() if way.by_tokens else None,
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
            view=_view(read),
            **way.record(),
        )
        statistics = {key: one.statistics(made).to_json() for key, one in read.items()}
        return ActionRecord(**{**vars(made), "statistics": statistics})


def _wordings(read: Mapping[str, ReadSet], options: EpisodesConfig) -> Wordings | None:
    sentences = dict.fromkeys(shown.sentence for one in read.values() for shown in one.shown)
    return None if options.wordings is None else read_wordings(options.wordings, sentences)


def _view(read: Mapping[str, ReadSet]) -> dict[str, Any]:
    """How the images of all sets were drawn; nothing, where they differ."""
    first, *others = (dict(one.set.view) for one in read.values())
    return first if all(one == first for one in others) else {}


def _way(task: Episodes, data: DataConfig) -> Acting:
    """How a config has actions answered."""
    options = task.options(data)
    return acting(data.head, chunk=data.chunk, dims=first_set(data, options).dims, options=_of_head(options))


def _of_head(options: EpisodesConfig) -> ActingConfig:
    return ActingConfig(**{one.name: getattr(options, one.name) for one in fields(ActingConfig)})


def _require_eyes(record: ActionRecord, model: ModelFacts) -> None:
    seen = [segment_of(name) for name in record.cameras]
    absent = [name for name in seen if name not in model.sizes and "image" not in model.sizes]
    if absent:
        raise ConfigError(
            f"the policy sees {', '.join(record.cameras)}, and `{model.name}` has no image part for {', '.join(absent)}; "
            "give the model `image` settings, or make it blind: data.options.cameras=[]"
        )
