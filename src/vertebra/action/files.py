"""Statistics in files, whoever wrote them, as one mapping of data sets.

    dataset_statistics.json, norm_stats of a config.json    OpenVLA's: by data set
    dataset_statistics_<sha256>.json                        OpenVLA's cache: one data set, without its name or a mask
    stats.json                                              LeRobot's: `action` and `observation.state` (an envelope)
    norm_stats.json                                         openpi's: `actions` and `state`
    vertebra.json                                           a model of ours: those that it was trained with

What OpenVLA wrote stays as it was written, field for field. It knows files, and no models.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vertebra.action.record import POLICY
from vertebra.action.statistics import DatasetStatistics
from vertebra.errors import DataError
from vertebra.reading import read_json

NAMES = ("dataset_statistics.json", "meta/stats.json", "norm_stats.json", "vertebra.json", "config.json")
"""What is looked for in a folder, in this order."""
_PARTS = {"observation.state": "proprio", "state": "proprio", "actions": "action", "action": "action"}


def read_statistics(path: str | Path, *, key: str | None = None) -> dict[str, dict[str, Any]]:
    """{data set: statistics} of a file, or of the first of the known files in a folder; every entry is checked.

    `key`: the name of a data set whose file does not name it; of a file that names several, the one to take.
    """
    file = _file(Path(path).expanduser())
    found, single = _entries(read_json(file), file)
    if single is not None:
        if key is None:
            raise DataError(f"`{file}` holds one data set without its name; give it a name with --key (key=…)")
        found = {key: single}
    elif key is not None:
        if key not in found:
            raise DataError(f"`{file}` has no data set `{key}`; it has {', '.join(sorted(found))}")
        found = {key: found[key]}
    for name, entry in found.items():
        DatasetStatistics.of(entry, name)
    return found


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in NAMES:
        if (path / name).is_file():
            return path / name
    raise DataError(f"`{path}` holds none of {', '.join(NAMES)}; name the file with the statistics")


def _entries(tree: dict[str, Any], file: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """(entries by name, or the only entry without a name)."""
    ours = tree.get("record")
    if isinstance(ours, Mapping) and isinstance(ours.get(POLICY), Mapping):
        tree = dict(ours[POLICY].get("statistics") or {})
        if not tree:
            raise DataError(f"the model of `{file}` has no statistics")
    elif isinstance(tree.get("norm_stats"), Mapping):
        tree = dict(tree["norm_stats"])
    single = _single(tree)
    if single is not None:
        return {}, single
    named = {name: entry for name, entry in tree.items() if isinstance(entry, Mapping) and "action" in entry}
    if not named or len(named) < len(tree):
        other = sorted(set(tree) - set(named))[:6]
        raise DataError(
            f"`{file}` holds no statistics that are known here (its entries are {other or 'none'}); expected OpenVLA's "
            "{name: {action: {mean, std, min, max, q01, q99}}}, LeRobot's stats.json or openpi's norm_stats.json"
        )
    return named, None


def _single(tree: Mapping[str, Any]) -> dict[str, Any] | None:
    """One data set, by the names that its writer has for the two vectors."""
    present = {name: part for name, part in _PARTS.items() if isinstance(tree.get(name), Mapping)}
    if "action" not in present.values() or any("action" in tree[name] for name in present):
        return None
    made: dict[str, Any] = {part: dict(tree[name]) for name, part in present.items()}
    for name in ("num_transitions", "num_trajectories"):
        if name in tree:
            made[name] = tree[name]
    if "observation.state" in present or "count" in made["action"]:
        made["quantiles"] = "envelope"  # LeRobot's: the outermost of its episodes
    return made
