"""One writer for a run's folder: a lock that dies with its holder, and a record of who that is.

The kernel's lock (`flock`) decides wherever the file system has one. Some of the network have none, or one that no other
machine sees; there the record decides: its holder touches it every few seconds, and who finds another machine's record
watches whether it is still touched. Clocks are never compared, for those of two machines differ.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vertebra import log
from vertebra.errors import CheckpointError, ConfigError

try:
    import fcntl
except ImportError:  # no such locks on this system: the record decides
    fcntl = None  # type: ignore[assignment]

LOCK = "run.lock"
BEAT = 4.0
"""Seconds between two touches of the record."""
PATIENCE = 5 * BEAT
"""Seconds that a record may lie still before its holder counts as dead."""
_TRIES = 100
"""How often a lock may vanish under our hands, given back by others, before we give up."""
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold a folder, made where it is missing; refuse one that another run holds. An empty one is removed again."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"`{folder}` is a file; name a folder with --out")
    missing = [place for place in (folder, *folder.absolute().parents) if not place.exists()]
    try:
        try:
            handle = _taken(folder / LOCK)
        except OSError as error:
            raise CheckpointError(
                f"`{folder}` cannot be written: {error}. Make room, or name a folder that you may write to (--out)"
            ) from error
        with _beating(handle):
            try:
                yield
            finally:
                _release(handle, folder / LOCK)
    finally:
        for place in missing:  # the deepest first
            with contextlib.suppress(OSError):  # it is used by now
                place.rmdir()


def only_locked(folder: Path) -> bool:
    """Whether a writer has just begun here, and has written nothing yet."""
    return folder.is_dir() and os.listdir(folder) == [LOCK]


def _taken(path: Path) -> int:
    """An open lock file that is ours alone, with our record in it."""
    for _ in range(_TRIES):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except (FileNotFoundError, FileExistsError):
            if path.parent.exists() and not path.parent.is_dir():
                raise
            continue  # who made the folder for nothing has just removed it: before it was opened, or while it was made
        try:
            locked = _flock(handle)
            if locked is False:
                raise _refusal(path, _record(handle))
            if not _is_at(handle, path):
                os.close(handle)
                continue  # its holder has just removed it
            other = _record(handle)
            if other and not (locked and other.get("machine") == machine()) and _lives(path, other):
                if _is_at(handle, path):
                    raise _refusal(path, other)
                os.close(handle)
                continue
            _write(handle)
            if not locked and not _is_still_ours(handle, path):
                raise _refusal(path, _record(handle))
            return handle
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(handle)
            raise
    raise _refusal(path, {})


def _flock(handle: int) -> bool | None:
    """Whether the kernel's lock is ours; None where the file system has none."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


def _is_at(handle: int, path: Path) -> bool:
    """Whether an open file is the one under this name: another one may have taken its place."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def machine() -> str:
    """What tells one kernel from another, for a lock counts among the processes of one: names of hosts may be equal."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return socket.gethostname()


def _write(handle: int) -> None:
    record = {
        "host": socket.gethostname(),
        "machine": machine(),
        "pid": os.getpid(),
        "started": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
    }
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(record).encode(), 0)


def _record(handle: int) -> dict[str, Any]:
    """Who holds it, as far as that can be read."""
    try:
        found = json.loads(os.pread(handle, 4096, 0))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _lives(path: Path, other: dict[str, Any]) -> bool:
    """Whether somebody touches the record while we watch; one that vanishes has been given back."""
    log.info(f"`{path.parent}` was last written by {_who(other)}; looking whether it still is ({PATIENCE:.0f} s)")
    first, limit = _touched(path), time.monotonic() + PATIENCE
    while time.monotonic() < limit:
        time.sleep(BEAT / 4)
        if _touched(path) != first:
            return True
    return False


def _touched(path: Path) -> tuple[int, int] | None:
    """Through a file that is opened anew: what a network's client remembers of it is then asked for again."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        found = os.fstat(handle)
        return found.st_mtime_ns, found.st_ino
    finally:
        os.close(handle)


def _is_still_ours(handle: int, path: Path) -> bool:
    """Without a lock of the kernel two may have written their record at once: the later one has it."""
    time.sleep(BEAT / 4)
    found = _record(handle)
    return _is_at(handle, path) and (found.get("machine"), found.get("pid")) == (machine(), os.getpid())


@contextlib.contextmanager
def _beating(handle: int) -> Iterator[None]:
    """Touch the record meanwhile, and keep its file from processes that are forked."""
    gone = threading.Event()

    def beat() -> None:
        while not gone.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(handle)

    heart = threading.Thread(target=beat, name=LOCK, daemon=True)
    _handles.add(handle)
    heart.start()
    try:
        yield
    finally:
        gone.set()
        heart.join()  # or it could touch what has this number by then
        _handles.discard(handle)
        os.close(handle)


def _release(handle: int, path: Path) -> None:
    """Removed while it is held: who waits for it then sees that it is another file's."""
    with contextlib.suppress(OSError):
        if _is_at(handle, path):
            path.unlink()


def _refusal(path: Path, other: dict[str, Any]) -> ConfigError:
    return ConfigError(
        f"`{path.parent}` is being written by {_who(other)}. Wait until it ends or stop it, then give the command again (a "
        "training with --resume); or name another folder (--out)"
    )


def _who(other: dict[str, Any]) -> str:
    if not other:
        return "another run"
    return f"another run: process {other.get('pid')} on `{other.get('host')}`, since {other.get('started')}"


_handles: set[int] = set()


def _forget() -> None:
    """A process that a run forks (a worker) must not keep the lock when the run is gone."""
    for handle in _handles:
        os.close(handle)
    _handles.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
