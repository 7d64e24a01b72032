"""What stands between a command and its terminal: encodings that lack a character, streams that are closed or full, and
errors of the system that a user can mend (a name too long, a folder that may not be written), as one message.

It knows streams and the system's error numbers; it does not know commands.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator

from vertebra.errors import ConfigError, VertebraError, shortened

_ERRORS = "vertebra.plain"
# How our own typographic characters read where an encoding lacks them; any other becomes its escape.
_PLAIN = {
    "→": "->", "►": ">", "≤": "<=", "≥": ">=", "×": "x", "…": "...", "–": "-", "—": "-", "─": "-", "━": "-", "│": "|",
    "·": ".", "█": "#", "▁": "_", "±": "+-",
}  # fmt: skip
_MENDED = {
    errno.ENAMETOOLONG: "shorten the name",
    errno.EACCES: "name another place, or get the right to it",
    errno.EPERM: "name another place, or get the right to it",
    errno.EROFS: "name a place that can be written to",
    errno.ENOSPC: "make room, or name another place",
    errno.EDQUOT: "make room, or name another place",
    errno.ENOTDIR: "a part of the name is a file; name a folder",
    errno.EISDIR: "it is a folder; name a file",
    errno.ENOENT: "name one that exists",
}


def prepare() -> None:
    """Make the standard streams such that every text can be written and any bytes can be read."""
    codecs.register_error(_ERRORS, _replaced)
    _open_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # what is no text is refused where it is used


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(_PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in missing), error.end


def _open_closed() -> None:
    """A closed stream (`>&-`) leads to nothing, as its user wants; left alone, the next file opened would get its number,
    and what is printed would be written into it."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is not None:
            continue
        opened = os.open(os.devnull, os.O_RDWR)
        if opened != number:
            os.dup2(opened, number)
            os.close(opened)
        setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))  # noqa: SIM115


def writes_all_characters() -> bool:
    """Whether standard output has an encoding for every text."""
    return (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "").startswith("utf")


@contextlib.contextmanager
def system_errors_as_ours() -> Iterator[None]:
    """What the system refuses becomes our message; a reader that leaves early (`| head`) ends the command quietly."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # here and not at exit, where its failure would be a traceback
    except VertebraError:
        raise
    except BrokenPipeError:
        _give_up(sys.stdout)
        sys.exit(1)
    except OSError as error:
        if error.errno is None:  # no error of the system, but some library's own
            raise
        if error.filename is None:
            _give_up(sys.stdout)
        raise ConfigError(_as_text(error)) from error


def _as_text(error: OSError) -> str:
    what = os.strerror(error.errno or 0)
    mended = _MENDED.get(error.errno or 0)
    if error.filename is None:  # a stream: standard output, or a file that is open already
        return f"the output is not whole: {what}" + (f"; {mended}" if mended else "")
    name = error.filename.decode(errors="replace") if isinstance(error.filename, bytes) else str(error.filename)
    return f"`{shortened(name)}`: {what}" + (f"; {mended}" if mended else "")


def _give_up(stream: object) -> None:
    """Lead a stream to nothing, so that what it still holds does not fail once more at exit."""
    with contextlib.suppress(OSError, AttributeError, ValueError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())  # type: ignore[attr-defined]
        os.close(nothing)


def print_error(text: str) -> None:
    """An error in red on standard error. Where that is full or gone nobody can read it; the exit code remains."""
    from rich.console import Console
    from rich.text import Text

    try:
        Console(stderr=True, highlight=False).print(Text(f"error: {text}", style="red"), soft_wrap=True)
    except OSError:
        _give_up(sys.stderr)
