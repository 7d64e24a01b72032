"""A set of LeRobot's v2.0 or v2.1 as one of v3.0: the same numbers, the same frames bit by bit, in files of many episodes.

What v2 lets each episode say of itself (times, numbers of frames) is counted anew, so that what was off a little is not.
Statistics of numbers are counted, those of cameras taken over from v2.1, else counted from decoded frames.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from vertebra.episodes.episode_set import EpisodeSet, open_episodes
from vertebra.episodes.facts import INFO
from vertebra.episodes.former import Former
from vertebra.episodes.ledger import Ledger, column_of
from vertebra.episodes.needed import arrow
from vertebra.episodes.splice import SplicedFilms
from vertebra.episodes.statistics import Stats, finite_rows, fits, of_images, of_numbers, of_plain, sampled
from vertebra.episodes.tasks import json_lines
from vertebra.errors import DataError, shortened
from vertebra.folders import require_free, require_place, whole

MEGABYTE = 1 << 20


def upgrade(
    source: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    skip: Collection[int] = (),
    overwrite: bool = False,
    data_mb: float = 100,
    video_mb: float = 200,
) -> Path:
    """Write the set `source` to `folder` as v3.0, without the episodes in `skip`; those that stay are numbered anew."""
    old, target = open_episodes(source), Path(folder)
    if old.info.major >= 3:
        left = f"; a training leaves episodes out by data.options.skip={sorted(skip)}" if skip else ""
        raise DataError(f"`{old.folder}` is {old.version} already; there is nothing to convert{left}")
    _require_listed(old, skip)
    require_free(target, overwrite=overwrite, reads=[old.folder], holds=[INFO])
    require_place(target)
    stats = _stats_of_cameras(old)
    with whole(target, replace=overwrite) as part, ExitStack() as files:
        ledger = Ledger(part, Former(), fps=old.fps, most=data_mb * MEGABYTE)
        files.callback(ledger.close)
        films = {
            key: SplicedFilms(part, key, fps=old.fps, most=video_mb * MEGABYTE)
            for key, camera in old.info.cameras.items()
            if camera.video
        }
        for film in films.values():
            files.callback(film.close)
        for episode in old.episodes:
            if episode.index not in skip:
                _take(old, episode.index, ledger, films, stats.get(episode.index, {}))
        for film in films.values():
            film.close()
        features = {key: one for key, one in old.info.raw["features"].items() if _kept(old, key)}
        sizes = {"data_files_size_in_mb": data_mb, "video_files_size_in_mb": video_mb}
        ledger.finish(features, robot=old.robot, videos=bool(films), sizes=sizes)
    return target


def _require_listed(old: EpisodeSet, skip: Collection[int]) -> None:
    """A line that `meta/episodes.jsonl` has lost would leave its episode out without a word, and so would a mistyped skip."""
    listed, counted = {one.index for one in old.episodes}, old.info.raw.get("total_episodes")
    expected = range(counted) if isinstance(counted, int) else range(0)
    if unknown := sorted(index for index in skip if index not in listed and index not in expected):
        raise DataError(f"`skip` names the episodes {unknown[:6]}, which `{old.folder}` does not have")
    if len(listed) >= len(expected):
        return
    lost = list(islice((index for index in expected if index not in listed and index not in skip), 7))
    if lost:
        raise DataError(
            f"`{old.folder}` has {counted} episodes by its info.json, and meta/episodes.jsonl lists {len(listed)}: "
            f"{', '.join(map(str, lost[:6]))}{' …' if len(lost) > 6 else ''} would be left out. Copy the set again, or name "
            "those to leave out (--skip)"
        )


def _kept(old: EpisodeSet, key: str) -> bool:
    return key in old.info.numbers or key in old.info.cameras or key in old.info.other


def _take(
    old: EpisodeSet, index: int, ledger: Ledger, films: Mapping[str, SplicedFilms], cameras: Mapping[str, Stats]
) -> None:
    at = old.at(index)
    length = old.episodes[at].length
    numbers = old.columns(index, list(old.info.numbers))
    _require_usable(old, index, numbers)
    stats = {key: of_numbers(values) for key, values in numbers.items()}
    for key in old.info.cameras:
        stats[key] = cameras[key] if key in cameras else of_images(old.frames(index, key, sampled(length).tolist()))
    clips: dict[str, Any] = {}
    for key, film in films.items():
        old.frames(index, key, [length - 1])  # an episode whose video ends early is found here, and not in a training
        clips |= film.add(old.folder / old.places.clip(at, key)[0], length)
    columns: dict[str, Any] = {}
    for key in old.info.raw["features"]:
        if key in numbers:
            columns[key] = column_of(numbers[key].astype(old.info.numbers[key].dtype))
        elif key in old.info.other:
            columns[key] = arrow().array(old.columns(index, [key])[key].tolist())
        elif key in old.info.cameras and key not in films:
            columns[key] = old.tables.objects(old.places.data(at), index, key)
    ledger.enter(_sentences(old, index), columns, clips=clips, stats=stats)


def _require_usable(old: EpisodeSet, index: int, numbers: Mapping[str, np.ndarray]) -> None:
    """That nothing is carried over as another thing than it was; what this hides, no check of the new set can find."""
    bad = [key for key, values in numbers.items() if not finite_rows(values).all()]
    if bad:
        named = ", ".join(f"`{key}`" for key in bad)
        raise DataError(f"episode {index} has NaN or infinite numbers in {named}; leave it out: --skip {index}")
    other = [key for key, values in numbers.items() if not fits(values, old.info.numbers[key].dtype)]
    if other:
        named = ", ".join(f"`{key}` ({old.info.numbers[key].dtype})" for key in other)
        raise DataError(
            f"episode {index} has numbers that the dtypes of `meta/info.json` do not hold: {named}; mend them"
        )
    name = old.places.data(old.at(index))
    if "frame_index" in old.tables.rows(name).columns:
        order = old.columns(index, ["frame_index"])["frame_index"]
        if (np.diff(order) <= 0).any():  # rows would be counted anew, and stand beside frames that are not theirs
            at = int((np.diff(order) <= 0).argmax())
            raise DataError(
                f"`{old.folder / name}` has frame {order[at + 1]} behind frame {order[at]}; sort its rows by `frame_index`, "
                f"each once, or leave the episode out: --skip {index}"
            )


def _sentences(old: EpisodeSet, index: int) -> list[str]:
    """The sentence of each frame."""
    episode = old.episodes[old.at(index)]
    if len(episode.tasks) == 1 and episode.tasks[0].strip():
        _require_one_sentence(old, index, episode.tasks[0])
        return [episode.tasks[0]] * episode.length
    numbers = old.columns(index, ["task_index"])["task_index"].reshape(-1)
    first = {number: old.sentence(index, int(np.argmax(numbers == number))) for number in np.unique(numbers).tolist()}
    return [first[number] for number in numbers.tolist()]


def _require_one_sentence(old: EpisodeSet, index: int, listed: str) -> None:
    """That the frames' numbers mean what `meta` lists: of two sentences one would be lost here, and nobody would know."""
    if "task_index" not in old.tables.rows(old.places.data(old.at(index))).columns:
        return
    numbers = np.unique(old.columns(index, ["task_index"])["task_index"]).tolist()
    means = {
        old.tasks[number] if 0 <= number < len(old.tasks) else f"task {number}, which there is not"
        for number in numbers
    }
    if means != {listed}:
        raise DataError(
            f"episode {index}: `meta` lists `{shortened(listed)}`, and its frames have the task of "
            f"`{shortened(' / '.join(sorted(means)))}`; mend the one that is wrong, or leave the episode out: --skip {index}"
        )


def _stats_of_cameras(old: EpisodeSet) -> dict[int, dict[str, Stats]]:
    """{episode: {camera: statistics}} of v2.1."""
    path = old.folder / "meta" / "episodes_stats.jsonl"
    if not path.is_file():
        return {}
    found = {}
    for where, row in json_lines(path):
        if not isinstance(row.get("episode_index"), int) or not isinstance(row.get("stats"), Mapping):
            raise DataError(f"{where} has no `episode_index` and `stats`; fetch or copy the file again")
        known = of_plain(row["stats"])
        shaped = {key: one for key, one in known.items() if key in old.cameras and one["mean"].shape == (3, 1, 1)}
        found[row["episode_index"]] = shaped
    return found
