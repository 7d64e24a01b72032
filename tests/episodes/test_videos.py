"""Frames in any order are those that decoding everything gives, wherever key frames lie; workers open files of their own."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vertebra.episodes.videos import Videos
from vertebra.errors import DataError

from .made import decoded, images_of, write_film

LENGTH = 40


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    images = images_of(LENGTH, (64, 64), 1)
    write_film(folder / "g2.mp4", images, fps=10, gop=2)
    write_film(folder / "g12.mp4", images, fps=30, gop=12)
    write_film(folder / "b3.mp4", images, fps=24, gop=12, bf=3)
    write_film(folder / "one-key.mp4", images, fps=15, gop=250)
    write_film(folder / "av1.mp4", images, fps=7, gop=5, codec="libsvtav1")
    return folder


FPS = {"g2.mp4": 10, "g12.mp4": 30, "b3.mp4": 24, "one-key.mp4": 15, "av1.mp4": 7}


@pytest.mark.parametrize("name", FPS)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=st.lists(st.lists(st.integers(0, LENGTH - 1), min_size=1, max_size=4), min_size=1, max_size=6))
def test_any_order_is_as_decoding_everything(films: Path, name: str, asked: list[list[int]]):
    plain = decoded(films / name)
    assert len(plain) == LENGTH
    videos = Videos(films, FPS[name])
    for numbers in asked:
        np.testing.assert_array_equal(videos.frames(name, numbers), plain[numbers])


@pytest.mark.parametrize("name", FPS)
def test_all_in_order_and_then_the_first_again(films: Path, name: str):
    plain, videos = decoded(films / name), Videos(films, FPS[name])
    for number in (*range(LENGTH), 0, LENGTH - 1, LENGTH - 1, LENGTH - 2):
        np.testing.assert_array_equal(videos.frames(name, [number])[0], plain[number])


def test_a_file_of_another_rate_gives_the_nearest_frame(films: Path):
    plain, videos = decoded(films / "g12.mp4"), Videos(films, 10)
    for number in (0, 5, 6, 2, 13):
        np.testing.assert_array_equal(videos.frames("g12.mp4", [number])[0], plain[3 * number])
    with pytest.raises(DataError, match="has no frame 14"):
        videos.frames("g12.mp4", [14])
    np.testing.assert_array_equal(videos.frames("g12.mp4", [1])[0], plain[3])


def test_beyond_the_end_is_an_error_and_the_file_can_be_used_on(films: Path):
    videos = Videos(films, 10)
    with pytest.raises(DataError, match=r"has no frame 40 \(4\.000 s\); it is 4\.000 s long"):
        videos.frames("g2.mp4", [3, 40])
    np.testing.assert_array_equal(videos.frames("g2.mp4", [3])[0], decoded(films / "g2.mp4")[3])


def test_few_files_stay_open(films: Path):
    videos = Videos(films, 10, most=2)
    for name in FPS:
        videos.frames(name, [0])
    assert len(videos._open) == 2


def _in_worker(videos: Videos, numbers: list[int], answers: object) -> None:
    answers.put((os.getpid(), videos.frames("g12.mp4", numbers)))  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_workers_open_their_own(films: Path):
    plain, videos = decoded(films / "g12.mp4"), Videos(films, 30)
    videos.frames("g12.mp4", [20])
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    asked = [[30, 2], [5, 39]]
    workers = [context.Process(target=_in_worker, args=(videos, numbers, answers)) for numbers in asked]
    for worker in workers:
        worker.start()
    got = [answers.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(60)
    np.testing.assert_array_equal(videos.frames("g12.mp4", [21])[0], plain[21])
    assert len({process for process, _ in got} | {os.getpid()}) == 3
    assert {one.tobytes() for _, one in got} == {plain[numbers].tobytes() for numbers in asked}


def test_pickled_for_a_spawned_worker_without_its_files(films: Path):
    videos = Videos(films, 30)
    videos.frames("g12.mp4", [20])
    copy = pickle.loads(pickle.dumps(videos))
    assert len(copy._open) == 0
    np.testing.assert_array_equal(copy.frames("g12.mp4", [20]), videos.frames("g12.mp4", [20]))
