"""Paths as commands take them: a name that is empty is a mistake (an unset variable, mostly) and not the current folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer


def _path(given: str | Path) -> Path:
    text = str(given)  # a default comes through here too, and is a path already
    if not text.strip():
        raise typer.BadParameter("the name is empty; `.` is the current folder")
    if "\0" in text:
        raise typer.BadParameter("the name holds NUL, which no file has")
    return Path(text)


PATH: dict[str, Any] = {"parser": _path, "metavar": "PATH"}
"""For every `typer.Option` and `typer.Argument` that is a path."""
