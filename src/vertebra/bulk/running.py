"""`run_rows`: every row of a source answered into a folder, one file a shard, each whole or not there; what is there stays.

    OUT/run.json             model, weights, rows, settings: another run's folder is refused
    OUT/answers-00000.jsonl  {"row": 0, "id"?, "answer": …, "stop_reason": …, "tokens": …} or {"row", "error"}; one a row
                             of a document {"row", "answer": values, "fields": with places, …}

Who answers (`here`, or `spread.over_ray`) changes nothing in the files: a shard's answers depend on its rows alone.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vertebra.backbone.registry import require_name
from vertebra.backbone.source import left_by_run
from vertebra.bulk.answering import Answerer, Shard, shards
from vertebra.bulk.settings import BulkSettings
from vertebra.data.read.open import open_source
from vertebra.data.read.rows import Source
from vertebra.errors import ConfigError
from vertebra.folders import require_free, state_of, write_file
from vertebra.interop.load import load

RUN = "run.json"


@dataclass(frozen=True, kw_only=True)
class Work:
    """What an answering process needs to know: names, and data that can be sent."""

    model: str
    data: str
    out: Path
    settings: BulkSettings
    options: dict[str, Any]
    """Of `load`."""

    def answerer(self) -> Answerer:
        return Answerer(load(self.model, **self.options), open_source(self.data), self.settings)


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What became of all rows."""

    rows: int
    errors: int
    tokens: int
    files: tuple[Path, ...]


def here(work: Work, missing: list[Shard]) -> Iterable[Shard]:
    """Shards, as they are answered in this process."""
    answerer = work.answerer()
    for shard in missing:
        write_shard(work.out, shard, answerer.answer(shard))
        yield shard


def run_rows(
    model: str,
    data: str | Path,
    out: str | Path,
    settings: BulkSettings | None = None,
    *,
    spread: Callable[[Work, list[Shard]], Iterable[Shard]] | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Ran:
    """Answer every row of `data` (whatever `open_source` takes) with a model, into the folder `out`.

    A run that was stopped goes on where it was. `spread`: who answers instead of this process, as
    `vertebra.bulk.over_ray()`.
    `progress(done, all)` counts rows. `options`: those of `vertebra.load`.
    """
    require_name(model)
    settings, folder = settings or BulkSettings(), Path(out)
    source = open_source(str(data))
    units = _units(source)
    identity = _identity(model, source, units, settings)
    _require_same(folder, identity)
    planned = shards(units, settings.shard)
    missing = [shard for shard in planned if not file_of(folder, shard).is_file()]
    done = units - sum(shard.count for shard in missing)
    if not (folder / RUN).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_file(folder / RUN, json.dumps(identity, indent=1) + "\n")
    if progress is not None:
        progress(done, units)
    if missing:
        work = Work(
            model=_whole(model), data=_whole(str(data)), out=folder.absolute(), settings=settings, options=options
        )
        for shard in (spread or here)(work, missing):
            done += shard.count
            if progress is not None:
                progress(done, units)
    return _counted([file_of(folder, shard) for shard in planned])


def file_of(folder: Path, shard: Shard) -> Path:
    """Where the answers of a shard stand."""
    return folder / f"answers-{shard.number:05d}.jsonl"


def write_shard(folder: Path, shard: Shard, entries: list[dict[str, Any]]) -> None:
    """A shard's answers, whole or not at all."""
    lines = [json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries]
    write_file(file_of(folder, shard), "".join(lines))


def _whole(name: str) -> str:
    """A path here, from wherever it is read; any other name as it is."""
    here = os.path.expanduser(name)
    return os.path.abspath(here) if os.path.exists(here) or glob.has_magic(here) else name


def _units(source: Source) -> int:
    known = source.units()
    return sum(1 for _ in source.raw()) if known is None else known


def _identity(model: str, source: Source, units: int, settings: BulkSettings) -> dict[str, Any]:
    """What the answers depend on."""
    folder = Path(left_by_run(model)).expanduser()
    weights = state_of(folder) if folder.is_dir() else None
    made = {
        "model": model,
        "weights": weights,
        "data": source.fingerprint(),
        "rows": units,
        "settings": settings.to_json(),
    }
    return dict(json.loads(json.dumps(made)))


def _require_same(folder: Path, identity: dict[str, Any]) -> None:
    path = folder / RUN
    if not path.is_file():
        require_free(folder, overwrite=False)
        return
    there = json.loads(path.read_text(encoding="utf-8"))
    differ = [f"{name}: there {there.get(name)!r:.80}, now {value!r:.80}" for name, value in identity.items()
              if there.get(name) != value]  # fmt: skip
    if differ:
        raise ConfigError(
            f"`{folder}` holds another run ({'; '.join(differ)}). Name another folder, or delete that one"
        )


def _counted(files: list[Path]) -> Ran:
    rows = errors = tokens = 0
    for path in files:
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                entry = json.loads(line)
                rows, errors, tokens = rows + 1, errors + ("error" in entry), tokens + entry.get("tokens", 0)
    return Ran(rows=rows, errors=errors, tokens=tokens, files=tuple(files))
