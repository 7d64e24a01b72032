"""v2.0 and v2.1 become v3.0: numbers equal, frames bit by bit, episodes left out by name, nothing written by halves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vertebra.episodes import check_episodes, open_episodes
from vertebra.episodes.upgrade import upgrade
from vertebra.errors import DataError

from .made import TOP, decoded, lines, write_film, write_old, write_set

LENGTHS = (5, 1, 12, 7, 3)


@pytest.mark.parametrize("bf", [0, 3])
def test_everything_is_kept(tmp_path: Path, bf: int):
    write_old(tmp_path / "old", LENGTHS, bf=bf, fps=30)
    upgrade(tmp_path / "old", tmp_path / "new")
    old, new = open_episodes(tmp_path / "old"), open_episodes(tmp_path / "new")
    assert (new.version, new.fps, new.robot, new.tasks) == ("v3.0", 30, "so100", old.tasks)
    assert (new.cameras, new.sizes, new.numbers) == (old.cameras, old.sizes, old.numbers)
    assert [(one.index, one.length, one.start, one.tasks) for one in new.episodes] == [
        (one.index, one.length, one.start, one.tasks) for one in old.episodes
    ]
    files = len(list((tmp_path / "new").rglob("*.mp4")))
    assert files == 1 if bf == 0 else files < len(LENGTHS), (
        "frames that wait for later ones may need a file of their own"
    )
    for at, length in enumerate(LENGTHS):
        assert new.sentence(at) == old.sentence(at)
        for key, values in old.columns(at, [*old.numbers, "timestamp", "index", "task_index"]).items():
            np.testing.assert_array_equal(new.columns(at, [key])[key], values)
        film = tmp_path / "old" / old.places.clip(at, TOP)[0]
        np.testing.assert_array_equal(new.frames(at, TOP, range(length)), decoded(film))
    report = check_episodes(new)
    assert report.passed, report.to_json()
    stats = json.loads((tmp_path / "new" / "meta" / "stats.json").read_text())
    assert np.shape(stats[TOP]["mean"]) == (3, 1, 1)
    assert stats["action"]["count"] == [sum(LENGTHS)]


def test_episodes_are_left_out_and_files_roll(tmp_path: Path):
    write_old(tmp_path / "old", LENGTHS, version="v2.0")
    upgrade(tmp_path / "old", tmp_path / "new", skip=[1, 3], video_mb=0.004)
    old, new = open_episodes(tmp_path / "old"), open_episodes(tmp_path / "new")
    assert [one.length for one in new.episodes] == [5, 12, 3]
    assert len(list((tmp_path / "new").rglob("*.mp4"))) > 1
    for now, before in enumerate((0, 2, 4)):
        np.testing.assert_array_equal(new.columns(now)["action"], old.columns(before)["action"])
        np.testing.assert_array_equal(new.frames(now, TOP, [0, 2]), old.frames(before, TOP, [0, 2]))
    assert check_episodes(new).passed


def test_statistics_of_cameras_are_taken_over(tmp_path: Path):
    write_old(tmp_path / "old", (4, 4))
    of_one = {name: [[[0.25]], [[0.5]], [[0.75]]] for name in ("min", "max", "mean", "std")} | {"count": [4]}
    rows = [{"episode_index": at, "stats": {TOP: of_one}} for at in (0, 1)]
    lines(tmp_path / "old" / "meta" / "episodes_stats.jsonl", rows)
    upgrade(tmp_path / "old", tmp_path / "new")
    stats = json.loads((tmp_path / "new" / "meta" / "stats.json").read_text())
    assert stats[TOP]["mean"] == of_one["mean"]
    assert stats[TOP]["count"] == [8]


def test_what_cannot_be_converted_leaves_nothing(tmp_path: Path):
    write_old(tmp_path / "old", LENGTHS)
    with pytest.raises(DataError, match=r"`skip` names the episodes \[9\]"):
        upgrade(tmp_path / "old", tmp_path / "new", skip=[9])
    film = tmp_path / "old" / open_episodes(tmp_path / "old").places.clip(2, TOP)[0]
    write_film(film, decoded(film)[:6], fps=10)
    with pytest.raises(DataError, match="has no frame 6"):
        upgrade(tmp_path / "old", tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    write_set(tmp_path / "v3", (2,))
    with pytest.raises(DataError, match=r"is v3\.0 already"):
        upgrade(tmp_path / "v3", tmp_path / "new")


SECOND = "data/chunk-000/episode_000001.parquet"


def rewrite(folder: Path, column: str, kind: pa.DataType | None, change: Callable[[list[Any]], list[Any]]) -> None:
    table = pq.read_table(folder / SECOND)
    at = table.column_names.index(column)
    values = pa.array(change(table[column].to_pylist()), kind or table.schema.field(column).type)
    pq.write_table(table.set_column(at, column, values), folder / SECOND)


@pytest.mark.parametrize(
    ("column", "kind", "change", "message"),
    [
        (
            "next.reward",
            pa.float64(),
            lambda rows: [one + 0.5 for one in rows],
            r"do not hold: `next.reward` \(int64\)",
        ),
        ("action", pa.list_(pa.float64()), lambda rows: [[1e300, 0.0] for _ in rows], "infinite numbers in `action`"),
        ("frame_index", None, lambda rows: rows[::-1], r"has frame 6 behind frame 7; sort its rows"),
        ("frame_index", None, lambda rows: [0, *rows[:-1]], r"has frame 0 behind frame 0.*--skip 1"),
    ],
)
def test_nothing_is_carried_over_as_another_thing(tmp_path: Path, column: str, kind: Any, change: Any, message: str):
    """What is counted anew, or cut to a dtype, looks right ever after: no check of the new set finds it."""
    write_old(tmp_path / "old", (5, 8, 6))
    rewrite(tmp_path / "old", column, kind, change)
    assert 1 in check_episodes(tmp_path / "old").skip
    with pytest.raises(DataError, match=message):
        upgrade(tmp_path / "old", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    upgrade(tmp_path / "old", tmp_path / "new", skip=[1])
    assert check_episodes(tmp_path / "new").passed


def test_an_empty_sentence_of_an_episode_is_that_of_its_frames(tmp_path: Path):
    write_old(tmp_path / "old", (5, 8))
    path = tmp_path / "old" / "meta" / "episodes.jsonl"
    lines(path, [{**json.loads(row), "tasks": [""]} for row in path.read_text().splitlines()])
    upgrade(tmp_path / "old", tmp_path / "new")
    assert [open_episodes(tmp_path / "new").sentence(at) for at in range(2)] == ["push", "pull"]


def test_an_episode_without_a_frame_is_found(tmp_path: Path):
    write_old(tmp_path / "old", (5, 8))
    pq.write_table(pq.read_table(tmp_path / "old" / SECOND).slice(0, 0), tmp_path / "old" / SECOND)
    path = tmp_path / "old" / "meta" / "episodes.jsonl"
    rows = [json.loads(row) for row in path.read_text().splitlines()]
    lines(path, [rows[0], {**rows[1], "length": 0}])
    found = {one.name: one.places for one in check_episodes(tmp_path / "old").findings if one.status == "fail"}
    assert found == {"counts": ("episode 1 has no frame",)}


@pytest.mark.parametrize(
    ("frames", "means"), [([0] * 5, "push"), ([1, 1, 0, 1, 1], "pull / push"), ([1, 9, 1, 1, 1], "pull / task 9")]
)
def test_sentences_that_differ_are_not_settled_in_silence(frames: list[int], means: str, tmp_path: Path):
    """`data check` fails such a set; made anew, it would pass, with one of both sentences lost."""
    write_old(tmp_path / "old", (2, 5, 3))
    rewrite(tmp_path / "old", "task_index", None, lambda _: frames)
    assert not check_episodes(tmp_path / "old").passed
    with pytest.raises(DataError, match=rf"episode 1: `meta` lists `pull`, .* the task of `{means}.*--skip 1"):
        upgrade(tmp_path / "old", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    upgrade(tmp_path / "old", tmp_path / "new", skip=[1])
    assert check_episodes(tmp_path / "new").passed
