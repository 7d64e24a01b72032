"""Sets that are damaged in one place each: what opening, reading and checking make of them, and which episode is named."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vertebra.episodes import EpisodeWriter, check_episodes, open_episodes
from vertebra.errors import CheckpointError, ConfigError, DataError, MissingPartError, UnknownNameError

from .made import CAMERAS, NUMBERS, TOP, WRIST, episode_of, images_of, write_film, write_old, write_set

DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
FILM = f"videos/{TOP}/chunk-000/file-000.mp4"


def changed(folder: Path, name: str, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(folder / name)), folder / name)


def with_column(name: str, change: Callable[[list[Any]], list[Any]]) -> Callable[[pa.Table], pa.Table]:
    def apply(table: pa.Table) -> pa.Table:
        at = table.column_names.index(name)
        return table.set_column(at, name, pa.array(change(table[name].to_pylist()), table.schema.field(name).type))

    return apply


def with_info(folder: Path, **changes: Any) -> None:
    path = folder / "meta" / "info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def found(folder: Path) -> dict[str, tuple[str, tuple[str, ...]]]:
    """{finding: (status, places)} of all that did not pass."""
    return {one.name: (one.status, one.places) for one in check_episodes(folder).findings if one.status != "pass"}


def test_a_good_set_passes(good: Path):
    report = check_episodes(good)
    assert report.passed
    assert report.skip == {}
    assert not found(good)
    assert {(one.column, one.name) for one in report.ranges} == {
        (key, dim) for key, dims in NUMBERS.items() for dim in dims
    }


def test_a_video_shorter_than_its_frames(damaged: Path):
    write_film(damaged / FILM, images_of(16, CAMERAS[TOP], 0), fps=10)  # of 19
    status, places = found(damaged)["videos"]
    assert status == "fail"
    assert "no frame near 1.600 s (frame 3 of 6; 3 are missing); it ends at 1.500 s" in places[0]
    assert check_episodes(damaged).skip == {2: "videos"}
    read = open_episodes(damaged)
    assert read.frames(2, TOP, [0, 2]).shape == (2, 48, 64, 3)
    with pytest.raises(DataError, match=r"has no frame 16 \(1\.600 s\); it is 1\.600 s long.*vertebra data check"):
        read.frames(2, TOP, [2, 3])


def test_a_parquet_without_a_column(damaged: Path):
    changed(damaged, DATA, lambda table: table.drop_columns(["action"]))
    status, places = found(damaged)["columns"]
    assert (status, len(places)) == ("fail", 3)
    assert "has no `action`" in places[0]
    with pytest.raises(DataError, match=r"has no column `action`. It has: observation.state, next.reward"):
        open_episodes(damaged).columns(0)


def test_mixed_frames_per_second(damaged: Path, tmp_path: Path):
    with_info(damaged, fps=20)
    status, places = found(damaged)["frames per second"]
    assert status == "fail"
    assert "its times have 10 frames a second, and info.json says 20" in places[0]
    write_old(tmp_path / "old", (5, 4), video_fps=20)
    problems = found(tmp_path / "old")
    assert "has 20 frames a second, and info.json says 10" in problems["frames per second"][1][0]
    assert problems["videos"][0] == "fail", "and is over after half of its frames"


def test_an_episode_of_one_frame(tmp_path: Path):
    write_set(tmp_path / "set", (4, 1))
    assert found(tmp_path / "set") == {"one frame": ("note", ("episode 1",))}
    report = check_episodes(tmp_path / "set")
    assert report.passed
    assert report.skip == {1: "one frame"}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_action_that_is_no_number(damaged: Path, value: float):
    changed(damaged, DATA, with_column("action", lambda rows: [*rows[:7], [0.0, value], *rows[8:]]))
    assert found(damaged) == {"not finite": ("fail", ("episode 1: `action`, 1 frames, the first 2",))}
    assert check_episodes(damaged).skip == {1: "not finite"}


def test_a_task_beyond_the_table(damaged: Path):
    changed(damaged, DATA, with_column("task_index", lambda rows: [*rows[:5], *[7] * 8, *rows[13:]]))
    changed(damaged, EPISODES, with_column("tasks", lambda rows: [rows[0], [], rows[2]]))
    assert found(damaged)["tasks"] == ("fail", ("episode 1: task 7, and the table has 2",))
    with pytest.raises(DataError, match="episode 1 has the task 7 at frame 0, and the table of tasks ends at 1"):
        open_episodes(damaged).sentence(1)


def test_an_episode_without_a_task(damaged: Path):
    pq.write_table(pa.table({"task_index": [0, 1], "task": ["push", " "]}), damaged / "meta" / "tasks.parquet")
    assert found(damaged)["tasks"] == ("fail", ("episode 1: task 1 has no sentence",))


def test_times_off_by_a_frame_and_by_a_little(damaged: Path):
    changed(
        damaged,
        DATA,
        with_column("timestamp", lambda rows: [*rows[:3], rows[3] + 0.1, *rows[4:6], rows[6] + 0.003, *rows[7:]]),
    )
    assert found(damaged) == {
        "timestamps": ("fail", ("episode 0: frame 3 is at 0.4000 s, expected 0.3000",)),
        "loose timestamps": ("note", ("episode 1: frame 1 is off by 0.00300 s",)),
    }


def test_rows_counted_wrongly(damaged: Path):
    changed(damaged, DATA, with_column("index", lambda rows: [*rows[:5], 99, *rows[6:]]))
    assert found(damaged) == {"frame numbers": ("fail", ("episode 1: `index` of frame 0 is 99, not 5",))}


def test_duplicates_dead_dimensions_and_far_values(tmp_path: Path):
    numbers, images = episode_of(200, 1)
    numbers["action"][:, 1] = 0.5
    numbers["observation.state"][50, 0] = 1e4
    cameras = {WRIST: CAMERAS[WRIST]}
    with EpisodeWriter(tmp_path / "set", fps=10, cameras=cameras, numbers=NUMBERS) as writer:
        for _ in range(2):
            writer.add("push", numbers, {WRIST: images[WRIST]})
    problems = found(tmp_path / "set")
    assert problems["duplicates"] == ("note", ("episode 1 is episode 0",))
    assert problems["dead dimensions"] == ("note", ("`action`, y: always 0.5",))
    assert problems["far values"][1][0].startswith("`observation.state`, a: ")
    assert len(problems) == 3
    assert check_episodes(tmp_path / "set").skip == {1: "duplicates"}


def test_a_set_half_downloaded(damaged: Path):
    (damaged / FILM).unlink()
    assert "is missing" in found(damaged)["files"][1][0]
    assert sorted(check_episodes(damaged).skip) == [0, 1, 2]
    read = open_episodes(damaged)
    assert read.columns(0)["action"].shape == (5, 2), "what is there can be read"
    with pytest.raises(DataError, match=r"file-000.mp4` is missing; fetch or copy the set again"):
        read.frames(0, TOP, [0])
    (damaged / FILM).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")
    with pytest.raises(DataError, match=r"pointer that Git LFS leaves.*git lfs pull"):
        read.frames(0, TOP, [0])
    for name in (DATA, EPISODES):
        whole = (damaged / name).read_bytes()
        (damaged / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"meta/episodes.* cannot be read"):
        open_episodes(damaged)
    shutil.rmtree(damaged / "meta" / "episodes")
    with pytest.raises(DataError, match="has no table of episodes"):
        open_episodes(damaged)


def test_a_video_cut_off(damaged: Path):
    whole = (damaged / FILM).read_bytes()
    (damaged / FILM).write_bytes(whole[: len(whole) // 2])
    assert "cannot be read" in found(damaged)["files"][1][0]
    with pytest.raises(DataError, match=r"file-000.mp4` cannot be read"):
        open_episodes(damaged).frames(0, TOP, [0])


def test_fewer_rows_than_meta_says(damaged: Path):
    changed(damaged, DATA, lambda table: table.slice(0, 10))
    problems = found(damaged)
    assert problems["counts"][1] == (f"episode 1: `{DATA}` has 5 rows, and `meta` says 8",)
    assert "has no row of episode 2" in problems["files"][1][0]
    with pytest.raises(DataError, match="has 5 rows of episode 1, and `meta` says 8"):
        open_episodes(damaged).columns(1)


def test_a_column_of_another_shape(damaged: Path):
    info = json.loads((damaged / "meta" / "info.json").read_text())
    info["features"]["action"]["shape"] = [7]
    with_info(damaged, features=info["features"])
    with pytest.raises(DataError, match=r"`action`, has the shape \[2\] a frame, and .* says \[7\]"):
        open_episodes(damaged).columns(0)
    assert found(damaged)["columns"][0] == "fail"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"codebase_version": "v1.6"}, "codebase_version` is 'v1.6'; sets of v2.0, v2.1, v3.0 can be read"),
        ({"fps": 0}, "`fps` is 0; expected a number above 0"),
        ({"features": {"action": {"dtype": "float32"}}}, "the feature `action` is .*expected its dtype and shape"),
        ({"features": {"x": {"dtype": "video", "shape": [3]}}}, r"camera `x` has the shape \[3\]"),
    ],
)
def test_info_that_cannot_be(damaged: Path, changes: dict[str, Any], words: str):
    with_info(damaged, **changes)
    with pytest.raises(DataError, match=words):
        open_episodes(damaged)


def test_paths_lead_nowhere_else(damaged: Path):
    with_info(damaged, data_path="../../{chunk_index}{file_index}.parquet")
    with pytest.raises(CheckpointError, match="lies outside its folder; it is not read"):
        open_episodes(damaged).columns(0)
    with_info(damaged, data_path="data/{episode}.parquet")
    with pytest.raises(DataError, match=r"the template `data/\{episode\}.parquet`, which cannot be filled"):
        open_episodes(damaged).columns(0)


def test_names_that_are_not_there(good: Path, tmp_path: Path):
    read = open_episodes(good)
    with pytest.raises(UnknownNameError, match=rf"unknown camera `observation.images.tap`. Did you mean `{TOP}`"):
        read.frames(0, "observation.images.tap", [0])
    with pytest.raises(UnknownNameError, match=r"unknown column `actoin`. Did you mean `action`"):
        read.columns(0, ["actoin"])
    with pytest.raises(DataError, match=r"has no episode 3; it has 0 to 2 \(3 in all\)"):
        read.columns(3)
    with pytest.raises(DataError, match=r"episode 0 has the frames 0 to 4; asked for \[5, -1\]"):
        read.frames(0, TOP, [1, 5, -1])
    assert read.frames(0, TOP, []).shape == (0, 48, 64, 3)
    with pytest.raises(DataError, match=rf"Did you mean `{good}`"):
        open_episodes(good.parent)
    with pytest.raises(DataError, match="There is nothing of that name"):
        open_episodes(tmp_path / "nothing")


def test_without_the_extra(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    read = open_episodes(good)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingPartError, match=r"needs `av`.*pip install 'vertebra\[robots\]'"):
        read.frames(0, TOP, [0])
    assert read.columns(0)["action"].shape == (5, 2), "numbers need no PyAV"
    with pytest.raises(MissingPartError, match=r"vertebra\[robots\]"):
        EpisodeWriter(tmp_path / "new", fps=10, cameras=CAMERAS, numbers=NUMBERS)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingPartError, match=r"needs `pyarrow`.*vertebra\[robots\]"):
        open_episodes(good)


def test_what_the_writer_refuses(tmp_path: Path):
    numbers, images = episode_of(4, 0)
    folder = tmp_path / "set"
    with (
        pytest.raises(DataError, match="no episode was added"),
        EpisodeWriter(folder, fps=10, cameras=CAMERAS, numbers=NUMBERS),
    ):
        pass
    with EpisodeWriter(folder, fps=10, cameras=CAMERAS, numbers=NUMBERS) as writer:
        with pytest.raises(DataError, match=r"sentence is ' '; .*`action` is NaN or infinite, first at frame 1"):
            writer.add(" ", {**numbers, "action": np.array([[0, 0], [np.nan, 0], [0, 0], [0, 0]])}, images)
        with pytest.raises(DataError, match=r"numbers lack `action`; numbers have `actoin`.*Did you mean `action`"):
            writer.add("push", {**{k: v for k, v in numbers.items() if k != "action"}, "actoin": 1}, images)
        with pytest.raises(DataError, match=r"lengths differ: .*`action` 3"):
            writer.add("push", {**numbers, "action": numbers["action"][:3]}, images)
        with pytest.raises(DataError, match=r"has the shape \(4, 32, 32, 3\); expected \(length, 48, 64, 3\)"):
            writer.add("push", numbers, {**images, TOP: images[WRIST]})
        with pytest.raises(DataError, match="holds float64; expected uint8"):
            writer.add("push", numbers, {**images, TOP: images[TOP] / 255})
        with pytest.raises(DataError, match="it has no frame"):
            writer.add("push", {k: v[:0] for k, v in numbers.items()}, {k: v[:0] for k, v in images.items()})
        assert writer.add("push", numbers, images) == 0
        with pytest.raises(DataError, match=r"`next.reward` is float32, and the set has int64"):
            writer.add("push", {**numbers, "next.reward": numbers["next.reward"] / 2}, images)
    assert len(open_episodes(folder).episodes) == 1
    with pytest.raises(CheckpointError, match="exists and is not empty"):
        EpisodeWriter(folder, fps=10, cameras=CAMERAS, numbers=NUMBERS)
    with pytest.raises(
        DataError, match=r"cannot be appended to: fps 20, and the set has 10; cameras .*codec 'av1', and"
    ):
        EpisodeWriter(folder, fps=20, cameras={TOP: (64, 64)}, numbers={"action": ["x"]}, codec="av1", append=True)
    with pytest.raises(ConfigError, match="episodes are added inside"):
        writer.add("push", numbers, images)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fps": 0}, "fps is 0"),
        ({"codec": "mp4"}, "unknown codec `mp4`"),
        ({"cameras": {TOP: (47, 64)}}, "takes even sizes"),
        ({"cameras": {TOP: (32, 64)}, "codec": "av1"}, "av1 takes 64 and more"),
        ({"numbers": {}}, "expected at least an action"),
        ({"numbers": {"a/b": ["x"]}}, "`a/b` cannot be a name"),
        ({"numbers": {"index": ["x"]}}, "every set has a column of that name"),
        ({"numbers": {"action": "xy"}}, "expected one for each dimension"),
    ],
)
def test_sets_that_cannot_be_made(tmp_path: Path, changes: dict[str, Any], words: str):
    with pytest.raises((ConfigError, DataError), match=words):
        EpisodeWriter(tmp_path / "set", **{"fps": 10, "cameras": CAMERAS, "numbers": NUMBERS, **changes})
    assert not list(tmp_path.iterdir())


def interrupted(folder: Path, **more: Any) -> None:
    numbers, images = episode_of(4, 0)
    with EpisodeWriter(folder, fps=10, cameras=CAMERAS, numbers=NUMBERS, **more) as writer:
        writer.add("push", numbers, images)
        raise ZeroDivisionError


def test_an_error_in_the_block_leaves_nothing_and_the_old_set_as_it_was(tmp_path: Path):
    folder = tmp_path / "set"
    with pytest.raises(ZeroDivisionError):
        interrupted(folder)
    assert not list(tmp_path.iterdir())
    write_set(folder, (3, 4))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(ZeroDivisionError):
        interrupted(folder, append=True)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_an_episode_that_fails_halfway_spoils_the_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A full disk, as the table of rows is written after the videos: what the files hold then fits no longer together."""
    numbers, images = episode_of(4, 0)

    def full(self: object, table: object) -> None:
        raise OSError(28, "No space left on device")

    writer = EpisodeWriter(tmp_path / "set", fps=10, cameras=CAMERAS, numbers=NUMBERS)
    writer.__enter__()
    writer.add("push", numbers, images)
    monkeypatch.setattr("vertebra.episodes.sheets.Sheets.write", full)
    with pytest.raises(OSError, match="No space left"):
        writer.add("push", numbers, images)
    with pytest.raises(ConfigError, match="episodes are added inside"):
        writer.add("push", numbers, images)
    with pytest.raises(DataError, match="an episode could not be added"):
        writer.__exit__(None, None, None)
    assert not list(tmp_path.iterdir())


def test_replacing_is_asked_for(good: Path, tmp_path: Path):
    folder = Path(shutil.copytree(good, tmp_path / "set"))
    write_set(folder, (2,), overwrite=True)
    assert [one.length for one in open_episodes(folder).episodes] == [2]
    with pytest.raises(ConfigError, match="append and overwrite"):
        write_set(folder, (2,), overwrite=True, append=True)


@pytest.mark.parametrize("dtype", ["float128", "string", "flaot32"])
def test_numbers_that_are_called_something_else(dtype: str, damaged: Path):
    """They would be missing from every statistic and every run, and nothing else would name them."""
    info = json.loads((damaged / "meta" / "info.json").read_text())
    info["features"]["action"]["dtype"] = dtype
    (damaged / "meta" / "info.json").write_text(json.dumps(info))
    report = found(damaged)
    assert report["columns"][0] == "fail"
    assert (
        f"column `action` holds numbers, and `meta/info.json` says {dtype}; expected one of" in report["columns"][1][0]
    )
