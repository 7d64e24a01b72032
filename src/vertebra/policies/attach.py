"""Statistics for a model folder that has none, or other ones: its record is written anew, and nothing else is touched.

    vertebra.json                      with the statistics added, written whole or not at all
    vertebra.before-statistics.json    the record as it was before the first time

Weights, config and tokenizer stay as they are, byte for byte; nothing is loaded. It knows files, and no models.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vertebra import config
from vertebra.action.record import POLICY, ActionRecord
from vertebra.action.statistics import DatasetStatistics
from vertebra.backbone.source import RECORD, left_by_run
from vertebra.errors import CheckpointError, ConfigError, DataError
from vertebra.folders import write_file
from vertebra.reading import read_json

BEFORE = "vertebra.before-statistics.json"


def recorded(folder: str | Path) -> ActionRecord:
    """How the model of a folder, or of a run, acts."""
    file, tree = _record_of(folder)
    return ActionRecord.of(tree.get("record") or {}, where=f"`{file.parent}`")


def attach_statistics(
    folder: str | Path,
    statistics: Mapping[str, Mapping[str, Any]],
    *,
    record: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> ActionRecord:
    """Add {data set: statistics} to a model folder, and give the record as it is now.

    `record`: fields of `ActionRecord`, for an old folder that does not record how it acts. A data set of the same name is
    replaced with `overwrite` alone.
    """
    file, tree = _record_of(folder)
    own = dict(tree.get("record") or {})
    if POLICY in own and record is not None:
        raise ConfigError(f"`{file.parent}` records how it acts already; leave `record` out")
    if record is not None:
        own[POLICY] = config.build(ActionRecord, record, where="the action record").to_json()
    before = ActionRecord.of(own, where=f"`{file.parent}`")
    _require_fit(before, statistics)
    same = [name for name in statistics if name in before.statistics and statistics[name] != before.statistics[name]]
    if same and not overwrite:
        raise ConfigError(
            f"`{file.parent}` has statistics of {', '.join(sorted(same))}, and others; have them replaced (--overwrite, "
            "overwrite=True), or give the new ones another name"
        )
    own[POLICY] = {**own[POLICY], "statistics": {**before.statistics, **{k: dict(v) for k, v in statistics.items()}}}
    after = ActionRecord.of(own)
    kept = file.with_name(BEFORE)
    if not kept.exists():
        write_file(kept, file.read_bytes())
    write_file(file, json.dumps({**tree, "record": own}, indent=1, ensure_ascii=False))
    return after


def _record_of(folder: str | Path) -> tuple[Path, dict[str, Any]]:
    where = Path(left_by_run(folder)).expanduser()
    file = where / RECORD
    if not where.is_dir():
        raise CheckpointError(f"there is no folder `{folder}`; name the one of a policy, or of a run")
    if not file.is_file():
        hint = "; import it first: vertebra import-openvla" if (where / "config.json").is_file() else ""
        raise CheckpointError(f"`{folder}` is no model folder of ours (no {RECORD}){hint}")
    return file, read_json(file)


def _require_fit(record: ActionRecord, statistics: Mapping[str, Mapping[str, Any]]) -> None:
    """Statistics of another robot would be used without a word."""
    faults = []
    for name, entry in statistics.items():
        read = DatasetStatistics.of(entry, name)
        if read.action.dims != record.dims:
            faults.append(f"`{name}` is of actions of {read.action.dims} numbers; this model makes {record.dims}")
        if record.proprio is not None and read.proprio is None:
            faults.append(f"`{name}` has no proprio; this model asks for {record.proprio} numbers")
        elif record.proprio is not None and read.proprio is not None and read.proprio.dims != record.proprio:
            faults.append(
                f"`{name}` is of proprio of {read.proprio.dims} numbers; this model asks for {record.proprio}"
            )
    if faults:
        raise DataError("these statistics are another robot's: " + "; ".join(faults))
