"""The usual chain: what a task reads → encoded → samples → batches, for training, for looking, for loops of one's own.

One road for all of them: the first batch that `vertebra data show` draws is the first batch of a training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vertebra import config as configs
from vertebra.data.encode.added import warn_unused
from vertebra.data.encode.encoders import Encoder
from vertebra.data.encode.prepare import prepare
from vertebra.data.loaders.collate import Collator
from vertebra.data.loaders.loader import Loader
from vertebra.data.loaders.samplers import InOrder
from vertebra.data.loaders.stream import BLOCK, StreamLoader
from vertebra.data.model_facts import ModelFacts
from vertebra.data.read.combined import split
from vertebra.data.read.rows import Source
from vertebra.data.reading import Reading
from vertebra.data.samples.mixture import Stop, TableMixture
from vertebra.data.samples.samples import Picked, Samples
from vertebra.data.samples.table import Table
from vertebra.errors import ConfigError
from vertebra.tasks.config import DataConfig
from vertebra.tasks.registry import kinds_for, task_of
from vertebra.tasks.task import Job, Task


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """What a task makes of its data for one model."""

    task: Task
    job: Job
    encoder: Encoder | None
    """None, where the task makes its own samples."""
    train: Samples | None
    """Of a stream None: its samples are made while it is read."""
    held_out: Samples | None
    collator: Collator

    def loader(self, batch: int, *, rank: int | None = None, world: int | None = None) -> Loader | StreamLoader:
        """Batches of `batch` rows a rank, to train on."""
        task, job = self.task, self.job
        data = job.data
        sampler = task.sampler(job, batch)
        options: dict[str, Any] = {"rank": rank, "world": world, "workers": data.workers, "shift": task.shift}
        if self.train is not None:
            return Loader(self.train, sampler, self.collator, **options)
        assert self.encoder is not None, "streams are read"
        return StreamLoader(
            data.source(seed=job.seed),
            self.encoder,
            sampler,
            self.collator,
            view=partial(_viewed, task, job),
            seed=job.seed,
            block=max(BLOCK, batch),
            reader=data.reader(task.format),
            on_bad=data.on_bad,
            **options,
        )

    def eval_loader(self, batch: int, *, rank: int | None = None, world: int | None = None) -> Loader | None:
        """What was held out, in its order."""
        if self.held_out is None:
            return None
        return Loader(self.held_out, InOrder(batch), self.collator, rank=rank, world=world, shift=self.task.shift)


def read_data(job: Job) -> TaskData:
    """Read and encode everything, so that a fault in the data shows here and not at step 1000."""
    task = task_of(job.data)
    require_fit(task, job.model)
    encoder = task.encoder(job) if task.reads else None
    train, held_out = _drawn(task, job) if encoder is None else _read(task, job, encoder)
    return TaskData(
        task=task,
        job=job,
        encoder=encoder,
        train=train,
        held_out=held_out,
        collator=Collator(job.model.pad_id, features=task.features(job)),
    )


def batches(
    model: Any,
    data: Any,
    *,
    batch: int = 8,
    seed: int = 0,
    rank: int | None = None,
    world: int | None = None,
    **settings: Any,
) -> Loader | StreamLoader:
    """The usual chain in one call: the batches that training would see.

    model: one that is there, or its name; no weights are loaded for a name. data: a `Reading`, a `DataConfig`, or
    whatever `open_source` takes; `settings` are those of a recipe's `data` (`kind="chat"`, `block=512`). Nothing is held
    out unless requested.
    """
    facts = model if isinstance(model, ModelFacts) else _facts(model)
    if not isinstance(data, DataConfig):
        settings = {"held_out": 0.0} | settings
    job = Job(data=data_config(data, facts, **settings), model=facts, seed=seed)
    return read_data(job).loader(batch, rank=rank, world=world)


def _facts(model: Any) -> ModelFacts:
    return ModelFacts.find(str(model)) if isinstance(model, str | Path) else ModelFacts.of(model)


def data_config(data: Any, model: ModelFacts, **settings: Any) -> DataConfig:
    """The config of these settings. `data`: a `DataConfig`, a `Reading`, or whatever `open_source` takes. Without a kind
    it is the first that reads the data's format for a model of this sort."""
    if isinstance(data, DataConfig):
        return replace(data, **settings)
    if isinstance(data, Reading):
        settings = {name: getattr(data, name) for name in configs.given(data)} | settings
    else:
        settings["path"] = data
    if settings.get("kind") is None:
        known = {name: value for name, value in settings.items() if name in Reading.__dataclass_fields__}
        settings["kind"] = fitting_kind(Reading(**known), model)
    return DataConfig(**settings)


def fitting_kind(reading: Reading, model: ModelFacts) -> str:
    """What a model of this sort learns from rows like these."""
    found = next(iter(reading.single().values())).settled().format
    kinds = kinds_for(is_encoder=model.is_encoder, format=None if found is None else found.name)
    if not kinds:
        sort = "an encoder" if model.is_encoder else "a language model"
        able = ", ".join(kinds_for(is_encoder=model.is_encoder))
        raise ConfigError(f"`{model.name}` is {sort}, and none of its kinds ({able}) reads `{found and found.name}`")
    return kinds[0]


def require_fit(task: Task, model: ModelFacts) -> None:
    """Refuse a model of another sort than the kind trains."""
    if task.for_encoder != model.is_encoder:
        sort = "an encoder" if model.is_encoder else "a language model"
        fitting = ", ".join(kinds_for(is_encoder=model.is_encoder))
        raise ConfigError(f"`{model.name}` is {sort}, which cannot do `{task.name}`; it can do {fitting}")


def _drawn(task: Task, job: Job) -> tuple[Samples, Samples | None]:
    train, held_out = task.drawn(job)
    return _limited(train, job.data.limit), held_out and _limited(held_out, job.data.limit)


def _read(task: Task, job: Job, encoder: Encoder) -> tuple[Samples | None, Samples | None]:
    """To train on, and to evaluate on; of a mixture, some of each of its readings."""
    data = job.data
    other = data.evaluated
    held_out = None if other is None else _limited(task.samples(encoded(task, other, encoder), job), data.limit)
    if data.stream:
        return None, held_out
    share = data.held_out if held_out is None else 0.0
    trained: dict[str, Samples] = {}
    apart: dict[str, Samples] = {}
    for name, part in data.single().items():
        one, two = _split(task, job, part, encoder, share)
        trained[name] = _limited(one, data.limit)
        if two is not None:
            apart[name] = _limited(two, data.limit)
    weights = {name: part.weight for name, part in data.mix.items()}
    return _mixed(trained, weights, data.stop), _mixed(apart) if apart else held_out


def _split(task: Task, job: Job, part: Reading, encoder: Encoder, share: float) -> tuple[Samples, Samples | None]:
    """One reading's samples as training sees them, and those held out, the same ones in every run."""
    source, rest = part.source(), None
    if part.corpus is not None and share:  # by file, so that nothing of a file is on both sides
        source, rest = split(source, {"train": 1 - max(0.01, share), "valid": max(0.01, share)}, by="file").values()
    table = encoded(task, part, encoder, source)
    warn_unused(table, job.model.tokenizer, job.tokens, conversations="trusted" in task.settings)
    samples = task.samples(table, job)
    train = task.trained(samples, job)
    if rest is not None:
        return train, task.samples(encoded(task, part, encoder, rest), job)
    count = int(len(samples) * share)
    if share and not 0 < count < len(samples):
        count = min(1, len(samples) - 1)
    if not count:
        return train, None
    order = np.random.default_rng(0).permutation(len(samples))
    return Picked(train, np.sort(order[count:])), Picked(samples, np.sort(order[:count]))


def encoded(task: Task, part: Reading, encoder: Encoder, source: Source | None = None) -> Table:
    """All rows of a single reading."""
    return prepare(
        source or part.source(),
        encoder,
        format=part.format or task.format,
        columns=part.columns or None,
        images=part.images,
        cache=part.cache,
        num_proc=part.num_proc,
        on_bad=part.on_bad,
    )


def _mixed(
    parts: Mapping[str, Samples], weights: Mapping[str, float] | None = None, stop: Stop = "each_once"
) -> Samples:
    return next(iter(parts.values())) if len(parts) == 1 else TableMixture(parts, weights or None, stop=stop)


def _limited(samples: Samples, limit: int | None) -> Samples:
    if limit is None or samples.mixes or len(samples) <= limit:
        return samples
    return Picked(samples, np.arange(limit))


def _viewed(task: Task, job: Job, table: Table) -> Samples:
    """A block of a stream as training sees it."""
    return task.trained(task.samples(table, job), job)
