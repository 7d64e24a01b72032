"""Sources that are no files: Hugging Face datasets (held, on disk, streamed, by hub name) and Python iterables.

A one-shot iterator is accepted and remembered: asked for rows a second time, it is an error and not an empty epoch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from vertebra.data.read.rows import Fault, Raw, Row, Source, digest
from vertebra.errors import DataError, MissingPartError, NetworkError, UnknownNameError
from vertebra.reading import reading

READ = 1000
"""Rows taken from a held dataset at a time."""

STREAMED = 100
"""… and from a streamed one, whose first rows one waits for."""


class Items(Source):
    """A Python list of rows: dicts, or plain strings for text."""

    def __init__(self, items: Sequence[Any], name: str = "<list>") -> None:
        self.items, self.name = items, name

    def raw(self, start: int = 0) -> Iterator[Raw]:
        for index in range(start, len(self.items)):
            yield Raw(index, index + 1, self.items[index])

    def parse(self, raw: Raw) -> Row | Fault | None:
        return _row(raw, self.name)

    def units(self) -> int | None:
        return len(self.items)

    def fingerprint(self) -> str | None:
        try:
            return digest("items", json.dumps(list(self.items), ensure_ascii=False, sort_keys=True))
        except TypeError:
            return None  # rows that hold images or arrays: nothing is cached from them


class Stream(Source):
    """A Python iterable of unknown length: a function that returns a fresh iterator, or any iterable."""

    def __init__(self, make: Callable[[], Iterable[Any]] | Iterable[Any], name: str = "<stream>") -> None:
        self.make, self.name = make, name
        self._used = False

    def raw(self, start: int = 0) -> Iterator[Raw]:
        iterable = self.make() if callable(self.make) else self.make
        if iter(iterable) is iterable and not callable(self.make):
            if self._used:
                raise DataError(
                    f"{self.name} is an iterator that was already read: it has no second epoch and cannot be resumed. "
                    "Pass a list, or a function that returns a new iterator."
                )
            self._used = True
        for index, item in enumerate(iterable):
            if index >= start:
                yield Raw(index, index + 1, item)

    def parse(self, raw: Raw) -> Row | Fault | None:
        return _row(raw, self.name)

    def units(self) -> int | None:
        return None

    def fingerprint(self) -> str | None:
        return None


class HeldDataset(Source):
    """A `datasets.Dataset`, in memory or mapped from disk."""

    def __init__(self, dataset: Any, name: str = "<dataset>") -> None:
        self.dataset, self.name = dataset.with_format(None), name

    def raw(self, start: int = 0) -> Iterator[Raw]:
        for first in range(start, len(self.dataset), READ):
            columns = self.dataset[first : first + READ]
            names = list(columns)
            rows = zip(*columns.values(), strict=True) if names else iter([])
            for index, values in enumerate(rows, first):
                yield Raw(index, index + 1, dict(zip(names, values, strict=True)))

    def parse(self, raw: Raw) -> Row | Fault | None:
        return _row(raw, self.name)

    def units(self) -> int | None:
        return len(self.dataset)

    def fingerprint(self) -> str | None:
        return digest("dataset", self.dataset._fingerprint)

    def label_names(self) -> dict[str, list[str]]:
        return _label_names(self.dataset)


class StreamedDataset(Source):
    """A `datasets.IterableDataset`."""

    def __init__(self, dataset: Any, name: str = "<streamed dataset>") -> None:
        self.dataset, self.name = dataset, name

    def raw(self, start: int = 0) -> Iterator[Raw]:
        rows = self.dataset.skip(start) if start else self.dataset
        number = start
        # In batches, for a reason: row by row, the dataset would deal its shards out to torch's workers by itself.
        for columns in rows.iter(batch_size=STREAMED):
            for values in zip(*columns.values(), strict=True):
                yield Raw(number, number + 1, dict(zip(columns, values, strict=True)))
                number += 1

    def parse(self, raw: Raw) -> Row | Fault | None:
        return _row(raw, self.name)

    def units(self) -> int | None:
        return None

    def fingerprint(self) -> str | None:
        return None

    def at_epoch(self, epoch: int, *, seed: int = 0, shuffle: bool = True) -> Source:
        """A streamed dataset that was shuffled by its own method shuffles anew."""
        self.dataset.set_epoch(epoch)
        return self

    def label_names(self) -> dict[str, list[str]]:
        return _label_names(self.dataset)


def from_dataset(dataset: Any, *, name: str, split: str | None) -> Source:
    """A source of any of the four kinds of Hugging Face dataset."""
    kind = type(dataset).__name__
    if kind in ("DatasetDict", "IterableDatasetDict"):
        splits = list(dataset)
        if split is None and len(splits) > 1:
            raise DataError(f"{name} has the splits {splits}; say which: split={splits[0]!r}")
        if split is not None and split not in dataset:
            raise UnknownNameError("split", split, splits)
        return from_dataset(dataset[split or splits[0]], name=f"{name}[{split or splits[0]}]", split=None)
    if kind == "IterableDataset":
        return StreamedDataset(dataset, name)
    return HeldDataset(dataset, name)


def is_dataset(value: object) -> bool:
    """Whether this is a Hugging Face dataset, found out without importing the library."""
    return type(value).__module__.split(".")[0] == "datasets"


def load_hub(name: str, *, config: str | None, split: str | None, streaming: bool) -> Source:
    """A dataset by its hub name, or from the hub's cache when offline."""
    datasets = datasets_library(f"loading the dataset {name}")
    try:
        loaded = datasets.load_dataset(name, config, split=split, streaming=streaming)
    except (ConnectionError, datasets.exceptions.DatasetNotFoundError) as error:
        raise NetworkError(
            f"the dataset `{name}` is neither a path here nor to be had from the hub: {error}. "
            "Check the name and the network, or pass a file or folder."
        ) from error
    except ValueError as error:  # an unknown config or split; the library's message names the valid ones
        raise DataError(f"the dataset `{name}` cannot be loaded: {error}") from error
    return from_dataset(loaded, name=name, split=split)


def load_saved(path: str, *, split: str | None) -> Source:
    """A dataset that `save_to_disk` wrote."""
    datasets = datasets_library(f"reading {path}")
    with reading(f"the dataset in {path} cannot be read", "save it again", error=DataError):
        loaded = datasets.load_from_disk(path)
    return from_dataset(loaded, name=path, split=split)


def datasets_library(what: str) -> Any:
    """The `datasets` module, which is an optional part."""
    try:
        import datasets
    except ImportError:
        raise MissingPartError(what, "datasets", "train") from None
    return datasets


def _label_names(dataset: Any) -> dict[str, list[str]]:
    features = (dataset.features or {}).items()
    return {name: list(kind.names) for name, kind in features if type(kind).__name__ == "ClassLabel"}


def _row(raw: Raw, name: str) -> Row | Fault:
    if isinstance(raw.data, str):
        return Row({"text": raw.data}, name, raw.line)
    if isinstance(raw.data, dict):
        return Row(raw.data, name, raw.line)
    return Fault(name, raw.line, f"not a row: expected a dict or a string, got a {type(raw.data).__name__}")
