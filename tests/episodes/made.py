"""Small sets of episodes: written by the writer, and the older format by hand, for whoever reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vertebra.episodes import EpisodeWriter

TOP, WRIST = "observation.images.top", "observation.images.wrist"
NUMBERS = {"observation.state": ["a", "b", "c"], "action": ["x", "y"], "next.reward": ["reward"]}
CAMERAS = {TOP: (48, 64), WRIST: (32, 32)}


def images_of(length: int, size: tuple[int, int], seed: int) -> np.ndarray:
    """Smooth pictures, no two of which are alike: codecs keep them well, and a wrong frame is far off."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    frames = np.arange(length)[:, None, None]
    phase = 2 * np.pi * (frames * 0.37 + seed * 0.11)
    red = 127 + 100 * np.sin(2 * np.pi * x / width + phase)
    green = 127 + 100 * np.cos(2 * np.pi * y / height + phase * 1.7)
    blue = 40 + (frames * 29 + seed * 53) % 170 + 0 * x
    return np.stack([red, green, blue], -1).astype(np.uint8)


def episode_of(length: int, seed: int, cameras: Mapping[str, tuple[int, int]] = CAMERAS) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    numbers = {
        "observation.state": rng.normal(size=(length, 3)).astype(np.float32),
        "action": rng.normal(size=(length, 2)).astype(np.float32),
        "next.reward": np.arange(length)[:, None] + seed,
    }
    return numbers, {key: images_of(length, size, seed + at) for at, (key, size) in enumerate(cameras.items())}


def write_set(
    folder: Path,
    lengths: Sequence[int] = (5, 1, 12),
    *,
    fps: int = 10,
    sentences: Sequence[str] = ("push", "pull"),
    **more: Any,
) -> list[tuple[Any, Any]]:
    """A set by the writer, and the episodes that went into it."""
    cameras = more.pop("cameras", CAMERAS)
    episodes = [episode_of(length, seed, cameras) for seed, length in enumerate(lengths)]
    with EpisodeWriter(folder, fps=fps, cameras=cameras, numbers=NUMBERS, **more) as writer:
        for at, (numbers, images) in enumerate(episodes):
            assert writer.add(sentences[at % len(sentences)], numbers, images) == at
    return episodes


def write_old(
    folder: Path,
    lengths: Sequence[int] = (5, 1, 12),
    *,
    fps: int = 10,
    version: str = "v2.1",
    video_fps: int | None = None,
    gop: int = 12,
    bf: int = 0,
) -> list[tuple[Any, Any]]:
    """A set of v2, byte by byte as LeRobot's recorder left one: a file an episode, JSON lines for the rest."""
    cameras = {TOP: (48, 64)}
    episodes = [episode_of(length, seed, cameras) for seed, length in enumerate(lengths)]
    (folder / "meta").mkdir(parents=True)
    features: dict[str, Any] = {
        key: {"dtype": str(episodes[0][0][key].dtype), "shape": [len(names)], "names": {"axes": names}}
        for key, names in NUMBERS.items()
    }
    features[TOP] = {"dtype": "video", "shape": [3, 48, 64], "names": ["channels", "height", "width"]}
    counted = ("frame_index", "episode_index", "index", "task_index")
    features |= {key: {"dtype": "int64", "shape": [1], "names": None} for key in counted}
    features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    info = {
        "codebase_version": version, "robot_type": "so100", "fps": fps, "features": features, "chunks_size": 2,
        "total_episodes": len(lengths), "total_frames": sum(lengths), "total_tasks": 2, "total_chunks": 2,
        "total_videos": len(lengths), "splits": {"train": f"0:{len(lengths)}"},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    }  # fmt: skip
    (folder / "meta" / "info.json").write_text(json.dumps(info))
    tasks = ["push", "pull"]
    lines(folder / "meta" / "tasks.jsonl", [{"task_index": at, "task": task} for at, task in enumerate(tasks)])
    rows = [{"episode_index": at, "tasks": [tasks[at % 2]], "length": one} for at, one in enumerate(lengths)]
    lines(folder / "meta" / "episodes.jsonl", rows)
    start = 0
    for at, (numbers, images) in enumerate(episodes):
        length = lengths[at]
        table = {key: [row if len(row) > 1 else row[0] for row in values.tolist()] for key, values in numbers.items()}
        types = {key: pa.list_(pa.float32()) for key in ("observation.state", "action")}
        columns = {key: pa.array(values, types.get(key)) for key, values in table.items()}
        columns |= {
            "timestamp": pa.array(np.arange(length, dtype=np.float32) / np.float32(fps)),
            "frame_index": pa.array(range(length)),
            "episode_index": pa.array([at] * length),
            "index": pa.array(range(start, start + length)),
            "task_index": pa.array([at % 2] * length),
        }
        data = folder / info["data_path"].format(episode_chunk=at // 2, episode_index=at)
        data.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), data)
        film = folder / info["video_path"].format(episode_chunk=at // 2, episode_index=at, video_key=TOP)
        write_film(film, images[TOP], fps=video_fps or fps, gop=gop, bf=bf)
        start += length
    return episodes


def lines(path: Path, rows: Sequence[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_film(path: Path, images: np.ndarray, *, fps: int, gop: int = 12, bf: int = 0, codec: str = "libx264") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=fps, options={"g": str(gop), "bf": str(bf), "crf": "18"})
        stream.height, stream.width, stream.pix_fmt = images.shape[1], images.shape[2], "yuv420p"
        stream.codec_context.thread_count = 1
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def decoded(path: Path) -> np.ndarray:
    """Every frame of a video, one after the other: the slow plain way."""
    with av.open(str(path)) as film:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)])
