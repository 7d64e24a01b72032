"""Files of other recorders by a schema: .npz, HDF5 and RLDS give one and the same set; the commands, and what they refuse."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from vertebra.cli.main import app
from vertebra.episodes import EpisodesSchema, check_episodes, convert_episodes, open_episodes
from vertebra.errors import CheckpointError, ConfigError, DataError, MissingPartError, UnknownNameError

from .made import TOP, images_of, write_old, write_set
from .test_wire import example_of, record_of

h5py = pytest.importorskip("h5py")
LENGTHS = (4, 2, 3)
SENTENCES = ("push the cup", "pull the cup", "push the cup")


def made(seed: int) -> dict[str, Any]:
    rng, length = np.random.default_rng(seed), LENGTHS[seed]
    return {
        "pose": rng.normal(size=(length, 3)).astype(np.float32),
        "gripper": rng.normal(size=length).astype(np.float32),
        "actions": rng.normal(size=(length, 2)).astype(np.float32),
        "image": images_of(length, (32, 48), seed),
    }


def write_npz(folder: Path) -> dict[str, Any]:
    folder.mkdir()
    for seed, sentence in enumerate(SENTENCES):
        np.savez(folder / f"episode_{seed}.npz", sentence=np.array(sentence), **made(seed))
    return {"files": "*.npz", "sentence_from": "sentence"}


def write_hdf5(folder: Path) -> dict[str, Any]:
    folder.mkdir()
    with h5py.File(folder / "demos.hdf5", "w") as file:
        for seed, sentence in enumerate(SENTENCES):
            group = file.create_group(f"data/demo_{seed + 8}")  # demo_10 behind demo_9
            group.attrs["sentence"] = sentence
            for name, values in made(seed).items():
                group[name] = np.moveaxis(values, 3, 1) if name == "image" else values
    return {"files": "*.hdf5", "episodes": "data/*", "sentence_from": "sentence"}


def write_rlds(folder: Path) -> dict[str, Any]:
    folder.mkdir()
    content = b""
    for seed, sentence in enumerate(SENTENCES):
        values = made(seed)
        features = {f"steps/{name}": values[name] for name in ("pose", "gripper", "actions")}
        features["steps/image"] = [png(image) for image in values["image"]]
        features["steps/is_first"] = np.arange(LENGTHS[seed]) == 0
        features["steps/sentence"] = [sentence.encode()] * LENGTHS[seed]
        content += record_of(example_of(features))
    (folder / "set-train.tfrecord-00000-of-00001").write_bytes(content)
    return {"files": "*.tfrecord*", "sentence_from": "steps/sentence"}


def png(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize("write", [write_npz, write_hdf5, write_rlds])
def test_three_recorders_one_set(tmp_path: Path, write: Any):
    more = write(tmp_path / "in")
    under = "steps/" if write is write_rlds else ""
    schema = EpisodesSchema(
        fps=5,
        numbers={"observation.state": [f"{under}pose", f"{under}gripper"], "action": f"{under}actions"},
        cameras={TOP: f"{under}image"},
        names={"action": ["x", "y"]},
        robot="arm",
        codec="image",
        **more,
    )
    counted: list[int] = []
    convert_episodes(tmp_path / "in", tmp_path / "out", schema=schema, progress=counted.append)
    read = open_episodes(tmp_path / "out")
    assert (read.fps, read.robot, read.sizes, counted) == (5, "arm", {TOP: (32, 48)}, [1, 2, 3])
    assert read.numbers["action"].names == ("x", "y")
    assert read.numbers["observation.state"].names[3] == "observation.state.3"
    for seed, sentence in enumerate(SENTENCES):
        values = made(seed)
        assert read.sentence(seed) == sentence
        np.testing.assert_array_equal(read.columns(seed)["action"], values["actions"])
        state = np.column_stack([values["pose"], values["gripper"]])
        np.testing.assert_array_equal(read.columns(seed)["observation.state"], state)
        np.testing.assert_array_equal(read.frames(seed, TOP, range(LENGTHS[seed])), values["image"])
    assert check_episodes(read).passed


def test_faults_name_the_file_and_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_npz(tmp_path / "in")
    good = {"fps": 5, "numbers": {"action": "actions"}, "files": "*.npz", "sentence": "push"}
    with pytest.raises(UnknownNameError, match=r"episode_0.npz`: `action`. Did you mean `actions`"):
        convert_episodes(
            tmp_path / "in", tmp_path / "out", schema=EpisodesSchema(**{**good, "numbers": {"action": "action"}})
        )
    with pytest.raises(DataError, match=r"`gripper` is float32 of the shape \(4,\); expected uint8"):
        convert_episodes(tmp_path / "in", tmp_path / "out", schema=EpisodesSchema(**good, cameras={TOP: "gripper"}))
    with pytest.raises(DataError, match=r"has no file `\*.hdf5`"):
        convert_episodes(tmp_path / "in", tmp_path / "out", schema=EpisodesSchema(**{**good, "files": "*.hdf5"}))
    np.savez(tmp_path / "in" / "episode_1.npz", actions=np.full((2, 2), np.nan))
    with pytest.raises(DataError, match=r"episode_1.npz`: .*`action` is NaN or infinite, first at frame 0"):
        convert_episodes(tmp_path / "in", tmp_path / "out", schema=EpisodesSchema(**good))
    convert_episodes(tmp_path / "in", tmp_path / "fine", schema=EpisodesSchema(**good), skip=[1])
    assert [one.length for one in open_episodes(tmp_path / "fine").episodes] == [4, 3]
    with pytest.raises(ConfigError, match="either `sentence`"):
        EpisodesSchema(fps=5, numbers={"action": "a"})
    with pytest.raises(ConfigError, match="a schema has to say what is where"):
        convert_episodes(tmp_path / "in", tmp_path / "out")
    write_hdf5(tmp_path / "h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingPartError, match=r"vertebra\[hdf5\]"):
        convert_episodes(tmp_path / "h5", tmp_path / "out", schema=EpisodesSchema(**{**good, "files": "*.hdf5"}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fine", "h5", "in"]


def ran(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_commands_from_an_old_set_to_a_checked_one(tmp_path: Path):
    write_old(tmp_path / "old", (4, 1, 3))
    skip = tmp_path / "skip.json"
    done = ran("data", "check", tmp_path / "old", "--skip", skip)
    assert done.exit_code == 0
    assert "nothing would stop or spoil a run; worth a look: one frame" in done.stdout
    assert json.loads(skip.read_text()) == [1]
    done = ran("data", "convert", tmp_path / "old", tmp_path / "new", "--skip", skip)
    assert done.exit_code == 0, done.output
    assert "2 episodes, 7 frames, 1 tasks" in done.stdout
    report = json.loads(ran("data", "check", tmp_path / "new", "--json").stdout)
    assert (report["passed"], report["episodes"], report["skip"]) == (True, 2, [])
    (tmp_path / "new" / "data" / "chunk-000" / "file-000.parquet").unlink()
    done = ran("data", "check", tmp_path / "new")
    assert done.exit_code == 1
    assert "must be mended, or left out: files" in done.stdout


def test_a_schema_from_a_file_and_options_without_effect(tmp_path: Path):
    more = write_npz(tmp_path / "in")
    path = tmp_path / "schema.yaml"
    path.write_text(
        f"fps: 5\nfiles: '{more['files']}'\nsentence: push\nnumbers: {{action: actions}}\ncameras: {{{TOP}: image}}\n"
    )
    done = ran("data", "convert", tmp_path / "in", tmp_path / "out", "--schema", path)
    assert done.exit_code == 0, done.output
    assert len(open_episodes(tmp_path / "out").episodes) == 3
    path.write_text("fps: 5\nsentence: push\nnumbrs: {}\n")
    done = ran("data", "convert", tmp_path / "in", tmp_path / "other", "--schema", path)
    assert isinstance(done.exception, ConfigError)
    assert "Did you mean" in str(done.exception)
    write_set(tmp_path / "set", (2,))
    for words in (["--model", "x"], ["--no-packing"]):
        done = ran("data", "check", tmp_path / "set", *words)
        assert done.exit_code == 2
        assert "has no effect on a set of episodes" in " ".join(done.output.replace("│", " ").split())
    done = ran("data", "convert", tmp_path / "set", tmp_path / "other", "--skip", "a,b")
    assert done.exit_code == 2


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_no_overwrite_gives_away_what_is_read_or_what_is_no_set(tmp_path: Path):
    schema = EpisodesSchema(fps=5, numbers={"action": "actions"}, files="*.npz", sentence="push")
    (tmp_path / "up").mkdir()
    write_npz(tmp_path / "up" / "in")
    write_old(tmp_path / "up" / "old")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years")
    before = contents(tmp_path)
    for source, target, words in (
        ("up/in", "up/in", "is `.*up/in`, which is read here"),
        ("up/in", "up", "holds `.*up/in`, which is read here"),
        (
            "up/in",
            "home",
            r"holds something else \(thesis.txt\), and is not replaced: only a folder with meta/info.json is",
        ),
        ("up/old", "up/old", "is `.*up/old`, which is read here"),
        ("up/old", "up", "holds `.*up/old`, which is read here"),
        ("up/old", "home", "holds something else"),
    ):
        with pytest.raises(CheckpointError, match=words):
            convert_episodes(
                tmp_path / source, tmp_path / target, overwrite=True, schema=schema if source == "up/in" else None
            )
        assert contents(tmp_path) == before
    convert_episodes(tmp_path / "up" / "in", tmp_path / "set", schema=schema)
    convert_episodes(tmp_path / "up" / "old", tmp_path / "set", overwrite=True)  # a set may be replaced
    assert len(open_episodes(tmp_path / "set").episodes) == 3
    assert {name: data for name, data in contents(tmp_path).items() if not name.startswith("set/")} == before


def test_episodes_to_leave_out_are_there(tmp_path: Path):
    """A number mistyped would leave in what was meant to be left out."""
    write_npz(tmp_path / "in")
    schema = EpisodesSchema(fps=5, numbers={"action": "actions"}, files="*.npz", sentence="push")
    with pytest.raises(DataError, match=r"names the episodes \[3, 7\], and `.*in` has 0 to 2"):
        convert_episodes(tmp_path / "in", tmp_path / "out", schema=schema, skip=[0, 3, 7])
    assert not (tmp_path / "out").exists()
    convert_episodes(tmp_path / "in", tmp_path / "out", schema=schema, skip=[2])
    assert len(open_episodes(tmp_path / "out").episodes) == 2


def test_an_episode_that_lost_its_line_is_not_left_out_in_silence(tmp_path: Path):
    write_old(tmp_path / "old")
    listing = tmp_path / "old" / "meta" / "episodes.jsonl"
    rows = listing.read_text().splitlines(keepends=True)
    listing.write_text("".join(rows[:1] + rows[2:]))
    with pytest.raises(DataError, match=r"has 3 episodes by its info.json, and .* lists 2: 1 would be left out"):
        convert_episodes(tmp_path / "old", tmp_path / "out")
    with pytest.raises(DataError, match=r"names the episodes \[3\]"):
        convert_episodes(tmp_path / "old", tmp_path / "out", skip=[1, 3])
    about = tmp_path / "old" / "meta" / "info.json"
    before = about.read_text()
    about.write_text(json.dumps(json.loads(before) | {"total_episodes": 10**12}))
    with pytest.raises(DataError, match=r"lists 2: 1, 3, 4, 5, 6, 7 … would be left out"):
        convert_episodes(tmp_path / "old", tmp_path / "out")
    about.write_text(before)
    assert not (tmp_path / "out").exists()
    convert_episodes(tmp_path / "old", tmp_path / "out", skip=[1])
    assert len(open_episodes(tmp_path / "out").episodes) == 2


@pytest.mark.parametrize("shape", [(0, 2), (3, 0)])
def test_an_empty_array_is_refused_by_its_file(shape: tuple[int, int], tmp_path: Path):
    write_npz(tmp_path / "in")
    np.savez(tmp_path / "in" / "episode_2.npz", actions=np.zeros(shape, np.float32))
    schema = EpisodesSchema(fps=5, numbers={"action": "actions"}, files="*.npz", sentence="push")
    with pytest.raises(
        DataError, match=rf"episode_2.npz`: `actions` is empty, of the shape \({shape[0]}, {shape[1]}\)"
    ):
        convert_episodes(tmp_path / "in", tmp_path / "out", schema=schema)
    convert_episodes(tmp_path / "in", tmp_path / "out", schema=schema, skip=[2])


def test_numbers_that_are_none_are_counted_in_the_statistics(tmp_path: Path):
    write_set(tmp_path / "set", (5, 8, 6))
    path = tmp_path / "set" / "data" / "chunk-000" / "file-000.parquet"
    table = pq.read_table(path)
    rows = table["action"].to_pylist()
    rows[7] = [float("nan"), *rows[7][1:]]
    at = table.column_names.index("action")
    pq.write_table(table.set_column(at, "action", pa.array(rows, table.schema.field("action").type)), path)
    done = ran("data", "stats", tmp_path / "set", "--out", tmp_path / "it.png")
    assert "action: 1 of 19 frame is not finite and left out of its numbers" in done.stdout.replace("\n", " ")
    made = json.loads(ran("data", "stats", tmp_path / "set", "--out", tmp_path / "it.png", "--json").stdout)
    assert made["left_out"] == {"action": 1}
    assert made["vectors"]["action"]["count"] == 18


@pytest.mark.parametrize("command", ["check", "show", "stats"])
def test_a_set_without_its_first_file_is_called_one(command: str, tmp_path: Path):
    write_set(tmp_path / "set", (2, 3))
    (tmp_path / "set" / "meta" / "info.json").unlink()
    done = ran("data", command, tmp_path / "set")
    assert done.exit_code != 0
    assert "looks like a set of a robot's episodes" in str(done.exception)
