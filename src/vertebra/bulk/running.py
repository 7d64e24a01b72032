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
from vertebra.decode.settings import settings_of
from vertebra.errors import ConfigError, DataError
from vertebra.folders import require_free, state_of, write_file
from vertebra.interop.load import load
from vertebra.reading import json_of, read_json
from vertebra.training.lock import LOCK, only_locked, only_writer

RUN = "run.json"
ELSEWHERE = ("hf_token", "device", "attn")
"""Options of `load` that a run may go on with otherwise: they say where and by which kernel, not what is computed."""
NOTHING: dict[str, Any] = {"options": {}}
"""What a run recorded that knew no such entry."""


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
    _require_decodable(settings)
    source = open_source(str(data))
    units = _units(source)
    identity = _identity(model, source, units, settings, options)
    _require_same(folder, identity)
    planned = shards(units, settings.shard)
    work = Work(model=_whole(model), data=_whole(str(data)), out=folder.absolute(), settings=settings, options=options)
    with only_writer(folder):
        if (folder / RUN).is_file():  # another may have begun since
            _require_same(folder, identity)
        missing = [shard for shard in planned if not file_of(folder, shard).is_file()]
        done = units - sum(shard.count for shard in missing)
        if not _begun(folder):
            write_file(folder / RUN, json.dumps(identity, indent=1) + "\n")
        if progress is not None:
            progress(done, units)
        for shard in (spread or here)(work, missing) if missing else ():
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


def _require_decodable(settings: BulkSettings) -> None:
    """A setting that is wrong for every row is one error, and not an error a row."""
    seed = settings.decoding.get("seed")
    if seed is not None and not isinstance(seed, int):
        raise ConfigError(f"seed is {seed!r:.60}; expected one whole number, to which each row adds its own")
    decoding = settings_of(**settings.decoding)
    if seed is not None and not decoding.samples:
        raise ConfigError("a seed would have no effect, for decoding is greedy; leave it out, or sample")
    if decoding.num_return_sequences != 1:
        raise ConfigError("num_return_sequences: a row has one answer here; leave it out")


def _identity(
    model: str, source: Source, units: int, settings: BulkSettings, options: dict[str, Any]
) -> dict[str, Any]:
    """What the answers depend on."""
    changing = {name: value for name, value in options.items() if name not in ELSEWHERE and value is not None}
    made = {
        "model": model,
        "weights": _weights(left_by_run(model)),
        "data": source.fingerprint(),
        "rows": units,
        "settings": settings.to_json(),
        "options": changing,
        "base_weights": _weights(changing["base"]) if "base" in changing else None,
    }
    return dict(json.loads(json.dumps(made, default=str)))


def _weights(name: str | Path) -> str | None:
    folder = Path(name).expanduser()
    return state_of(folder) if folder.is_dir() else None


def _begun(folder: Path) -> bool:
    """Whether answers may be there. A run that ended before its first (a name mistyped, say) binds nobody."""
    return (folder / RUN).is_file() and set(os.listdir(folder)) - {RUN, LOCK} != set()


def _require_same(folder: Path, identity: dict[str, Any]) -> None:
    if not (folder / RUN).is_file():
        if not only_locked(folder):
            require_free(folder, overwrite=None)
        return
    if not _begun(folder):
        return
    there = read_json(folder / RUN)
    differ = [f"{name}: there {there.get(name)!r:.80}, now {value!r:.80}" for name, value in identity.items()
              if there.get(name, NOTHING.get(name)) != value]  # fmt: skip
    if differ:
        raise ConfigError(
            f"`{folder}` holds another run ({'; '.join(differ)}). Name another folder, or delete that one"
        )


def _counted(files: list[Path]) -> Ran:
    rows = errors = tokens = 0
    for path in files:
        with open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                entry = _entry(line, path, number)
                rows, errors, tokens = rows + 1, errors + ("error" in entry), tokens + entry.get("tokens", 0)
    return Ran(rows=rows, errors=errors, tokens=tokens, files=tuple(files))


def _entry(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        entry = json_of(line)
    except ValueError:
        entry = None
    if not isinstance(entry, dict):
        raise DataError(f"{path}:{number} is no answer of a run; delete that file, and the same command makes it again")
    return entry
