"""The videos of a set against its episodes: each file is there, of the right size and rate, and has every frame.

Packets are listed and not decoded, but for the first frame of each file.
"""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from vertebra.episodes.episode_set import EpisodeSet
from vertebra.episodes.needed import video
from vertebra.episodes.report import Noted
from vertebra.episodes.tables import ADVICE, whole_file
from vertebra.errors import DataError


def check_videos(given: EpisodeSet, noted: Noted) -> None:
    """Every file of every camera."""
    for key, camera in given.info.cameras.items():
        if not camera.video:
            continue
        files: dict[str, list[tuple[int, float, int]]] = defaultdict(list)
        for at, episode in enumerate(given.episodes):
            try:
                name, start = given.places.clip(at, key)
            except DataError as error:
                noted.add("files", f"episode {episode.index}: {error}", skip=[episode.index])
                continue
            files[name].append((episode.index, start, episode.length))
        for name, clips in files.items():
            _check_file(given, key, name, clips, noted)


def _check_file(given: EpisodeSet, key: str, name: str, clips: list[tuple[int, float, int]], noted: Noted) -> None:
    path = given.folder / name
    everyone = [episode for episode, _, _ in clips]
    try:
        times, size, rate = _listed(path)
    except DataError as error:
        noted.add("files", f"{_some(everyone)}: {error}", skip=everyone)
        return
    if size != given.sizes[key]:
        noted.add("videos", f"`{name}` is {size[0]} × {size[1]}, and info.json says {given.sizes[key]}", skip=everyone)
    if rate is not None and abs(rate / given.fps - 1) > 0.01:
        noted.add("frames per second", f"`{name}` has {rate:.4g} frames a second, and info.json says {given.fps}")
    _check_overlaps(given, name, clips, noted)
    for episode, start, length in clips:
        # a length that `meta` has wrong may be any number: what lies beyond every frame is counted, and not listed
        listed = min(length, len(times) + 1)
        expected = (round(start * given.fps) + np.arange(listed)) / given.fps
        off = _distance(times, expected)
        lost = off > 0.5 / given.fps + 1e-6
        if lost.any():
            first = int(lost.argmax())
            noted.add(
                "videos",
                f"episode {episode}: `{name}` has no frame near {expected[first]:.3f} s (frame {first} of {length}; "
                f"{int(lost.sum()) + length - listed} are missing); it ends at {times.max(initial=0):.3f} s",
                skip=[episode],
            )


def _check_overlaps(given: EpisodeSet, name: str, clips: list[tuple[int, float, int]], noted: Noted) -> None:
    """Two episodes that have frames of a file in common: one of them shows what another did. A frame is rounding's.
    Of an episode that is wrong already, the length may be what is wrong."""
    before, end = -1, 0
    known = [(round(start * given.fps), number, length) for number, start, length in clips if number not in noted.skip]
    for start, episode, length in sorted(known):
        if before >= 0 and start < end - 1:
            message = f"begins at {start / given.fps:.3f} s of `{name}`, inside of episode {before}"
            noted.add("videos", f"episode {episode} {message}", skip=[episode])
        if start + length > end:
            before, end = episode, start + length


def _listed(path: Path) -> tuple[np.ndarray, tuple[int, int], float | None]:
    """(the time of each frame from the first on, (height, width), frames a second)."""
    av = video()
    with whole_file(path), av.open(str(path)) as file:
        if not file.streams.video:
            raise DataError(f"`{path}` has no video in it; {ADVICE}")
        stream = file.streams.video[0]
        stream.codec_context.thread_count = 1
        base, begin = Fraction(stream.time_base), stream.start_time or 0
        first: Any = next(file.decode(stream), None)
        if first is None:
            raise DataError(f"`{path}` has no frame in it; {ADVICE}")
        file.seek(min(begin, 0), stream=stream)
        ticks, hole = [], None
        for packet in file.demux(stream):
            if packet.pts is None:
                continue
            ticks.append(packet.pts)
            if hole is None and not any(bytes(packet)):
                hole = float((packet.pts - begin) * base)
        if hole is not None:
            # its length was set before its content came
            raise DataError(
                f"`{path}` holds nothing but zeros from {hole:.3f} s on, as a download that broke off leaves it; {ADVICE}"
            )
        times = np.sort(np.array(ticks, np.float64) - begin) * float(base)
        step = float(np.median(np.diff(times))) if len(times) > 2 else 0.0
        rate = 1 / step if step > 0 else None  # of most frames: files of many episodes may have gaps between them
        return times, (first.height, first.width), rate


def _distance(times: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """How far the nearest time is from each that is expected."""
    if not len(times):
        return np.full(len(expected), np.inf)
    after = np.clip(np.searchsorted(times, expected), 0, len(times) - 1)
    before = np.clip(after - 1, 0, None)
    return np.asarray(np.minimum(np.abs(times[after] - expected), np.abs(times[before] - expected)))


def _some(episodes: list[int]) -> str:
    shown = ", ".join(map(str, episodes[:6]))
    return f"episode{'s' if len(episodes) > 1 else ''} {shown}{' …' if len(episodes) > 6 else ''}"
