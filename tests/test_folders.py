"""Folders that appear whole or not at all: under failures, links, rights, and two writers at once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from vertebra.errors import CheckpointError
from vertebra.folders import named_file, require_free, write_file, write_whole


def fill(text: str):
    return lambda part: (part / "a.txt").write_text(text)


def test_what_is_filled_appears_under_its_name(tmp_path: Path):
    made = write_whole(tmp_path / "deep" / "er" / "x", fill("1"), replace=False)
    assert (made / "a.txt").read_text() == "1"
    assert [p.name for p in made.parent.iterdir()] == ["x"]
    assert made.stat().st_mode & 0o777 == 0o755


def test_nothing_is_there_before_all_of_it_is(tmp_path: Path):
    def look(part: Path) -> None:
        (part / "a.txt").write_text("half")
        assert not (tmp_path / "x").exists()

    write_whole(tmp_path / "x", look, replace=False)


@pytest.mark.parametrize("before", [False, True])
def test_a_failure_leaves_what_was_there(tmp_path: Path, before: bool):
    if before:
        write_whole(tmp_path / "x", fill("old"), replace=False)

    def fail(part: Path) -> None:
        (part / "a.txt").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "x", fail, replace=True)
    assert [p.name for p in tmp_path.iterdir()] == (["x"] if before else [])
    if before:
        assert (tmp_path / "x" / "a.txt").read_text() == "old"


def test_a_kill_leaves_nothing_under_the_name(tmp_path: Path):
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom vertebra.folders import write_whole\n"
        "def fill(part):\n    (part / 'a').write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_whole(Path(sys.argv[1]), fill, replace=True)"
    )
    write_whole(tmp_path / "x", fill("old"), replace=False)
    assert subprocess.run([sys.executable, "-c", code, tmp_path / "x"]).returncode == -9
    assert (tmp_path / "x" / "a.txt").read_text() == "old"
    assert not (tmp_path / "x" / "a").exists()


def test_replacing_takes_the_old_away_whole(tmp_path: Path):
    write_whole(tmp_path / "x", lambda part: (part / "b.txt").write_text("old"), replace=False)
    write_whole(tmp_path / "x", fill("new"), replace=True)
    assert [p.name for p in (tmp_path / "x").iterdir()] == ["a.txt"]
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_the_first_of_two_wins_where_nothing_is_replaced(tmp_path: Path):
    begin = threading.Barrier(4)

    def write(number: int) -> None:
        write_whole(tmp_path / "x", lambda part: (fill(str(number))(part), begin.wait()), replace=False)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "x" / "a.txt").read_text() in "0123"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_link_stays_a_link(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    made = write_whole(tmp_path / "link", fill("1"), replace=True)
    assert made == tmp_path / "link"
    assert made.is_symlink()
    assert (tmp_path / "real" / "a.txt").read_text() == "1"


def test_places_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot write beside"):
        write_whole(tmp_path / "file" / "x", fill("1"), replace=True)


def test_what_would_be_mixed_with_or_lost_is_refused(tmp_path: Path):
    require_free(tmp_path / "new", overwrite=False)
    os.mkdir(tmp_path / "empty")
    require_free(tmp_path / "empty", overwrite=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="not empty; name another folder"):
        require_free(tmp_path, overwrite=False)
    with pytest.raises(CheckpointError, match=r"holds something else \(empty, file\).*is not replaced"):
        require_free(tmp_path, overwrite=True)
    (tmp_path / "record").write_text("")
    require_free(tmp_path, overwrite=True, holds=["other", "record"])
    (tmp_path / "config.json").write_text("")
    require_free(tmp_path, overwrite=True)
    for overwrite in (False, True):
        with pytest.raises(CheckpointError, match="is a file"):
            require_free(tmp_path / "file", overwrite=overwrite)


@pytest.mark.parametrize("before", [None, "old"])
def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, before: str | None):
    """On a disk that is full at every byte of it."""
    path, text = tmp_path / "a.json", "ü" * 20
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom vertebra.errors import CheckpointError\n"
        "from vertebra.folders import write_file\n"
        "for byte in range(len(sys.argv[2].encode())):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (byte, resource.RLIM_INFINITY))\n"
        "    try:\n        write_file(Path(sys.argv[1]), sys.argv[2])\n"
        "    except CheckpointError as error:\n        assert 'a.json` cannot be written: ' in str(error)\n"
        "    else:\n        sys.exit(f'written in {byte} bytes')\n"
    )
    if before is not None:
        path.write_text(before)
    made = subprocess.run([sys.executable, "-c", code, path, text], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert [p.read_text() for p in tmp_path.iterdir()] == ([] if before is None else [before])
    assert write_file(path, text).read_text(encoding="utf-8") == text
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_killed_write_leaves_the_file_as_it_was(tmp_path: Path):
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom vertebra import folders\n"
        "folders.os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)\n"
        "folders.write_file(Path(sys.argv[1]), 'new')"
    )
    (tmp_path / "a").write_text("old")
    assert subprocess.run([sys.executable, "-c", code, tmp_path / "a"]).returncode == -9
    assert (tmp_path / "a").read_text() == "old"


def test_a_link_to_a_file_stays_a_link(tmp_path: Path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    write_file(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_half_a_surrogate_pair_is_written_as_json_escapes_it(tmp_path: Path):
    assert write_file(tmp_path / "row.json", '{"a": "\ud800ü"}').read_bytes() == '{"a": "\\ud800ü"}'.encode()


@pytest.mark.parametrize("name", ["none/page.html", "is-a-folder", "is-a-file/page.html"])
def test_a_file_that_somebody_named(tmp_path, name: str):
    (tmp_path / "is-a-folder").mkdir()
    (tmp_path / "is-a-file").touch()
    why = r"cannot be written: .*; name a file in a folder that exists"
    with pytest.raises(CheckpointError, match=why), named_file(tmp_path / name) as file:
        file.write_text("a page")
    with named_file(str(tmp_path / "page.html")) as file:
        file.write_text("a page")
    assert (tmp_path / "page.html").read_text() == "a page"
