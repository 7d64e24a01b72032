"""Columns of every kind that parquet knows in place of the right one: a finding or an error of ours, never another's, and
nothing passes the check that cannot be shown, counted and learned from. Then faults that leave every file readable.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vertebra.cli import episodes as commands
from vertebra.data.look.histograms import numbers_of
from vertebra.episodes import check_episodes, open_episodes
from vertebra.errors import DataError, VertebraError
from vertebra.tasks.read_sets import EpisodesConfig, ReadSet

from .made import TOP

DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
FILM = f"videos/{TOP}/chunk-000/file-000.mp4"
STARTS = f"videos/{TOP}/from_timestamp"

ODD: dict[str, tuple[Callable[[Any], Any], pa.DataType]] = {
    "text": (str, pa.string()),
    "bytes": (lambda value: str(value).encode(), pa.binary()),
    "floats": (float, pa.float64()),
    "fractions": (lambda value: value + 0.25, pa.float64()),
    "NaN": (lambda value: float("nan"), pa.float64()),
    "infinite": (lambda value: float("inf"), pa.float64()),
    "huge": (lambda value: 1e300, pa.float64()),
    "decimals": (lambda value: Decimal(str(round(value, 3))), pa.decimal128(12, 3)),
    "truth": (bool, pa.bool_()),
    "times": (lambda value: datetime.fromtimestamp(abs(value)), pa.timestamp("us")),
    "nothing": (lambda value: None, pa.null()),
    "gaps": (lambda value: None if value == 0 else value, pa.float64()),
    "objects": (lambda value: {"value": value}, pa.struct([("value", pa.float64())])),
}
COLUMNS = ("action", "next.reward", "timestamp", "frame_index", "episode_index", "index", "task_index")


def change(path: Path, name: str, values: Callable[[list[Any]], list[Any]], kind: pa.DataType | None = None) -> None:
    table = pq.read_table(path)
    at = table.column_names.index(name)
    column = pa.array(values(table[name].to_pylist()), kind or table.schema.field(name).type)
    pq.write_table(table.set_column(at, name, column), path)


def problems(folder: Path) -> dict[str, tuple[str, ...]]:
    return {one.name: one.places for one in check_episodes(folder).findings if one.status == "fail"}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_of_another_kind(damaged: Path, column: str, kind: str):
    odd, dtype = ODD[kind]
    wide = column == "action"
    if wide:
        change(damaged / DATA, column, lambda rows: [[odd(one) for one in row] for row in rows], pa.list_(dtype))
    else:
        change(damaged / DATA, column, lambda rows: [odd(one) for one in rows], dtype)
    passed = not problems(damaged)
    for read in (
        lambda: commands.show(str(damaged), count=2, html=damaged / "page.html", episode=None, picture=None),
        lambda: numbers_of(open_episodes(damaged)),
        lambda: ReadSet(str(damaged), EpisodesConfig()),
    ):
        with contextlib.nullcontext() if passed else contextlib.suppress(VertebraError):
            read()


@pytest.mark.parametrize("column", [column for column in COLUMNS if column != "episode_index"])
def test_text_where_numbers_belong_fails_by_name(damaged: Path, column: str):
    """`"0.5"` can be made a number by whoever reads it, so that nothing seems to be wrong."""
    wide = column == "action"
    kind = pa.list_(pa.string()) if wide else pa.string()
    change(damaged / DATA, column, lambda rows: [[*map(str, one)] if wide else str(one) for one in rows], kind)
    assert f"column `{column}`, holds" in problems(damaged)["columns"][0]


def test_rows_that_stand_there_twice(damaged: Path):
    table = pq.read_table(damaged / DATA)
    pq.write_table(pa.concat_tables([table, table.slice(5, 8)]), damaged / DATA)
    assert problems(damaged) == {
        "counts": (f"episode 1: its rows stand in 2 places of `{DATA}`, and only one of them is read",)
    }


def test_a_list_of_episodes_that_is_empty(damaged: Path):
    pq.write_table(pq.read_table(damaged / EPISODES).slice(0, 0), damaged / EPISODES)
    assert problems(damaged)["counts"] == ("`meta` lists no episode",)
    with pytest.raises(DataError, match="has no episode to show"):
        commands.show(str(damaged), count=2, html=None, episode=None, picture=damaged / "strip.png")
    with pytest.raises(DataError, match="has no episode to count"):
        commands.stats(str(damaged), out=damaged / "set.png", batch_size=8, capacity=None, json=False)


def test_a_length_that_no_episode_has(damaged: Path):
    """No array is made of what a file only says of itself."""
    change(damaged / EPISODES, "length", lambda rows: [1 << 46, *rows[1:]])
    found = problems(damaged)
    assert f"and `meta` says {1 << 46}" in found["counts"][0]
    assert f"{(1 << 46) - 19} are missing" in found["videos"][0]
    assert check_episodes(damaged).skip.keys() == {0}, "the others are what they were"
    change(damaged / EPISODES, "length", lambda rows: [1 << 50, *rows[1:]])
    with pytest.raises(DataError, match="column `length`, holds what is no whole number"):
        check_episodes(damaged)


def test_episodes_that_show_the_same_stretch_of_a_video(damaged: Path):
    change(damaged / EPISODES, STARTS, lambda rows: [0.0, 0.0, rows[2]])
    assert problems(damaged) == {"videos": (f"episode 1 begins at 0.000 s of `{FILM}`, inside of episode 0",)}
    change(damaged / EPISODES, STARTS, lambda rows: [0.0, 0.4, rows[2]])
    assert "videos" not in problems(damaged), "sums of durations drift by a frame"


def test_a_video_whose_length_was_set_before_its_content_came(damaged: Path):
    film = bytearray((damaged / FILM).read_bytes())
    begin = film.index(b"mdat") + 4
    size = int.from_bytes(film[begin - 8 : begin - 4], "big") - 8
    film[begin + size // 2 : begin + size] = bytes(size - size // 2)
    (damaged / FILM).write_bytes(bytes(film))
    assert "holds nothing but zeros from" in problems(damaged)["files"][0]


def test_two_sentences_of_one_episode(damaged: Path):
    change(damaged / EPISODES, "tasks", lambda rows: [["dance"], *rows[1:]])
    assert problems(damaged) == {"tasks": ("episode 0: `meta` lists `dance`, and its frames have the task of `push`",)}


def test_an_empty_sentence_of_an_episode_is_none(damaged: Path):
    change(damaged / EPISODES, "tasks", lambda rows: [[" "], *rows[1:]])
    assert open_episodes(damaged).sentence(0) == "push"
    assert not problems(damaged)
    pq.write_table(pa.table({"task_index": [0, 1], "task": [" ", "pull"]}), damaged / "meta" / "tasks.parquet")
    with pytest.raises(DataError, match=r"no instruction in the episodes \[0\] \(1 in all\).*skip=\[0\]"):
        ReadSet(str(damaged), EpisodesConfig())


def test_names_that_a_picture_takes_for_formulas(damaged: Path):
    path = damaged / "meta" / "info.json"
    info = json.loads(path.read_text())
    info["features"]["action"]["names"] = ["$$", "a$b^$"]
    path.write_text(json.dumps(info))
    commands.stats(str(damaged), out=damaged / "set.png", batch_size=8, capacity=None, json=False)
    assert (damaged / "set.png").is_file()


def test_numbers_that_are_none_are_gaps_of_a_line():
    assert commands.sparks([0.0, np.nan, 1.0, np.inf]) == "▁×█×"
    assert commands.sparks([np.nan, np.nan]) == "××"
