"""The files of documents that a name means: a file, all of a folder, those that fit a pattern, or several of these."""

from __future__ import annotations

from glob import glob
from pathlib import Path
from typing import Any

from vertebra.errors import DataError


def document_files(path: Any, pattern: str | None = None) -> list[Path]:
    """In the order of their names. `pattern`: which files of a folder; all but hidden ones by default."""
    found: list[Path] = []
    for one in path if isinstance(path, tuple | list) else [path]:
        where = Path(one).expanduser()
        if where.is_dir():
            found += sorted(file for file in where.glob(pattern or "**/*") if file.is_file() and file.name[0] != ".")
        elif where.is_file():
            found.append(where)
        elif matches := sorted(glob(str(where), recursive=True)):
            found += [Path(match) for match in matches]
        else:
            raise DataError(f"there is no file or folder `{one}`, and no file fits it as a pattern")
    return found
