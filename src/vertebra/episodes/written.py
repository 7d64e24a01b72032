"""What `meta/info.json` says of a set that is written here, in LeRobot's v3.0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vertebra.episodes.facts import DATA, VIDEO, Numbers
from vertebra.episodes.films import PER_CHUNK, film_facts

COUNTED = {"timestamp": "float32"} | dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), "int64")


def info_of(
    features: Mapping[str, Any],
    *,
    fps: int | float,
    robot: str | None,
    videos: bool,
    episodes: int,
    frames: int,
    tasks: int,
    sizes: Mapping[str, float],
) -> dict[str, Any]:
    """The whole file."""
    counted = {key: {"dtype": dtype, "shape": [1], "names": None} for key, dtype in COUNTED.items()}
    return {
        "codebase_version": "v3.0",
        "robot_type": robot,
        "total_episodes": episodes,
        "total_frames": frames,
        "total_tasks": tasks,
        "chunks_size": PER_CHUNK,
        "data_files_size_in_mb": sizes["data_files_size_in_mb"],
        "video_files_size_in_mb": sizes["video_files_size_in_mb"],
        "fps": fps,
        "splits": {"train": f"0:{episodes}"},
        "data_path": DATA,
        "video_path": VIDEO if videos else None,
        "features": {**features, **counted},
    }


def features_of(
    fps: int, cameras: Mapping[str, tuple[int, int]], numbers: Mapping[str, Numbers], codec: str
) -> dict[str, Any]:
    """The columns and cameras that whoever writes has named."""
    features: dict[str, Any] = {
        key: {"dtype": one.dtype, "shape": list(one.shape), "names": list(one.names) or None}
        for key, one in numbers.items()
    }
    return features | {key: _camera(codec, fps, size) for key, size in cameras.items()}


def _camera(codec: str, fps: int, size: tuple[int, int]) -> dict[str, Any]:
    shown = {"shape": [*size, 3], "names": ["height", "width", "channels"]}
    if codec == "image":
        return {"dtype": "image", **shown}
    return {"dtype": "video", **shown, "info": film_facts(codec, fps, size)}
