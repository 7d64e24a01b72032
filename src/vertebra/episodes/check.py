"""`check_episodes`: whether a set of episodes is what it says it is, before a training meets the difference.

A `fail` would stop or spoil a run; a `note` is worth a look. Everything is read once, an episode at a time; videos are
listed and not decoded, but for one frame a file. It changes nothing, and names the episodes that a run can leave out.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vertebra.action.counting import Counter
from vertebra.episodes.check_videos import check_videos
from vertebra.episodes.episode_set import EpisodeSet, open_episodes
from vertebra.episodes.facts import BOOKKEEPING, NUMERIC, Episode
from vertebra.episodes.report import EpisodesFinding, EpisodesReport, Noted, Range, Status
from vertebra.episodes.statistics import finite_rows, fits
from vertebra.errors import DataError, shortened

TOLERANCE = 1e-4
"""Seconds by which LeRobot lets a time be off."""
FAR = 10.0
"""A number beyond so many times the range of the middle 98 % is worth a look."""

KINDS: Mapping[str, tuple[Status, str]] = {
    "files": ("fail", "missing, cut off, or unreadable"),
    "counts": ("fail", "rows are fewer or more than `meta` says, or stand there twice"),
    "columns": ("fail", "missing from a file, no numbers, or of another shape"),
    "frame numbers": ("fail", "a frame, an index or an episode is counted wrongly"),
    "timestamps": ("fail", "off by half a frame or more"),
    "loose timestamps": ("note", f"off by more than {TOLERANCE} s, which LeRobot's own reader refuses"),
    "frames per second": ("fail", "of the times or a video, and not what info.json says"),
    "not finite": ("fail", "NaN, infinite, or beyond what 32 bits hold"),
    "tasks": ("fail", "without a sentence, with the number of none, or with two that differ"),
    "one frame": ("note", "an episode of one frame teaches no motion"),
    "duplicates": ("note", "the same numbers as an earlier episode"),
    "videos": ("fail", "shorter than their frames, of another size, or with gaps"),
    "totals": ("note", "info.json counts otherwise"),
    "dead dimensions": ("note", "never change"),
    "far values": ("note", f"beyond {FAR:g} times the range of the middle 98 %"),
}
"""Every finding there can be."""


def check_episodes(
    episodes: EpisodeSet | str | os.PathLike[str], *, progress: Callable[[int, int], object] | None = None
) -> EpisodesReport:
    """Hold a set against itself; `progress` is called with the episodes read and all of them."""
    given = episodes if isinstance(episodes, EpisodeSet) else open_episodes(episodes)
    noted, seen = Noted(), dict[bytes, int]()
    counters = _counters(given)
    for at, episode in enumerate(given.episodes):
        _check_episode(given, episode, noted, seen, counters)
        if progress is not None:
            progress(at + 1, len(given.episodes))
    if not given.episodes:
        noted.add("counts", "`meta` lists no episode")
    check_videos(given, noted)
    _check_totals(given, noted)
    ranges = _ranges(given, counters)
    for one in ranges:
        if one.dead:
            noted.add("dead dimensions", f"`{one.column}`, {one.name}: always {one.min:g}")
        elif _far(one) > FAR:
            noted.add(
                "far values",
                f"`{one.column}`, {one.name}: {one.min:g} to {one.max:g}, and 98 % lie in {one.q01:g} to {one.q99:g}",
            )
    return EpisodesReport(
        source=str(given.folder),
        version=given.version,
        robot=given.robot,
        fps=given.fps,
        episodes=len(given.episodes),
        frames=sum(one.length for one in given.episodes),
        cameras=given.cameras,
        tasks=given.tasks,
        findings=tuple(_finding(name, noted) for name in KINDS),
        ranges=ranges,
        skip=dict(sorted(noted.skip.items())),
    )


def _finding(name: str, noted: Noted) -> EpisodesFinding:
    status, message = KINDS[name]
    count = noted.counts.get(name, 0)
    if not count:
        return EpisodesFinding(name, "pass", "0")
    return EpisodesFinding(name, status, f"{count:,}", message, tuple(noted.places[name]))


def _check_episode(
    given: EpisodeSet, episode: Episode, noted: Noted, seen: dict[bytes, int], counters: Mapping[str, Counter]
) -> None:
    index, skip = episode.index, [episode.index]
    where = f"episode {index}"
    if episode.length == 1:
        noted.add("one frame", where, skip=skip)
    try:
        name = given.places.data(given.at(index))
        rows = given.tables.rows(name)
        there = given.tables.count(name, index)
    except DataError as error:
        noted.add("files", f"{where}: {error}", skip=skip)
        return
    if there != episode.length:
        noted.add("counts", f"{where}: `{name}` has {there} rows, and `meta` says {episode.length}", skip=skip)
        return
    if not there:
        noted.add("counts", f"{where} has no frame", skip=skip)
        return
    if given.tables.spots(name, index) > 1:
        message = (
            f"its rows stand in {given.tables.spots(name, index)} places of `{name}`, and only one of them is read"
        )
        noted.add("counts", f"{where}: {message}", skip=skip)
    needed = {*given.info.numbers, *BOOKKEEPING, *(key for key, one in given.info.cameras.items() if not one.video)}
    for column in sorted(needed - set(rows.columns)):
        noted.add("columns", f"{where}: `{name}` has no `{column}`", skip=skip)
    numbers = _readable(given, index, sorted(needed & set(rows.columns)), noted)
    for key, one in given.info.numbers.items():
        if key in numbers and not fits(numbers[key], one.dtype):
            message = f"holds numbers that {one.dtype} does not, and `meta/info.json` says {one.dtype}; mend the dtype"
            noted.add("columns", f"{where}: `{name}`, column `{key}`, {message}", skip=skip)
    _check_other(given, index, set(rows.columns), noted)
    _check_counting(given, episode, numbers, noted)
    _check_task(given, episode, numbers, noted)
    vectors = {key: numbers[key] for key in given.info.numbers if key in numbers}
    finite = True
    for key, values in vectors.items():
        bad = ~finite_rows(values)
        if bad.any():
            finite = False
            noted.add(
                "not finite", f"{where}: `{key}`, {int(bad.sum())} frames, the first {int(bad.argmax())}", skip=skip
            )
    if finite:
        for key, values in vectors.items():
            counters[key].add(values.astype(np.float64).reshape(len(values), -1))  # booleans too
    _check_double(episode, vectors, noted, seen)


def _check_other(given: EpisodeSet, index: int, there: set[str], noted: Noted) -> None:
    """What is neither numbers nor images is text: numbers under another name would be missing from every run."""
    for key, dtype in given.info.other.items():
        if key not in there:
            continue
        values = given.columns(index, [key])[key]
        if np.asarray(values).dtype.kind in "biuf":
            message = f"holds numbers, and `meta/info.json` says {dtype}; expected one of {', '.join(sorted(NUMERIC))}"
            noted.add("columns", f"episode {index}: column `{key}` {message}", skip=[index])


def _readable(given: EpisodeSet, index: int, columns: list[str], noted: Noted) -> dict[str, np.ndarray]:
    found = {}
    for column in columns:
        try:
            if column in given.info.cameras:
                given.frames(index, column, [0])
            else:
                found[column] = given.columns(index, [column])[column]
        except DataError as error:
            what = "videos" if column in given.info.cameras else "columns"
            noted.add(what, f"episode {index}: {error}", skip=[index])
    return found


def _check_counting(given: EpisodeSet, episode: Episode, numbers: Mapping[str, np.ndarray], noted: Noted) -> None:
    where, skip, frames = f"episode {episode.index}", [episode.index], np.arange(episode.length)
    right = {
        "frame_index": frames,
        "index": frames + episode.start,
        "episode_index": np.full(episode.length, episode.index),
    }
    for column, expected in right.items():
        wrong = numbers[column].reshape(-1) != expected if column in numbers else np.zeros(1, bool)
        if wrong.any():
            at = int(wrong.argmax())
            found = numbers[column].reshape(-1)[at]
            noted.add("frame numbers", f"{where}: `{column}` of frame {at} is {found}, not {expected[at]}", skip=skip)
    if "timestamp" in numbers:
        with np.errstate(all="ignore"):  # times may be anything; what is no time is off by infinity
            _check_times(given, episode, numbers["timestamp"].reshape(-1).astype(np.float64), noted)


def _check_times(given: EpisodeSet, episode: Episode, times: np.ndarray, noted: Noted) -> None:
    where, skip, frames = f"episode {episode.index}", [episode.index], np.arange(episode.length)
    off = np.abs(times - frames / given.fps)
    off[~np.isfinite(off)] = np.inf
    # 32 bits hold a second of a long episode to less than this
    loose = TOLERANCE + np.spacing(np.float32(times[-1] if np.isfinite(times[-1]) else 1.0))
    step = float(np.median(np.diff(times))) if len(times) > 2 else 1 / given.fps
    if np.isfinite(step) and abs(step * given.fps - 1) > 0.05:
        rate = f"{1 / step:.4g}" if step > 0 else "no"
        message = f"its times have {rate} frames a second, and info.json says {given.fps}"
        noted.add("frames per second", f"{where}: {message}", skip=skip)
    elif off.max() >= 0.5 / given.fps:
        at = int((off >= 0.5 / given.fps).argmax())
        noted.add(
            "timestamps", f"{where}: frame {at} is at {times[at]:.4f} s, expected {at / given.fps:.4f}", skip=skip
        )
    elif off.max() > loose:
        noted.add("loose timestamps", f"{where}: frame {int(off.argmax())} is off by {off.max():.5f} s")


def _check_task(given: EpisodeSet, episode: Episode, numbers: Mapping[str, np.ndarray], noted: Noted) -> None:
    where, skip = f"episode {episode.index}", [episode.index]
    if "task_index" in numbers:
        for number in np.unique(numbers["task_index"]).tolist():
            if not 0 <= number < len(given.tasks):
                noted.add("tasks", f"{where}: task {number}, and the table has {len(given.tasks)}", skip=skip)
                return
            if not given.tasks[number].strip():
                noted.add("tasks", f"{where}: task {number} has no sentence", skip=skip)
                return
        # of one sentence, ours is what `meta` lists and LeRobot's is what the frames' number stands for
        listed = {given.tasks[number] for number in np.unique(numbers["task_index"]).tolist()}
        if len(episode.tasks) == 1 and episode.tasks[0].strip() and {*episode.tasks} != listed:
            has, means = shortened(episode.tasks[0]), shortened(" / ".join(sorted(listed)))
            noted.add("tasks", f"{where}: `meta` lists `{has}`, and its frames have the task of `{means}`", skip=skip)
    elif not any(task.strip() for task in episode.tasks):
        noted.add("tasks", f"{where} has no task", skip=skip)


def _check_double(episode: Episode, vectors: Mapping[str, np.ndarray], noted: Noted, seen: dict[bytes, int]) -> None:
    if not vectors:
        return
    digest = hashlib.blake2b(digest_size=16)
    for key in sorted(vectors):
        digest.update(key.encode() + vectors[key].tobytes())
    first = seen.setdefault(digest.digest(), episode.index)
    if first != episode.index:
        noted.add("duplicates", f"episode {episode.index} is episode {first}", skip=[episode.index])


def _check_totals(given: EpisodeSet, noted: Noted) -> None:
    frames = sum(one.length for one in given.episodes)
    for name, count in (("episodes", len(given.episodes)), ("frames", frames), ("tasks", len(given.tasks))):
        declared = given.info.raw.get(f"total_{name}")
        if isinstance(declared, int) and declared != count:
            noted.add("totals", f"info.json has {declared} {name}, `meta` lists {count}")


def _counters(given: EpisodeSet) -> dict[str, Counter]:
    frames = sum(one.length for one in given.episodes)
    return {key: Counter(int(np.prod(one.shape or (1,))), total=frames) for key, one in given.info.numbers.items()}


def _ranges(given: EpisodeSet, counters: Mapping[str, Counter]) -> tuple[Range, ...]:
    found = []
    for key, counter in counters.items():
        if not counter.count:
            continue
        known, names = counter.moments(), given.info.numbers[key].names
        values: list[Any] = [known.min, known.q01, known.mean, known.q99, known.max, known.std]
        for dim, numbers in enumerate(zip(*values, strict=True)):
            found.append(Range(key, names[dim] if names else str(dim), *map(float, numbers)))
    return tuple(found)


def _far(one: Range) -> float:
    """How many times the range of the middle 98 % all of it is."""
    middle = one.q99 - one.q01
    return (one.max - one.min) / middle if middle > 0 else 0.0
