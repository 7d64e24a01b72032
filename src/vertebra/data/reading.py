"""`Reading`: where rows come from and what they mean, as settings that a recipe, the `data` commands and Python share.

    Reading(path="chat.jsonl")                                              one file, folder, pattern, hub name
    Reading(mix={"web": Reading(path="web/", weight=3), "code": Reading(path="code.jsonl")})
    Reading(path="web/*.jsonl", stream=True)                                too large to hold

It opens sources; it does not know what is trained on them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from vertebra.config import Bound, Place, Some, given, require_bounds
from vertebra.data.read.combined import Chain, FirstUnits
from vertebra.data.read.corpus import Kind, python_corpus
from vertebra.data.read.files import TextUnit
from vertebra.data.read.formats import Reader
from vertebra.data.read.open import open_source
from vertebra.data.read.rows import OnBad, Source
from vertebra.data.samples.mixture import Mixture, Stop
from vertebra.errors import ConfigError

CORPUS: dict[str, Kind] = {"stdlib": "source", "stdlib:docstrings": "docstring"}
"""Names of the corpus that every Python has: its own standard library."""

CORPUS_SIZE, LIMITED_SIZE = 4.0, 0.3
"""Megabytes of it that are read, and where only a few samples are asked for."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What is read."""

    path: Place | tuple[Place, ...] | None = None
    """A file, a folder, a pattern, a hub name, or several; `stdlib`: the sources of Python's own standard library. In
    Python also rows, a dataset or a function: whatever `open_source` takes."""
    format: str | None = None
    """What a row is, where its columns do not show it: text, messages, alpaca, pairs …"""
    columns: dict[str, str] = field(default_factory=dict)
    """Our name of a column → the data's."""
    images: Place | None = None
    """The folder that image paths are relative to; that of the data file where not given."""
    split: str | None = None
    """Which split of a dataset."""
    subset: str | None = None
    """Which configuration of a dataset of the hub."""
    pattern: str | None = None
    """Which files of a folder, as `**/*.jsonl`."""
    text_unit: TextUnit | None = None
    """What one sample of plain text is; by default a line of `.txt`, and the whole file of code and markup."""
    weight: Annotated[float, Bound(above=0)] = 1.0
    """In a mixture: how often it is drawn from, beside the others."""
    mix: dict[str, Reading] = field(default_factory=dict)
    """Several readings by name, drawn from by their weights, in place of a path."""
    stop: Stop = "each_once"
    """Where a reading of the mixture ends: go on with the others, stop, or begin it again until all have ended."""
    stream: bool = False
    """Read while training, in bounded memory, in place of reading everything before."""
    on_bad: OnBad = "fail"
    """Rows that cannot be used stop the run with their list, or are left out with a warning."""
    cache: bool | Place = True
    """Whether what was read and encoded is kept for the next time, or in which folder."""
    num_proc: Some = 1
    """Processes that encode."""
    limit: Some | None = None
    """Only so many samples, of a stream so many rows; of a mixture, so many of each reading."""

    def __post_init__(self) -> None:
        require_bounds(self)
        if self.path is not None and self.mix:
            raise ConfigError("`path` and `mix` are both given; a mixture names its own paths")
        for name, part in self.mix.items():
            if part.path is None:
                raise ConfigError(f"mix.{name}: a reading of a mixture needs a path")
            above = [setting for setting in given(part) if setting not in OF_ONE]
            if above:
                raise ConfigError(f"mix.{name}.{above[0]}: this is set for the whole mixture, beside `mix`")
        single = [name for name in given(self) if name in OF_ONE]
        if self.mix and single:
            raise ConfigError(f"{', '.join(single)}: of single readings; set it inside of each in `mix`")
        if self.stream and len({str((part.format, part.columns, part.images)) for part in self.mix.values()}) > 1:
            raise ConfigError(
                "stream: the rows of a mixture are read as one: give all its readings the same format, columns, images"
            )
        if not self.mix and self.stop != "each_once":
            raise ConfigError("stop: of a mixture; one reading ends where it ends")

    @property
    def named(self) -> str:
        """What messages call it."""
        if self.mix:
            return "mixture of " + ", ".join(self.mix)
        paths = self.path if isinstance(self.path, tuple) else (self.path,)
        return ", ".join(str(path) if isinstance(path, str | Path) else f"<{type(path).__name__}>" for path in paths)

    @property
    def corpus(self) -> Kind | None:
        """Which corpus of Python's own it names, if any."""
        return CORPUS.get(self.path) if isinstance(self.path, str) else None

    def single(self) -> dict[str, Reading]:
        """The readings that it consists of, by name: those of its mixture, or itself."""
        shared = {name: getattr(self, name) for name in ("stream", "on_bad", "cache", "num_proc", "limit")}
        return {name: replace(part, **shared) for name, part in self.mix.items()} or {self.named: self}

    def source(self, *, seed: int = 0) -> Source:
        """Its rows; of a mixture, mixed."""
        if self.mix:
            sources = {name: part.source() for name, part in self.single().items()}
            weights = {name: part.weight for name, part in self.mix.items()}
            return Mixture(sources, weights, seed=seed, stop=self.stop)
        whole = self._whole()
        return FirstUnits(whole, self.limit) if self.stream and self.limit is not None else whole

    def _whole(self) -> Source:
        if self.corpus is not None:
            return python_corpus(self.corpus, megabytes=CORPUS_SIZE if self.limit is None else LIMITED_SIZE)
        paths = self.path if isinstance(self.path, tuple) else (self.path,)
        opened = [
            open_source(
                path,
                split=self.split,
                config=self.subset,
                streaming=self.stream,
                pattern=self.pattern,
                text_unit=self.text_unit,
            )
            for path in paths
        ]
        return opened[0] if len(opened) == 1 else Chain(opened, self.named)

    def reader(self, format: str | None = None) -> Reader:
        """What its rows mean. `format`: what they are where nothing is given. The rows of a mixture that is read as one
        must be of one format."""
        first = next(iter(self.mix.values()), self)
        return Reader(first.format or format, columns=first.columns, images=first.images)

    def settled(self, source: Source | None = None, format: str | None = None) -> Reader:
        """The same, whose first rows have shown what they are."""
        reader = self.reader(format)
        reader.settle(source or self.source())
        return reader


OF_ONE = ("path", "format", "columns", "images", "split", "subset", "pattern", "text_unit", "weight")
"""Settings of a single reading; the others are of all readings of a mixture together."""
