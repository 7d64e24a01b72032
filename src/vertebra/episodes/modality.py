"""GR00T's `meta/modality.json`: names for slices of the numbers, for cameras, and for the columns that hold sentences.

    {"state":  {"left_arm": {"start": 0, "end": 7, "original_key": "observation.state"}},
     "action": {"left_arm": {"start": 0, "end": 7}},
     "video":  {"ego": {"original_key": "observation.images.ego"}},
     "annotation": {"human.task_description": {}}}

Its names are written with what they are of: `state.left_arm`, `video.ego`, `annotation.human.task_description`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vertebra.episodes.facts import Info, Numbers, read_object
from vertebra.errors import DataError, did_you_mean

COLUMNS = {"state": "observation.state", "action": "action"}
"""Which column a slice is of, where it does not say."""


@dataclass(frozen=True)
class Modality:
    numbers: Mapping[str, Numbers] = field(default_factory=dict)
    cameras: Mapping[str, str] = field(default_factory=dict)
    """Their names, and the keys that info.json has."""
    sentences: Mapping[str, str] = field(default_factory=dict)
    """Names of annotations, and the columns with the number of a task."""


def read_modality(folder: Path, info: Info) -> Modality:
    """What the file says, or nothing where there is none; all faults come in one error."""
    path = folder / "meta" / "modality.json"
    if not path.is_file():
        return Modality()
    given = read_object(path)
    faults: list[str] = []
    numbers = {
        f"{kind}.{name}": part
        for kind in COLUMNS
        for name, entry in _entries(given, kind)
        if (part := _slice(kind, name, entry, info, faults)) is not None
    }
    cameras = {f"video.{name}": str(entry.get("original_key") or name) for name, entry in _entries(given, "video")}
    faults += [
        f"`{name}` is the camera `{key}`, which info.json does not have.{did_you_mean(key, info.cameras)}"
        for name, key in cameras.items()
        if key not in info.cameras
    ]
    if faults:
        raise DataError(f"`{path}` does not fit the set: {'; '.join(faults)}")
    sentences = {
        f"annotation.{name}": str(entry.get("original_key") or f"annotation.{name}")
        for name, entry in _entries(given, "annotation")
    }
    return Modality(numbers, cameras, sentences)


def _entries(given: Mapping[str, Any], kind: str) -> list[tuple[str, Mapping[str, Any]]]:
    part = given.get(kind)
    if not isinstance(part, Mapping):
        return []
    return [(str(name), entry if isinstance(entry, Mapping) else {}) for name, entry in part.items()]


def _slice(kind: str, name: str, entry: Mapping[str, Any], info: Info, faults: list[str]) -> Numbers | None:
    column = entry.get("original_key") or COLUMNS[kind]
    if column not in info.numbers:
        faults.append(
            f"`{kind}.{name}` is of `{column}`.{did_you_mean(str(column), info.numbers)} The set has no such column"
        )
        return None
    whole = info.numbers[column]
    size = whole.shape[0] if whole.shape else 1
    start, end = entry.get("start", 0), entry.get("end", size)
    if not isinstance(start, int) or not isinstance(end, int) or not 0 <= start < end <= size:
        faults.append(f"`{kind}.{name}` is {start!r:.20} to {end!r:.20} of `{column}`, which has {size} numbers")
        return None
    return Numbers(whole.dtype, (end - start,), whole.names[start:end], column, (start, end))
