"""The same files by Ray as by one process, and a process killed midway loses nothing. Needs `ray`: `make test-ray`."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.bulk.test_bulk import ASK, QUESTIONS, entries
from tests.ray_here import begun
from vertebra.bulk import over_ray, run_rows
from vertebra.errors import GenerationError

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]
ray = pytest.importorskip("ray", reason="ray (extra `ray`): make test-ray")


@pytest.fixture(scope="module", autouse=True)
def cluster():
    begun(ray, 2)
    yield
    ray.shutdown()


@pytest.fixture
def rows(tmp_path):
    import json

    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"id": f"q{n}", "prompt": text}) + "\n" for n, text in enumerate(QUESTIONS * 3)))
    return path


def files(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_files_are_those_of_one_process_and_are_resumed(rows, tmp_path):
    run_rows("tiny-llama2", rows, tmp_path / "one", ASK)
    seen = []
    made = run_rows(
        "tiny-llama2", rows, tmp_path / "two", ASK, spread=over_ray(2), progress=lambda *at: seen.append(at)
    )
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert (made.rows, seen[0], seen[-1]) == (30, (0, 30), (30, 30))
    (tmp_path / "two" / "answers-00003.jsonl").unlink()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "two").iterdir()}
    run_rows("tiny-llama2", rows, tmp_path / "two", ASK, spread=over_ray(2))
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_process_that_is_killed_loses_nothing(rows, tmp_path):
    """SIGKILL to one of the two as soon as a file is there."""
    run_rows("tiny-llama2", rows, tmp_path / "one", ASK)
    killed = []

    def kill() -> None:
        while not list((tmp_path / "two").glob("answers-*.jsonl")):
            time.sleep(0.01)
        for path in os.listdir("/proc"):
            try:
                name = Path(f"/proc/{path}/cmdline").read_bytes()
            except OSError:
                continue
            if b"ray::" in name and b"Answering" in name:
                os.kill(int(path), signal.SIGKILL)
                killed.append(int(path))
                return

    watcher = threading.Thread(target=kill)
    watcher.start()
    run_rows("tiny-llama2", rows, tmp_path / "two", ASK, spread=over_ray(2))
    watcher.join(60)
    assert killed
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert len(entries(tmp_path / "two")) == 30


def test_what_fails_in_a_process_of_ray_is_our_error(rows, tmp_path):
    with pytest.raises(GenerationError, match="those that are there stay"):
        run_rows("tiny-llama2", rows, tmp_path / "out", ASK, spread=over_ray(2), dtype="float31")
