"""The set that is appended to: what it has, and its files as links in the folder that will take its place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vertebra.episodes.episode_set import EpisodeSet, open_episodes
from vertebra.episodes.facts import Numbers, read_object
from vertebra.episodes.films import PER_CHUNK
from vertebra.episodes.statistics import Stats, of_plain
from vertebra.errors import DataError

REWRITTEN = ("meta/info.json", "meta/stats.json", "meta/tasks.parquet")


@dataclass(frozen=True)
class Former:
    """Nothing, where a set is begun."""

    folder: Path | None = None
    episodes: int = 0
    frames: int = 0
    tasks: tuple[str, ...] = ()
    numbers: Mapping[str, Numbers] = field(default_factory=dict)
    stats: Mapping[str, Stats] = field(default_factory=dict)
    robot: str | None = None
    data_file: int = 0
    """The first number of a file that is free; so below."""
    episodes_file: int = 0
    video_files: Mapping[str, int] = field(default_factory=dict)
    raw: Mapping[str, Any] = field(default_factory=dict)
    codec: str = ""
    fps: int | float = 0
    cameras: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def require_same(
        self, *, fps: int, cameras: Mapping[str, tuple[int, int]], names: Mapping[str, tuple[str, ...]], codec: str
    ) -> None:
        """Whether episodes of this kind may join the set."""
        if self.folder is None:
            return
        have = {key: one.names or ("",) * one.shape[0] for key, one in self.numbers.items()}
        pairs: dict[str, tuple[Any, Any]] = {"fps": (self.fps, fps), "cameras": (dict(self.cameras), dict(cameras))}
        pairs |= {"numbers": (sorted(have), sorted(names)), "codec": (self.codec, codec if cameras else self.codec)}
        pairs |= {
            f"names of `{key}`": (have[key], tuple(names[key])) for key in have if key in names and any(have[key])
        }
        wrong = [
            f"{what} {new!r:.120}, and the set has {old!r:.120}" for what, (old, new) in pairs.items() if old != new
        ]
        if wrong:
            raise DataError(f"`{self.folder}` cannot be appended to: {'; '.join(wrong)}")

    def link(self, part: Path) -> None:
        """Let its files stand in `part` too, without a copy where the disk can do it."""
        if self.folder is None:
            return
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder)
            if path.is_dir():
                (part / name).mkdir(parents=True, exist_ok=True)
            elif name.as_posix() not in REWRITTEN:
                (part / name).parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(os.path.realpath(path), part / name)
                except OSError:
                    shutil.copy2(path, part / name)


def former_of(folder: Path) -> Former:
    """What a set that is appended to has; it must be one of v3.0 whose episodes are counted from 0 on."""
    old = open_episodes(folder)
    if old.info.major < 3:
        raise DataError(
            f"`{folder}` is {old.version}; episodes are appended to v3.0. Convert it: vertebra data convert"
        )
    if [one.index for one in old.episodes] != list(range(len(old.episodes))):
        raise DataError(f"`{folder}` lacks episodes between 0 and {old.episodes[-1].index}; write it anew")
    stats = folder / "meta" / "stats.json"
    return Former(
        folder=folder,
        episodes=len(old.episodes),
        frames=sum(one.length for one in old.episodes),
        tasks=old.tasks,
        numbers=old.info.numbers,
        stats=of_plain(read_object(stats)) if stats.is_file() else {},
        robot=old.robot,
        data_file=_free(folder / "data"),
        episodes_file=_free(folder / "meta" / "episodes"),
        video_files={key: _free(folder / "videos" / key) for key in old.cameras},
        raw=old.info.raw,
        codec=_codec(old),
        fps=old.fps,
        cameras=old.sizes,
    )


def _codec(old: EpisodeSet) -> str:
    if not old.cameras:
        return ""
    first = old.info.cameras[old.cameras[0]]
    if not first.video:
        return "image"
    info = old.info.raw["features"][first.key].get("info") or {}
    return {"libx264": "h264", "libsvtav1": "av1"}.get(str(info.get("video.codec")), str(info.get("video.codec")))


def _free(top: Path) -> int:
    """The number behind that of the last file."""
    numbers = [0]
    for path in top.glob("chunk-*/file-*.*"):
        chunk, file = path.parent.name.removeprefix("chunk-"), path.stem.removeprefix("file-")
        if chunk.isdigit() and file.isdigit():
            numbers.append(int(chunk) * PER_CHUNK + int(file) + 1)
    return max(numbers)
