"""What `make` does where a simulator cannot draw: it installs the library, or goes on with one line that says so."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make here")


@pytest.fixture
def drawing(tmp_path: Path):
    """`make drawing` on a machine whose Python does, or does not, find the library, and whose installer does what it says."""

    def made(*, draws: bool, installer: str) -> subprocess.CompletedProcess[str]:
        python, stamp, called = tmp_path / "python", tmp_path / "stamp", tmp_path / "called"
        python.write_text(f"#!/bin/sh\nexit {0 if draws else 1}\n")
        python.chmod(0o755)
        stamp.touch()
        apt = tmp_path / "apt"
        apt.write_text(f'#!/bin/sh\necho "$@" >> {called}\n{installer}\n')
        apt.chmod(0o755)
        line = ["make", "--no-print-directory", "drawing", f"BIN={tmp_path}", f"STAMP={stamp}", f"APT={apt}"]
        return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)

    return made


def calls(folder: Path) -> list[str]:
    file = folder / "called"
    return file.read_text().splitlines() if file.is_file() else []


def test_nothing_is_installed_where_it_draws(drawing, tmp_path: Path):
    done = drawing(draws=True, installer="exit 1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert calls(tmp_path) == []


def test_the_library_is_installed_where_it_may_be(drawing, tmp_path: Path):
    done = drawing(draws=False, installer="echo noise; exit 0")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert calls(tmp_path) == ["install -y -qq libosmesa6"]


def test_lists_of_packages_are_fetched_first_where_they_are_old(drawing, tmp_path: Path):
    updated = tmp_path / "updated"
    done = drawing(draws=False, installer=f"[ $1 = update ] && touch {updated}; [ -f {updated} ]")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert calls(tmp_path) == ["install -y -qq libosmesa6", "update -qq", "install -y -qq libosmesa6"]


def test_it_goes_on_without_and_names_the_line_to_install(drawing):
    done = drawing(draws=False, installer="echo noise >&2; exit 100")
    assert done.returncode == 0
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1
    assert "apt-get install libosmesa6" in done.stdout
    assert "simulators will not run" in done.stdout
