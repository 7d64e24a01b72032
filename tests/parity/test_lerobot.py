"""A set of ours through the real `lerobot` reader, and a set of its writer through ours.

It cannot share an environment with us, so it runs in one of its own: VERTEBRA_LEROBOT=/path/to/its/python. Skipped elsewhere.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.episodes.made import write_set
from vertebra.episodes import check_episodes, open_episodes

PYTHON = os.environ.get("VERTEBRA_LEROBOT", "")
CAMERAS = {"observation.images.top": (64, 96), "observation.images.wrist": (64, 64)}
LENGTHS = (5, 3, 12)

pytestmark = pytest.mark.skipif(not PYTHON, reason="VERTEBRA_LEROBOT names no python with lerobot 0.4.4")


def their(command: str, folder: Path, out: Path) -> dict[str, np.ndarray]:
    script = Path(__file__).with_name("lerobot_side.py")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([PYTHON, script, command, folder, out], check=True, env=environment | {"HF_HUB_OFFLINE": "1"})
    return dict(np.load(out))


@pytest.mark.parametrize("codec", ["image", "h264", "av1"])
def test_their_reader_reads_ours(tmp_path: Path, codec: str):
    write_set(tmp_path / "set", LENGTHS, codec=codec, cameras=CAMERAS, data_mb=0.05, video_mb=0.02)
    theirs, ours = their("read", tmp_path / "set", tmp_path / "theirs.npz"), open_episodes(tmp_path / "set")
    for one in ours.episodes:
        rows = slice(one.start, one.start + one.length)
        names = [*ours.numbers, "timestamp", "frame_index", "episode_index", "index", "task_index"]
        for key, values in ours.columns(one.index, names).items():
            np.testing.assert_array_equal(theirs[key][rows].reshape(values.shape), values)
        for key in CAMERAS:
            np.testing.assert_array_equal(theirs[key][rows], ours.frames(one.index, key, range(one.length)))
        assert set(theirs["task"][rows]) == {ours.sentence(one.index)}
    assert theirs["q99"].shape == (2,)


def test_our_reader_reads_theirs(tmp_path: Path):
    theirs, ours = their("write", tmp_path / "set", tmp_path / "theirs.npz"), open_episodes(tmp_path / "set")
    assert (ours.version, ours.fps, ours.robot, ours.tasks) == ("v3.0", 10, "so100", ("lift", "drop"))
    assert [one.length for one in ours.episodes] == [4, 9, 6]
    for one in ours.episodes:
        rows = slice(one.start, one.start + one.length)
        for key, values in ours.columns(one.index).items():
            np.testing.assert_array_equal(values, theirs[key][rows].reshape(values.shape))
        images = ours.frames(one.index, "observation.images.top", range(one.length))
        assert np.abs(images.astype(int) - theirs["observation.images.top"][rows]).mean((1, 2, 3)).max() < 8
        assert ours.sentence(one.index) == ("lift", "drop")[one.index % 2]
    report = check_episodes(ours)
    assert report.passed, report.to_json()
