"""Episodes as people look at them: strips show the frames and the actions, pages stand alone, histograms count everything."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.episodes.made import NUMBERS, TOP, WRIST, episode_of, write_set
from vertebra.cli.episodes import BARS, sparks
from vertebra.data.look.film_strip import GAP, SIDE, film_strip, page, spread_over, written
from vertebra.data.look.histograms import numbers_of, write_histograms
from vertebra.episodes import EpisodeWriter, open_episodes
from vertebra.errors import DataError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("sets") / "cubes"
    write_set(made, (5, 1, 12), codec="image", sentences=("push <it>", "pull"))
    return made


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


@given(st.integers(1, 40), st.integers(1, 12))
def test_frames_are_spread_from_the_first_to_the_last(length: int, count: int):
    chosen = spread_over(length, count)
    assert len(chosen) == len(set(chosen)) == min(length, count)
    assert chosen[0] == 0
    assert count == 1 or chosen[-1] == length - 1


@pytest.mark.parametrize("episode", [0, 1, 2])
def test_a_strip_shows_the_frames_of_each_camera(folder: Path, episode: int):
    read = open_episodes(folder)
    strip = np.asarray(film_strip(read, episode, count=4))
    length = read.episodes[episode].length
    for row, camera in enumerate((TOP, WRIST)):
        frames = read.frames(episode, camera, spread_over(length, 4))
        wide = round(frames.shape[2] * SIDE / frames.shape[1])
        for number, frame in enumerate(frames):
            left, top = number * (wide + GAP), row * (SIDE + GAP)
            shown = strip[top + 30 : top + SIDE, left : left + wide].astype(float)
            large = np.asarray(Image.fromarray(frame).resize((wide, SIDE)))[30:]
            assert np.abs(shown - large).mean() < 1
    assert (strip[2 * (SIDE + GAP) :] != 255).any(), "actions are drawn"


def test_a_page_stands_alone_and_means_what_it_shows(folder: Path, tmp_path: Path):
    read = open_episodes(folder)
    made = page(read, [2, 0], count=3)
    assert "push &lt;it&gt;" in made
    assert "http" not in made
    pictures = re.findall(r"base64,([^']+)'", made)
    assert len(pictures) == 2
    assert Image.open(io.BytesIO(base64.b64decode(pictures[0]))).size == film_strip(read, 2, count=3).size
    least = read.columns(2, ["action"])["action"].min(0)
    assert f"<td>x</td><td>{least[0]:.4g}</td>" in made
    with pytest.raises(DataError, match="cannot be written"):
        written(tmp_path / "none" / "page.html", made)


def test_histograms_count_every_number_and_mark_what_is_dead(folder: Path, tmp_path: Path):
    found = numbers_of(open_episodes(folder))
    assert found.lengths.tolist() == [5, 1, 12]
    assert found.by_task == {"push <it>": 2, "pull": 1}
    assert found.frames_of("push <it>") == 8.5
    assert found.vectors["action"].shape == (18, 2)
    with EpisodeWriter(tmp_path / "dead", fps=5, cameras={}, numbers=NUMBERS) as writer:
        for seed in range(2):
            numbers, _ = episode_of(6, seed, {})
            numbers["action"][:, 1] = 3
            writer.add("push", numbers, {})
    dead = numbers_of(open_episodes(tmp_path / "dead"))
    assert (dead.dead("action"), dead.dead("observation.state")) == (["y"], [])
    for which in (found, dead):
        assert size_of(write_histograms(tmp_path / "out.png", which, title="set"))[0] > 500


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=100))
def test_sparks_rise_where_numbers_do(values: list[float]):
    line = sparks(np.array(values))
    assert len(line) == min(40, len(values))
    assert sparks(np.arange(8.0)) == BARS
    assert set(line) <= set(BARS)


def test_the_commands(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from tests.training.test_run import call

    html, png, out = tmp_path / "a.html", tmp_path / "a.png", tmp_path / "h.png"
    call("data", "show", folder, "-n", 2, "--episode", 1, "--html", html, "--picture", png)
    output = capsys.readouterr().out
    assert "episode 1, 1 frames: pull" in output
    assert "episode 2, 12 frames: push <it>" in output
    assert html.is_file()
    assert size_of(png)[1] > 2 * SIDE
    call("data", "stats", folder, "--out", out, "--json")
    made = json.loads(capsys.readouterr().out)
    assert made["lengths"] == [5, 1, 12]
    assert out.is_file()
    call("data", "stats", folder, "--batch-size", 4, code=2)
    call("data", "show", folder, "--episode", 7, code=1)
