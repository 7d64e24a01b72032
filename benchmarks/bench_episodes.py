"""Frames of episodes in any order beside PyAV alone: decoding everything in order, and opening, leaping and decoding anew.

    python benchmarks/bench_episodes.py          half a minute; needs the extra `robots`

One thread, process time, medians. A loader that draws frames at random waits for nothing where a random frame costs little
more than a decoded one; `wait` is what a batch of 64 frames costs, which a training step must last. Then a training itself
(recipe metaworld-five, one camera): how long a step waits for its batch, by the clock.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
import torch

from timing import Work, in_turn, line
from vertebra.episodes import EpisodeSet, EpisodeWriter, open_episodes
from vertebra.training.building import build_model
from vertebra.training.data import build_data
from vertebra.training.recipes import read_recipe

EPISODES, LENGTH, SIDE, BATCH, ROUNDS = 24, 100, 128, 64, 5
CAMERA = "observation.images.top"


def images(seed: int) -> np.ndarray:
    """A scene that moves: smooth, with edges, so that codecs have something to do."""
    y, x = np.mgrid[:SIDE, :SIDE]
    frames = np.arange(LENGTH)[:, None, None]
    red = 127 + 90 * np.sin(x / 9 + frames / 7 + seed)
    green = np.where((x - 64 - 40 * np.sin(frames / 15)) ** 2 + (y - 64) ** 2 < 300, 220, 60)
    blue = 127 + 90 * np.cos(y / 13 - frames / 11 + seed) + 0 * x
    return np.stack([red, green, blue], -1).astype(np.uint8)


def write(folder: Path, codec: Any) -> EpisodeSet:
    with EpisodeWriter(
        folder, fps=10, cameras={CAMERA: (SIDE, SIDE)}, numbers={"action": list("xyzg")}, codec=codec
    ) as out:
        for seed in range(EPISODES):
            out.add("push", {"action": np.zeros((LENGTH, 4), np.float32)}, {CAMERA: images(seed)})
    return open_episodes(folder)


def drawn(seed: int, frames: int = 1) -> Iterator[tuple[int, list[int]]]:
    """Endless (episode, frames that follow each other)."""
    rng = np.random.default_rng(seed)
    while True:
        first = int(rng.integers(LENGTH - frames + 1))
        yield int(rng.integers(EPISODES)), list(range(first, first + frames))


def everything(path: Path) -> int:
    with av.open(str(path)) as film:
        film.streams.video[0].codec_context.thread_count = 1
        return sum(frame.to_ndarray(format="rgb24").shape[0] > 0 for frame in film.decode(video=0))


def one_anew(path: Path, second: float) -> np.ndarray:
    """What a data set does that keeps nothing open."""
    with av.open(str(path)) as film:
        stream = film.streams.video[0]
        stream.codec_context.thread_count = 1
        film.seek(int(second / stream.time_base), stream=stream)
        for frame in film.decode(stream):
            if frame.time is not None and frame.time >= second - 0.05:
                return frame.to_ndarray(format="rgb24")
    raise AssertionError


def works(episodes: EpisodeSet, path: Path) -> dict[str, Work]:
    singles, pairs, theirs = drawn(0), drawn(1, 2), drawn(0)

    def random() -> None:
        for _, (episode, frames) in zip(range(BATCH), singles, strict=False):
            episodes.frames(episode, CAMERA, frames)

    def random_pairs() -> None:
        for _, (episode, frames) in zip(range(BATCH // 2), pairs, strict=False):
            episodes.frames(episode, CAMERA, frames)

    def in_order() -> None:
        for episode in range(EPISODES):
            episodes.frames(episode, CAMERA, range(LENGTH))

    def anew() -> None:
        for _, (episode, frames) in zip(range(BATCH), theirs, strict=False):
            one_anew(path, (episode * LENGTH + frames[0]) / 10)

    return {
        "PyAV: everything in order": lambda: everything(path),
        "ours: everything in order": in_order,
        "ours: random frames": random,
        "ours: random pairs": random_pairs,
        "PyAV: random frames, opened anew": anew,
    }


def waits(folder: Path, *settings: str) -> tuple[float, float]:
    """(seconds that a step waits for its batch, seconds of the step), medians of a training once it has gone over its data."""
    config = read_recipe(
        "metaworld-five", [f"data.path={folder}", "data.options.state=[]", "data.held_out=0", *settings]
    )
    model = build_model(config)
    loader = build_data(config, model).loader(BATCH)
    batches = chain.from_iterable(repeat(loader))
    for _ in range(EPISODES * LENGTH // BATCH):  # each frame is met once, and kept where it is kept
        next(batches)
    model.train()
    waited, steps = [], []
    for _ in range(3 * ROUNDS):
        begun = time.perf_counter()
        batch = next(batches)
        waited.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        model(**batch).loss.backward()
        model.zero_grad(set_to_none=True)
        steps.append(time.perf_counter() - begun)
    return median(waited), median(steps)


def loaders(folder: Path, codec: str) -> None:
    ways = {
        "prepared frames kept (as recipes do)": (),
        "the same, and a worker": ("data.workers=1",),
        "decoded in every epoch": ("data.cache=false",),
        "decoded by a worker": ("data.cache=false", "data.workers=1"),
    }
    for name, settings in ways.items():
        waited, step = waits(folder, *settings)
        beside = f"{waited / (waited + step):.1%} of a step and its batch, {1000 * (waited + step):.0f} ms"
        line(f"{codec}: {name}", waited * 1000, unit="ms waited", beside=beside)


def main() -> None:
    torch.set_num_threads(1)
    total = EPISODES * LENGTH
    with tempfile.TemporaryDirectory() as place:
        for codec in ("h264", "av1"):
            start = time.process_time()
            episodes = write(Path(place) / codec, codec)
            path = Path(place) / codec / f"videos/{CAMERA}/chunk-000/file-000.mp4"
            print(
                f"{codec}, {SIDE} × {SIDE}, {total} frames in one file, {path.stat().st_size / total / 1024:.1f} KiB a frame"
            )
            line("writing", total / (time.process_time() - start), unit="frames / CPU s")
            taken = in_turn(works(episodes, path), rounds=ROUNDS, clock=time.process_time)
            plain = taken["PyAV: everything in order"] / total
            for name, seconds in taken.items():
                count = total if "order" in name else BATCH
                beside = f"{seconds / count / plain:.2f} × a frame of PyAV in order"
                line(name, count / seconds, unit="frames / CPU s", beside=beside)
            line(f"wait: a batch of {BATCH} random frames", taken["ours: random frames"] * 1000, unit="ms")
            loaders(Path(place) / codec, codec)


if __name__ == "__main__":
    main()
