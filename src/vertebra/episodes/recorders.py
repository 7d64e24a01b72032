"""Files of other recorders as episodes: .npz, HDF5 (h5py, extra `hdf5`), and RLDS, whose TFRecords hold one each.

An episode answers `array(name)`: [frames, …]. What the arrays mean, the schema says.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vertebra.episodes.wire import Feature, example, records
from vertebra.errors import DataError, MissingPartError, UnknownNameError
from vertebra.reading import reading

HDF5 = (".hdf5", ".h5", ".hdf")
STEPS = ("steps/is_first", "steps/is_last", "steps/reward", "steps/discount", "steps/is_terminal")
"""What every step of RLDS has once."""


@dataclass(frozen=True)
class Recorded:
    """One episode of a file: its entries by name, and texts that stand beside them."""

    where: str
    entries: Mapping[str, Any]
    texts: Mapping[str, Any]

    def array(self, name: str) -> Any:
        """[frames, …], or a list of encoded images."""
        if name not in self.entries:
            raise UnknownNameError(f"entry of {self.where}:", name, self.entries)
        value = self.entries[name]
        return value if isinstance(value, list) else np.asarray(value[()] if hasattr(value, "id") else value)

    def text(self, name: str) -> str:
        """A sentence: an attribute, or the first of an entry."""
        value = self.texts[name] if name in self.texts else self.array(name)
        while isinstance(value, list | np.ndarray):
            value = np.asarray(value).reshape(-1)[0] if isinstance(value, np.ndarray) else value[0]
        return value.decode() if isinstance(value, bytes) else str(value)


def recorded(path: Path, groups: str | None) -> Iterator[Recorded]:
    """The episodes of a file, by its ending."""
    if path.suffix == ".npz":
        yield from _of_npz(path)
    elif path.suffix in HDF5:
        yield from _of_hdf5(path, groups)
    elif "tfrecord" in path.name:
        yield from _of_tfrecord(path)
    else:
        raise DataError(f"`{path}` is none of .npz, {', '.join(HDF5)} and TFRecord; name others away with `files`")


def _of_npz(path: Path) -> Iterator[Recorded]:
    with reading(f"`{path}` cannot be read", error=DataError), np.load(path, allow_pickle=False) as file:
        entries = {name: file[name] for name in file.files}
    yield Recorded(f"`{path}`", entries, {})


def _of_hdf5(path: Path, groups: str | None) -> Iterator[Recorded]:
    try:
        import h5py
    except ImportError:
        raise MissingPartError("reading HDF5", "h5py", "hdf5") from None
    with reading(f"`{path}` cannot be read", error=DataError):
        file = h5py.File(path, "r")
    with file:
        names = ["/"] if groups is None else _matching(file, groups)
        if not names:
            raise DataError(f"`{path}` has no group `{groups}`; it has {', '.join(sorted(file))[:200]}")
        for name in names:
            group, found = file[name], dict[str, Any]()

            def note(key: str, value: Any, found: dict[str, Any] = found) -> None:
                if hasattr(value, "shape"):
                    found[key] = value

            group.visititems(note)
            yield Recorded(f"`{path}`, {name}", found, {**dict(file.attrs), **dict(group.attrs)})


def _matching(file: Any, pattern: str) -> list[str]:
    """Groups whose path fits, `demo_2` before `demo_10`."""
    found: list[str] = []
    file.visit(lambda name: found.append(name) if not hasattr(file[name], "shape") and _fits(name, pattern) else None)
    return sorted(found, key=lambda name: (len(name), name))


def _fits(name: str, pattern: str) -> bool:
    return name.count("/") == pattern.strip("/").count("/") and fnmatch.fnmatchcase(name, pattern.strip("/"))


def _of_tfrecord(path: Path) -> Iterator[Recorded]:
    for number, data in enumerate(records(path)):
        where = f"`{path}`, record {number}"
        features = example(data, where)
        steps = _steps(features, where)
        yield Recorded(where, {name: _by_step(value, steps) for name, value in features.items()}, {})


def _steps(features: Mapping[str, Feature], where: str) -> int:
    counts = [len(features[name]) for name in STEPS if name in features and len(features[name])]
    lists = [len(value) for name, value in features.items() if isinstance(value, list) and name.startswith("steps/")]
    found = counts or lists
    if not found:
        raise DataError(
            f"{where} has no steps (steps/is_first, steps/reward …); expected an episode of RLDS. It has: "
            f"{', '.join(sorted(features))[:200]}"
        )
    return found[0]


def _by_step(value: Feature, steps: int) -> Any:
    """Numbers of all steps stand behind one another."""
    if isinstance(value, np.ndarray) and steps and len(value) % steps == 0:
        return value.reshape(steps, -1)
    return value
