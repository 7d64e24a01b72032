"""The lock of a run's folder: held once, given back, gone with its holder, and what decides where the kernel's is none."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from vertebra.errors import CheckpointError, ConfigError
from vertebra.training import lock
from vertebra.training.lock import LOCK, only_writer

HOLD = (
    "import sys, time\nfrom pathlib import Path\nfrom vertebra.training.lock import only_writer\n"
    "with only_writer(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(600)"
)


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the folder."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.1)
    monkeypatch.setattr(lock, "PATIENCE", 1.0)


@pytest.fixture
def no_flock(monkeypatch: pytest.MonkeyPatch, hasty: None) -> None:
    """A file system without locks, as some of the network are."""

    def refuse(handle: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)


def elsewhere(folder: Path) -> Path:
    """The record of a run on another machine."""
    folder.mkdir()
    record = {"host": "node7", "machine": "another", "pid": 12, "started": "2026-11-29 08:00:00 UTC"}
    (folder / LOCK).write_text(json.dumps(record))
    return folder / LOCK


@contextmanager
def beating(path: Path) -> Iterator[None]:
    end = threading.Event()

    def beat() -> None:
        while not end.wait(0.1):
            os.utime(path)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def test_held_once_and_given_back(tmp_path: Path):
    with only_writer(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
        with pytest.raises(ConfigError, match=f"another run: process {os.getpid()} on"), only_writer(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []
    with only_writer(tmp_path):
        pass


def test_a_folder_that_was_made_for_nothing_goes_again(tmp_path: Path):
    with only_writer(tmp_path / "a" / "b"):
        pass
    assert list(tmp_path.iterdir()) == []
    with only_writer(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "run.yaml").write_text("")
    assert (tmp_path / "a" / "b" / "run.yaml").is_file()


def test_another_process_is_named_and_its_death_frees_the_folder(tmp_path: Path):
    with holder(tmp_path) as process:
        with pytest.raises(ConfigError, match=f"process {process.pid} on .*name another folder"), only_writer(tmp_path):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (tmp_path / LOCK).is_file()
        with only_writer(tmp_path):
            assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


def test_a_fork_of_the_holder_keeps_nothing(tmp_path: Path):
    """As a loader's worker is, which outlives a killed run by some seconds."""
    heard, tell = os.pipe()
    child = os.fork()
    if child == 0:
        with only_writer(tmp_path):
            if os.fork() == 0:
                os.write(tell, b"%d\n" % os.getpid())
                signal.pause()
            signal.pause()
    worker = int(os.read(heard, 20))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with only_writer(tmp_path):
        os.kill(worker, 0)  # it lives
    os.kill(worker, signal.SIGKILL)


def test_one_of_many_that_come_and_go_has_it(tmp_path: Path):
    """The plain twin: a list of who is inside, which never has two."""
    inside: list[int] = []
    got = []

    def work(number: int) -> None:
        for _ in range(30):
            try:
                with only_writer(tmp_path / "run"):
                    inside.append(number)
                    got.append(list(inside))
                    inside.remove(number)
            except ConfigError:
                pass

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got
    assert all(len(seen) == 1 for seen in got)


def test_a_record_of_another_machine_counts_while_it_is_touched(tmp_path: Path, hasty: None):
    path = elsewhere(tmp_path / "run")
    with beating(path), pytest.raises(ConfigError, match="process 12 on `node7`, since 2026-11-29"):
        only_writer(tmp_path / "run").__enter__()
    with only_writer(tmp_path / "run"):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_a_record_of_another_machine_that_is_given_back(tmp_path: Path, hasty: None):
    path = elsewhere(tmp_path / "run")
    giving = threading.Timer(0.3, path.unlink)
    giving.start()
    with only_writer(tmp_path / "run"):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    giving.join()


def test_the_record_decides_where_there_are_no_locks(tmp_path: Path, no_flock: None):
    with only_writer(tmp_path), pytest.raises(ConfigError, match="another run: process"):
        only_writer(tmp_path).__enter__()
    path = elsewhere(tmp_path / "run")
    with beating(path), pytest.raises(ConfigError, match="node7"):
        only_writer(tmp_path / "run").__enter__()
    with only_writer(tmp_path / "run"):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_of_two_that_write_their_record_at_once_the_later_has_it(
    tmp_path: Path, no_flock: None, monkeypatch: pytest.MonkeyPatch
):
    write = lock._write

    def both(handle: int) -> None:
        write(handle)
        path = tmp_path / LOCK
        path.write_text(path.read_text().replace(f'"pid": {os.getpid()}', '"pid": 1'))

    monkeypatch.setattr(lock, "_write", both)
    with pytest.raises(ConfigError, match="process 1 on"):
        only_writer(tmp_path).__enter__()


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00"])
def test_a_record_that_cannot_be_read_is_no_lock(text: str, tmp_path: Path):
    (tmp_path / LOCK).write_text(text)
    with only_writer(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


def test_places_that_cannot_be_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file; name a folder with --out"):
        only_writer(tmp_path / "file").__enter__()
    with pytest.raises(CheckpointError, match=r"cannot be written: .*--out"):
        only_writer(tmp_path / "file" / "run").__enter__()

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(lock, "_write", full)
    with pytest.raises(CheckpointError, match=r"No space left on device\. Make room"):
        only_writer(tmp_path / "run").__enter__()


def test_a_folder_that_goes_while_it_is_made(tmp_path, monkeypatch):
    """`mkdir` finds the folder, looks at it, and it is gone: another run made it for nothing."""
    plain, times = Path.mkdir, []

    def gone(path, *arguments, **options):
        times.append(path)
        if len(times) == 1:
            raise FileExistsError(17, "File exists", str(path))
        return plain(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", gone)
    with only_writer(tmp_path / "run"):
        assert (tmp_path / "run" / LOCK).is_file()
    assert len(times) > 1
