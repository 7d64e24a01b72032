"""Folders, and files, that appear whole or not at all.

Everything goes into a hidden sibling first, reaches the disk, and is renamed when it is complete: a reader never sees
half a checkpoint, a failure leaves nothing behind, and two processes that make the same one agree.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vertebra.errors import CheckpointError, shortened

PART = ".part"
"""How a file's name ends while it is being written."""
MODEL = ("config.json", "vertebra.json", "adapter_config.json")
"""A folder with one of these holds a model, whole or in parts."""


def require_free(
    folder: Path, *, overwrite: bool | None, reads: Iterable[str | Path] = (), holds: Sequence[str] = MODEL
) -> None:
    """Refuse a folder that would be mixed with, or lost; `reads`: what it is made from, which no `overwrite` gives away.

    `overwrite`: None where there is no such choice. `holds`: one of these files tells what may be replaced from the rest.
    """
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"`{folder}` is a file; expected the name of a folder")
    place = os.path.realpath(folder)
    for source in reads:
        if os.path.exists(source) and os.path.commonpath([place, os.path.realpath(source)]) == place:
            verb = "is" if os.path.realpath(source) == place else "holds"
            raise CheckpointError(
                f"`{folder}` {verb} `{source}`, which is read here and would be lost by being replaced; name another folder"
            )
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not overwrite:
        choice = "delete that one" if overwrite is None else "have it replaced (--overwrite, overwrite=True)"
        raise CheckpointError(f"`{folder}` exists and is not empty; name another folder, or {choice}")
    if not any((folder / name).is_file() for name in holds):
        there = ", ".join(sorted(path.name for path in folder.iterdir())[:3])
        raise CheckpointError(
            f"`{folder}` holds something else ({there}), and is not replaced: only a folder with {' or '.join(holds)} is. Name "
            "another folder, or delete that one"
        )


def require_place(folder: Path) -> None:
    """Refuse a folder that cannot be made or written to, by making one there and taking it away again: permissions alone
    do not tell (an administrator has all of them, and no file can be made in /proc)."""
    target = Path(os.path.abspath(folder))
    try:
        there = next(place for place in (target, *target.parents) if place.exists())
        os.rmdir(tempfile.mkdtemp(prefix=".vertebra.", dir=there))
    except OSError as error:
        raise CheckpointError(
            f"`{shortened(str(folder))}` cannot be written to: {os.strerror(error.errno or 0)}. Name a folder that can be "
            "made, or written to"
        ) from error


@contextmanager
def whole(folder: Path, *, replace: bool) -> Iterator[Path]:
    """A sibling of `folder` to write into, renamed when the block ends without an error. Without `replace`, whoever is first
    wins.

    A link stays: what it points to is written.
    """
    folder = Path(os.path.realpath(folder))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise CheckpointError(
            f"cannot write beside `{folder}`: {error}. Name a folder that you may write to."
        ) from error
    try:
        part.chmod(0o755)  # mkdtemp's folder is private to its user
        yield part
        _flush(part)
        _rename(part, folder, replace=replace)
        _sync(folder.parent)  # the new name itself
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_whole(folder: Path, fill: Callable[[Path], object], *, replace: bool) -> Path:
    """Let `fill` write into a sibling of `folder`, then rename it, as `whole` does."""
    with whole(folder, replace=replace) as part:
        fill(part)
    return Path(os.path.abspath(folder))


def write_file(path: Path, content: str | bytes) -> Path:
    """Write a file that readers see as it was or as it will be, and that a full disk or a kill leaves as it was."""
    whole = Path(os.path.realpath(path))
    part = whole.with_name(f".{whole.name}.{secrets.token_hex(4)}{PART}")
    try:
        try:
            with open(part, "xb") as file:
                # half a surrogate pair, which JSON can hold and UTF-8 cannot, is written as JSON escapes it
                file.write(content.encode(errors="backslashreplace") if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, whole)
        finally:
            part.unlink(missing_ok=True)
        _sync(whole.parent)
    except OSError as error:
        raise CheckpointError(
            f"`{path}` cannot be written: {error}. What was there is as it was; make room, or name a place that you may "
            "write to, and try again"
        ) from error
    return path


@contextmanager
def named_file(path: str | Path) -> Iterator[Path]:
    """The block writes the file that somebody named for a picture or a page; where it cannot, the error says so."""
    path = Path(path)
    try:
        yield path
    except OSError as error:
        raise CheckpointError(
            f"`{shortened(str(path))}` cannot be written: {error.strerror or error}; name a file in a folder that exists"
        ) from error


def state_of(folder: Path) -> str:
    """What tells whether the weights and settings in a folder are those of before: names, sizes, times of writing."""
    found = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".json"):
            with contextlib.suppress(FileNotFoundError):  # taken away since it was listed
                found.update(f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}\n".encode())
    return found.hexdigest()[:16]


def _flush(part: Path) -> None:
    """A rename may reach the disk before the bytes do; after a power cut that would be a whole folder of empty files."""
    for path in (*part.rglob("*"), part):
        _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _rename(part: Path, folder: Path, *, replace: bool) -> None:
    if replace and folder.is_dir():
        old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
        folder.rename(old)
        part.rename(folder)
        shutil.rmtree(old)
        return
    try:
        part.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
