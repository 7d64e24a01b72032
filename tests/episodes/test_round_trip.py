"""What was written is read back: numbers exactly, frames within what a codec loses, sentences, counts, statistics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vertebra.episodes import EpisodeWriter, open_episodes
from vertebra.errors import DataError

from .made import CAMERAS, NUMBERS, TOP, WRIST, episode_of, write_set

LENGTHS = (5, 1, 12, 33, 2, 20)


@pytest.mark.parametrize("codec", ["image", "h264", "av1"])
def test_read_back_equal(tmp_path: Path, codec: str):
    cameras = {TOP: (64, 96), WRIST: (64, 64)} if codec == "av1" else CAMERAS
    written = write_set(tmp_path / "set", LENGTHS, codec=codec, cameras=cameras, robot="arm")
    read = open_episodes(tmp_path / "set")
    assert (read.version, read.fps, read.robot, read.tasks) == ("v3.0", 10, "arm", ("push", "pull"))
    assert (read.cameras, read.sizes) == (tuple(cameras), cameras)
    assert {key: one.names for key, one in read.numbers.items()} == {k: tuple(v) for k, v in NUMBERS.items()}
    assert [one.length for one in read.episodes] == list(LENGTHS)
    assert [one.start for one in read.episodes] == np.cumsum([0, *LENGTHS])[:-1].tolist()
    for at, (numbers, images) in enumerate(written):
        assert read.sentence(at) == read.episodes[at].tasks[0] == ("push", "pull")[at % 2]
        columns = read.columns(at)
        assert columns.keys() == numbers.keys()
        for key, values in numbers.items():
            assert columns[key].dtype == values.dtype
            np.testing.assert_array_equal(columns[key], values)
        for key, films in images.items():
            backwards = list(range(LENGTHS[at]))[::-1]
            frames = read.frames(at, key, backwards)
            assert frames.dtype == np.uint8
            off = np.abs(frames.astype(int) - films[backwards]).mean((1, 2, 3))
            assert off.max() < (1e-9 if codec == "image" else 8), (codec, at, key)


def test_bookkeeping_counts_on_through_the_set(tmp_path: Path):
    write_set(tmp_path / "set", (3, 2), codec="image")
    read = open_episodes(tmp_path / "set")
    names = ["timestamp", "frame_index", "episode_index", "index", "task_index"]
    columns = [read.columns(at, names) for at in (0, 1)]
    joined = {name: np.concatenate([one[name] for one in columns]).tolist() for name in names}
    assert joined["index"] == [0, 1, 2, 3, 4]
    assert joined["frame_index"] == [0, 1, 2, 0, 1]
    assert joined["episode_index"] == [0, 0, 0, 1, 1]
    assert joined["task_index"] == [0, 0, 0, 1, 1]
    assert joined["timestamp"] == pytest.approx([0, 0.1, 0.2, 0, 0.1])


def test_how_images_were_drawn_is_recorded_and_others_do_not_join(tmp_path: Path):
    settings = {"fps": 10, "cameras": CAMERAS, "numbers": NUMBERS, "codec": "image"}
    drawn = {"size": 48, "bare_wrist": True}
    with EpisodeWriter(tmp_path / "set", view=drawn, **settings) as writer:
        writer.add("push", *episode_of(2, 0))
    with EpisodeWriter(tmp_path / "set", view=drawn, append=True, **settings) as writer:
        writer.add("push", *episode_of(2, 1))
    with EpisodeWriter(tmp_path / "set", append=True, **settings) as writer:  # nothing is said of these
        writer.add("push", *episode_of(2, 2))
    assert open_episodes(tmp_path / "set").view == drawn
    with pytest.raises(DataError, match="were drawn with"):
        EpisodeWriter(tmp_path / "set", view={**drawn, "size": 64}, append=True, **settings)
    with EpisodeWriter(tmp_path / "plain", **settings) as writer:
        writer.add("push", *episode_of(2, 0))
    assert open_episodes(tmp_path / "plain").view == {}


@pytest.mark.parametrize("codec", ["image", "h264"])
def test_files_roll_by_size_and_appending_begins_new_ones(tmp_path: Path, codec: str):
    small = {"codec": codec, "data_mb": 0.02 if codec == "image" else 0.001, "video_mb": 0.008}
    written = write_set(tmp_path / "set", LENGTHS, **small)
    files = {path.relative_to(tmp_path / "set") for path in (tmp_path / "set").rglob("*.*") if path.is_file()}
    assert len([path for path in files if path.parts[0] == "data"]) > 1
    if codec == "h264":
        rolls = {key: len([path for path in files if path.parts[:2] == ("videos", key)]) for key in CAMERAS}
        assert rolls[TOP] > 1
        assert rolls[WRIST] < rolls[TOP], "each camera by itself"
    more = [episode_of(4, seed) for seed in (90, 91)]
    with EpisodeWriter(tmp_path / "set", fps=10, cameras=CAMERAS, numbers=NUMBERS, append=True, **small) as writer:
        assert [writer.add(sentence, *one) for sentence, one in zip(["lift", "push"], more, strict=True)] == [6, 7]
    read = open_episodes(tmp_path / "set")
    assert read.tasks == ("push", "pull", "lift")
    assert read.sentence(7) == "push"
    for at, (numbers, images) in enumerate([*written, *more]):
        np.testing.assert_array_equal(read.columns(at)["action"], numbers["action"])
        for key in CAMERAS:
            frames = read.frames(at, key, range(read.episodes[at].length))
            assert np.abs(frames.astype(int) - images[key]).mean((1, 2, 3)).max() < 8
    now = {path.relative_to(tmp_path / "set") for path in (tmp_path / "set").rglob("*.*") if path.is_file()}
    assert files < now
    assert not [path for path in tmp_path.iterdir() if path.name != "set"], "nothing is left beside it"
