"""Facts of a model that were read off it once, kept in the user's cache: to build its structure takes torch and seconds.

A file's name holds a hash of all that decides the facts: the model's small files, our code, and the libraries. Whatever
changes, the old file is never met again, and the facts are read off anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import vertebra

_LIBRARIES = ("torch", "transformers", "tokenizers")
_LARGE = 64 * 2**20
"""Bytes above which a file counts by its size and time: no tokenizer is larger, weights are."""


def remembered(model: str, make: Callable[[], dict[str, Any]], *, token: str | None = None) -> dict[str, Any]:
    """The facts of a model as plain data: from the cache, or made and kept."""
    from vertebra.backbone.registry import require_name, row_of
    from vertebra.backbone.source import find

    require_name(model)
    row = row_of(model)
    folder = find(row.hub if row is not None else model, token=token).folder
    with contextlib.suppress(OSError, ValueError):  # none yet, or damaged: made anew
        found = json.loads(_file(model, folder).read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
    facts = make()
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time alone
        _keep(_file(model, folder), facts)  # named now: files of a hub's model may only have come with it
    return facts


def _file(model: str, folder: Path) -> Path:
    from vertebra.backbone.tiny.write import cache_folder

    digest = hashlib.sha256(" ".join([model, *(f"{name} {version(name)}" for name in _LIBRARIES)]).encode())
    for path in sorted(Path(vertebra.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    for path in sorted(folder.iterdir()):
        about = path.stat()
        digest.update(f"{path.name} {about.st_size} ".encode())
        if about.st_size > _LARGE:
            digest.update(str(about.st_mtime_ns).encode())
        elif path.is_file() and path.suffix != ".safetensors":
            digest.update(path.read_bytes())
    return cache_folder() / "info" / f"{digest.hexdigest()[:32]}.json"


def _keep(file: Path, facts: dict[str, Any]) -> None:
    """Whole or not at all: two commands may keep the same facts at once."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")
    part.replace(file)
