"""The one place where what a reader of files may throw becomes an error of ours.

A folder or file from elsewhere can hold anything, and each library that reads it throws errors of its own: a number of
5,000 digits, brackets nested too deeply, a panic in Rust. Whoever reads such files does it inside `reading`, and JSON
through `json_of` or `read_json`. This module does not know what the files mean.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from vertebra.errors import CheckpointError, VertebraError

LONGEST = 300
"""Characters of a library's own message that ours repeats."""


@contextmanager
def reading(
    what: str,
    advice: str = "copy or save it again",
    *,
    error: type[VertebraError] = CheckpointError,
    passing: tuple[type[Exception], ...] = (),
) -> Iterator[None]:
    """Around a foreign reader: whatever it throws becomes `what (reason); advice`. Our own errors pass, and those in
    `passing`, for which the caller has better words."""
    try:
        yield
    except Exception as thrown:  # whatever a foreign reader throws: that is what this is for
        if isinstance(thrown, (VertebraError, *passing)):
            raise
        raise error(f"{what} ({reason(thrown)}); {advice}") from thrown
    except BaseException as thrown:
        # a panic in a library written in Rust is no `Exception`; an interrupt or an exit is not ours to stop
        if type(thrown).__name__ != "PanicException":
            raise
        raise error(f"{what} ({reason(thrown)}); {advice}") from thrown


def reason(thrown: BaseException) -> str:
    """A foreign error in one line of bounded length."""
    if isinstance(thrown, RecursionError):
        return "it is nested too deeply"
    if isinstance(thrown, MemoryError):
        return "it asks for more memory than there is"
    text = " ".join(str(thrown)[: 4 * LONGEST].split())
    name = type(thrown).__name__
    return f"{name}: {text[:LONGEST]}{'…' if len(text) > LONGEST else ''}" if text else name


def json_of(text: str | bytes) -> Any:
    """The value of a JSON text; every fault of it is a ValueError that says where or why."""
    try:
        return json.loads(text.decode("utf-8-sig") if isinstance(text, bytes) else text)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise ValueError(why_no_json(error)) from None


def why_no_json(error: ValueError | RecursionError) -> str:
    """In words for whoever wrote the file: the interpreter's own advise programmers."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8 text: {error.reason} at byte {error.start}"
    return "it holds a number of thousands of digits"


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds."""
    try:
        data = json_of(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"`{path}` cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise CheckpointError(f"`{path}` is not valid JSON ({error}); the file is damaged or incomplete") from error
    return as_object(data, f"`{path}`")


def as_object(data: Any, what: str) -> dict[str, Any]:
    """A value that must be an object with named entries."""
    if not isinstance(data, dict):
        raise CheckpointError(f"{what} holds a {type(data).__name__}; expected an object with named entries")
    return data


def inside(name: Any, index: Path) -> str:
    """A file name that `index` gives for a file beside it; one that leads out of the folder is refused, unread."""
    if not isinstance(name, str) or not name or len(name) > 255 or "\0" in name:
        raise CheckpointError(f"`{index}` names a file {name!r:.80}; expected the name of a file beside it")
    if any(
        path.is_absolute() or path.drive or ".." in path.parts for path in (PurePosixPath(name), PureWindowsPath(name))
    ):
        raise CheckpointError(
            f"`{index}` names `{name}`, which lies outside its folder; it is not read. Expected the name of a file beside it"
        )
    return name
