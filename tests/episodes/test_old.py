"""LeRobot v2.0 and v2.1, GR00T's modality.json, and the shapes in which others wrote v3.0."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vertebra.episodes import check_episodes, open_episodes
from vertebra.errors import DataError, UnknownNameError

from .made import CAMERAS, TOP, decoded, write_old, write_set

LENGTHS = (5, 1, 12)


@pytest.mark.parametrize("version", ["v2.0", "v2.1"])
def test_the_older_format_is_read(tmp_path: Path, version: str):
    written = write_old(tmp_path / "old", LENGTHS, version=version)
    read = open_episodes(tmp_path / "old")
    assert (read.version, read.robot, read.tasks) == (version, "so100", ("push", "pull"))
    assert read.sizes == {TOP: (48, 64)}, "names say that channels come first"
    assert read.numbers["action"].names == ("x", "y")
    for at, (numbers, images) in enumerate(written):
        assert read.sentence(at) == ("push", "pull")[at % 2]
        for key, values in numbers.items():
            np.testing.assert_array_equal(read.columns(at)[key], values)
        film = read.folder / f"videos/chunk-{at // 2:03d}/{TOP}/episode_{at:06d}.mp4"
        np.testing.assert_array_equal(read.frames(at, TOP, range(LENGTHS[at])), decoded(film))
        assert np.abs(decoded(film).astype(int) - images[TOP]).mean() < 8
    assert check_episodes(read).passed


def test_modality_names_slices_cameras_and_sentences(tmp_path: Path):
    write_old(tmp_path / "old", LENGTHS)
    modality = {
        "state": {"arm": {"start": 0, "end": 2}, "hand": {"start": 2, "end": 3, "original_key": "observation.state"}},
        "action": {"all": {}},
        "video": {"ego": {"original_key": TOP}},
        "annotation": {"human.task": {"original_key": "task_index"}},
    }
    path = tmp_path / "old" / "meta" / "modality.json"
    path.write_text(json.dumps(modality))
    read = open_episodes(tmp_path / "old")
    columns = read.columns(2)
    np.testing.assert_array_equal(columns["state.arm"], columns["observation.state"][:, :2])
    np.testing.assert_array_equal(columns["state.hand"], columns["observation.state"][:, 2:])
    np.testing.assert_array_equal(columns["action.all"], columns["action"])
    assert read.numbers["state.hand"].names == ("c",)
    np.testing.assert_array_equal(read.frames(2, "video.ego", [3]), read.frames(2, TOP, [3]))
    assert read.sentence(1, annotation="annotation.human.task") == "pull"
    with pytest.raises(UnknownNameError, match=r"unknown annotation `human`"):
        read.sentence(1, annotation="human")
    modality["state"]["arm"]["end"] = 9
    modality["video"]["ego"] = {"original_key": "observation.images.tap"}
    path.write_text(json.dumps(modality))
    with pytest.raises(
        DataError, match=rf"`state.arm` is 0 to 9 .* has 3 numbers; `video.ego` .* Did you mean `{TOP}`"
    ):
        open_episodes(tmp_path / "old")


@pytest.mark.parametrize("groups", [1, 4, 10_000])
def test_row_groups_may_lie_anywhere(tmp_path: Path, groups: int):
    """Older writers left one row group a file, and pandas cuts where it likes."""
    written = write_set(tmp_path / "set", (5, 1, 12, 7), codec="image")
    path = tmp_path / "set" / "data" / "chunk-000" / "file-000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(6).cast(table.schema), path.with_name("rest"), row_group_size=groups)
    pq.write_table(table, path, row_group_size=groups)
    path.with_name("rest").unlink()
    read = open_episodes(tmp_path / "set")
    for at, (numbers, images) in enumerate(written):
        np.testing.assert_array_equal(read.columns(at)["action"], numbers["action"])
        for key in CAMERAS:
            np.testing.assert_array_equal(read.frames(at, key, [0, len(images[key]) - 1]), images[key][[0, -1]])


@pytest.mark.parametrize("name", ["__index_level_0__", "index", "task"])
def test_sentences_stand_in_an_index_of_any_name_and_order(tmp_path: Path, name: str):
    write_set(tmp_path / "set", (2, 2), codec="image")
    table = pa.table({"task_index": [1, 0], name: ["pull", "push"]})
    pq.write_table(table, tmp_path / "set" / "meta" / "tasks.parquet")
    read = open_episodes(tmp_path / "set")
    assert read.tasks == ("push", "pull")


def test_pandas_reads_the_tasks_as_its_own(tmp_path: Path):
    pandas = pytest.importorskip("pandas")
    write_set(tmp_path / "set", (2, 2), codec="image")
    frame = pandas.read_parquet(tmp_path / "set" / "meta" / "tasks.parquet")
    assert (frame.index.name, list(frame.index)) == ("task", ["push", "pull"])
    assert frame["task_index"].tolist() == [0, 1]


def test_start_of_a_clip_may_have_drifted(tmp_path: Path):
    """A sum of many durations in floats is off a little; the frame is the one that is meant."""
    write_set(tmp_path / "set", (5, 9, 12))
    path = tmp_path / "set" / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    table = pq.read_table(path)
    name = f"videos/{TOP}/from_timestamp"
    drifted = pa.array([one + 0.03 for one in table[name].to_pylist()])
    pq.write_table(table.set_column(table.column_names.index(name), name, drifted), path)
    film = decoded(tmp_path / "set" / "videos" / TOP / "chunk-000" / "file-000.mp4")
    read = open_episodes(tmp_path / "set")
    np.testing.assert_array_equal(read.frames(2, TOP, [0, 11]), film[[14, 25]])


def test_columns_of_lists_of_lists_and_texts(tmp_path: Path):
    write_set(tmp_path / "set", (3,), codec="image")
    path = tmp_path / "set" / "data" / "chunk-000" / "file-000.parquet"
    grid = [[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]], [[0.0, 0.0], [0.0, 1.0]]]
    table = pq.read_table(path).append_column("grid", pa.array(grid, pa.list_(pa.list_(pa.float32()))))
    pq.write_table(table.append_column("note", pa.array(["a", "b", "c"])), path)
    info = tmp_path / "set" / "meta" / "info.json"
    raw = json.loads(info.read_text())
    raw["features"] |= {
        "grid": {"dtype": "float32", "shape": [2, 2], "names": None},
        "note": {"dtype": "string", "shape": [1], "names": None},
    }
    info.write_text(json.dumps(raw))
    read = open_episodes(tmp_path / "set")
    np.testing.assert_array_equal(read.columns(0)["grid"], np.array(grid, np.float32))
    assert read.columns(0, ["note"])["note"].tolist() == ["a", "b", "c"]
