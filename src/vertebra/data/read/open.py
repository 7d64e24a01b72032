"""`open_source`: whatever a user names as data, as a source of rows.

A path to a file or a folder, several of them, a pattern, a hub name, a Hugging Face dataset, a list, a function that
returns an iterator. The kind of a file follows from its suffix; nothing is read yet.
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vertebra import log
from vertebra.data.read.combined import Chain
from vertebra.data.read.compressed import COMPRESSED, MAX_LINE, inner_suffix
from vertebra.data.read.files import (
    CsvFile,
    JsonArray,
    JsonLines,
    ParquetFile,
    TextFile,
    TextUnit,
)
from vertebra.data.read.json_array import starts_with_array
from vertebra.data.read.rows import Source
from vertebra.data.read.tables import Items, Stream, from_dataset, is_dataset, load_hub, load_saved
from vertebra.errors import DataError, did_you_mean

TABLES = {
    ".jsonl": "JSON lines",
    ".ndjson": "JSON lines",
    ".json": "JSON",
    ".csv": "CSV",
    ".tsv": "CSV",
    ".parquet": "Parquet",
}
TEXTS = dict.fromkeys((".txt", ".text", ".md", ".rst", ".py", ".c", ".h", ".js", ".ts", ".html", ".tex"), "text")
KINDS = TABLES | TEXTS


def open_source(
    data: Any,
    *,
    split: str | None = None,
    config: str | None = None,
    streaming: bool = False,
    pattern: str | None = None,
    text_unit: TextUnit | None = None,
    max_line: int = MAX_LINE,
) -> Source:
    """A source of rows.

    data: a path, a folder, a glob pattern, a list of paths, a hub name (`owner/name`, or `hub:name`), a Hugging Face
    dataset, a list of rows, an iterable, or a function that returns an iterator.
    split, config, streaming: which part of a Hugging Face dataset, and whether it is held.
    pattern: which files of a folder (`*.py`, `**/*.jsonl`).
    text_unit: what one sample of plain text is: a `line` (the default for `.txt`), a `paragraph`, or the `file` (the
    default for code and markup).
    """
    if isinstance(data, Source):
        return data
    if is_dataset(data):
        return from_dataset(data, name=f"<{type(data).__name__}>", split=split)
    if isinstance(data, str | os.PathLike):
        text = os.fspath(data)
        if text.startswith("hub:"):
            return load_hub(text[4:], config=config, split=split, streaming=streaming)
        found = _paths(text, pattern)
        if found is None:
            return _saved_or_hub(text, config=config, split=split, streaming=streaming)
        sources = [_file(path, text_unit, max_line) for path in found]
        return sources[0] if len(sources) == 1 and os.path.isfile(text) else Chain(sources, text)
    if isinstance(data, Mapping):
        raise DataError("a mapping is no source; for several sources with weights make a `Mixture(…)` of it")
    if isinstance(data, Sequence):
        return _sequence(data, text_unit, max_line)
    if callable(data) or isinstance(data, Iterable):
        return Stream(data)
    raise DataError(f"cannot read rows from a {type(data).__name__}; expected a path, a dataset, a list or an iterable")


def _sequence(data: Sequence[Any], text_unit: TextUnit | None, max_line: int) -> Source:
    """Several paths, or a list of rows: paths exist."""
    if len(data) and all(isinstance(item, os.PathLike) for item in data):
        return Chain([_file(Path(item), text_unit, max_line) for item in data], f"<{len(data)} files>")
    if len(data) and all(isinstance(item, str) and os.path.isfile(item) for item in data[:100]):
        return Chain([_file(Path(item), text_unit, max_line) for item in data], f"<{len(data)} files>")
    return Items(data)


def _paths(text: str, pattern: str | None) -> list[Path] | None:
    """The files that a path names, sorted; None where it names no path here."""
    path = Path(text)
    if os.path.isfile(text):  # unlike Path.is_file it takes a text too long for a name
        return [path]
    if os.path.isdir(text):
        if (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():
            return None
        return _folder(path, pattern)
    if glob.has_magic(text):
        found = sorted(Path(name) for name in glob.glob(text, recursive=True) if Path(name).is_file())
        if not found:
            raise DataError(f"no file matches the pattern {text}")
        return found
    return None


def _folder(path: Path, pattern: str | None) -> list[Path]:
    """The readable files below a folder; they must be of one kind, or a pattern must choose."""
    files = sorted(file for file in path.glob(pattern or "**/*") if file.is_file() and not _hidden(file, path))
    known = [file for file in files if inner_suffix(file) in KINDS]
    if pattern and files and not known:
        raise DataError(f"{path}: no file of {pattern} has a known suffix; known are {' '.join(KINDS)}")
    if not known:
        raise DataError(f"the folder {path} holds no readable file; known suffixes are {' '.join(KINDS)}")
    kinds = Counter(KINDS[inner_suffix(file)] for file in known)
    if len(kinds) > 1:
        tables = [kind for kind in kinds if kind != "text"]
        # A README beside the tables is no data.
        if len(tables) > 1 or kinds["text"] > 3:
            raise DataError(f"the folder {path} holds several kinds of files ({_counted(kinds)}); choose by pattern=…")
        known = [file for file in known if KINDS[inner_suffix(file)] == tables[0]]
    left_out = len(files) - len(known)
    if left_out and not pattern:
        log.info(f"{path}: reading {len(known)} files, leaving {left_out} others aside")
    return known


def _saved_or_hub(text: str, *, config: str | None, split: str | None, streaming: bool) -> Source:
    """A dataset folder, or a hub name; and a good message where it is neither."""
    path = Path(text)
    if os.path.isdir(text):
        return load_saved(text, split=split)
    a_path = looks_like_path(text)
    if a_path or "/" not in text:
        parent = path.parent if os.path.isdir(path.parent) else None
        near = did_you_mean(path.name, [file.name for file in parent.iterdir()]) if parent else ""
        hub = "" if a_path else f" (A dataset of the hub is named `hub:{text}`.)"
        raise DataError(f"no such file or folder: {text}.{near}{hub}")
    return load_hub(text, config=config, split=split, streaming=streaming)


def looks_like_path(text: str) -> bool:
    """Whether a text that names nothing here was meant as a path, and not as a name of the hub."""
    return text.startswith((".", "/", "~")) or text.count("/") > 1 or inner_suffix(Path(text)) in KINDS


def _file(path: Path, text_unit: TextUnit | None, max_line: int) -> Source:
    suffix = inner_suffix(path)
    if not path.is_file():
        raise DataError(f"no such file: {path}")
    if suffix not in KINDS:
        raise DataError(
            f"{path}: unknown suffix `{suffix}`.{did_you_mean(suffix, KINDS)} Known: {' '.join(KINDS)}, each also with "
            f"{' '.join(COMPRESSED)}"
        )
    if suffix in (".csv", ".tsv"):
        return CsvFile(path, delimiter="\t" if suffix == ".tsv" else ",", max_line=max_line)
    if suffix == ".parquet":
        return ParquetFile(path, max_line=max_line)
    if suffix in TABLES:
        array = suffix == ".json" and starts_with_array(path)
        return JsonArray(path, max_line=max_line) if array else JsonLines(path, max_line=max_line)
    return TextFile(path, unit=text_unit or ("line" if suffix in (".txt", ".text") else "file"), max_line=max_line)


def _hidden(file: Path, root: Path) -> bool:
    return any(part.startswith(".") or part == "__pycache__" for part in file.relative_to(root).parts)


def _counted(kinds: Counter[str]) -> str:
    return ", ".join(f"{count} × {kind}" for kind, count in kinds.most_common())
