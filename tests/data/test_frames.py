"""Kept frames: those that were asked for, made once, whole or not at all, the same in a worker."""

from __future__ import annotations

import pickle
from collections.abc import Sequence

import numpy as np
import pytest

from vertebra.data.read.frames import FILE, Frames, KeptFrames
from vertebra.errors import DataError


class Films:
    """Episodes whose every frame says which it is; counts what is decoded."""

    def __init__(self) -> None:
        self.decoded: list[tuple[int, list[int]]] = []

    def __call__(self, episode: int, frames: Sequence[int]) -> np.ndarray:
        self.decoded.append((episode, list(frames)))
        return np.stack([np.full((4, 6, 3), 10 * episode + frame, np.uint8) for frame in frames])


def prepare(images: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack([image[:2, :2].transpose(2, 0, 1) for image in images])


WANTED = {3: [0, 2, 5], 1: [4], 2: [0, 1]}


def test_kept_frames_are_those_that_are_decoded(tmp_path):
    films = Films()
    plain = Frames(Films(), prepare)
    options = {"requested": WANTED, "size": 2, "content": "a", "folder": tmp_path}
    kept = KeptFrames(films, prepare, **options)
    for episode, frames in WANTED.items():
        for asked in (frames, frames[::-1], [frames[-1], frames[-1]]):
            assert np.array_equal(kept(episode, asked), plain(episode, asked))
    assert [episode for episode, _ in films.decoded] == [3, 1, 2], "each episode once"
    again = KeptFrames(films, prepare, **options)
    assert np.array_equal(pickle.loads(pickle.dumps(kept))(3, [2]), again(3, [2]))
    assert len(films.decoded) == 3, "found where it was kept"
    KeptFrames(films, prepare, **{**options, "content": "b"})
    assert len(films.decoded) == 6, "other films are other frames"


def test_what_breaks_off_leaves_nothing(tmp_path):
    def broken(episode: int, frames: Sequence[int]) -> np.ndarray:
        if episode == 1:
            raise DataError("half a film")
        return Films()(episode, frames)

    with pytest.raises(DataError, match="half a film"):
        KeptFrames(broken, prepare, requested=WANTED, size=2, content="a", folder=tmp_path)
    assert not list(tmp_path.rglob(FILE))
    with pytest.raises(DataError, match=r"frames of shape .* expected \(3, 9, 9\)"):
        KeptFrames(Films(), prepare, requested=WANTED, size=9, content="a", folder=tmp_path)
