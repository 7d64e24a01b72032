"""What a set of episodes says of itself: `meta/info.json` as cameras, numbers and templates of paths.

`names` decide which axis of a camera is which, for sets of both orders are about. It reads no data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vertebra.errors import DataError, shortened
from vertebra.reading import inside, json_of

BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")
"""The columns that every set has, and that say nothing of the robot."""
COUNTED = ("frame_index", "episode_index", "index", "task_index")
"""Those of them that are whole numbers."""
INFO = "meta/info.json"
"""The file that makes a folder a set."""
VERSIONS = ("v2.0", "v2.1", "v3.0")
NUMERIC = frozenset(
    [
        *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
        "float16",
        "float32",
        "float64",
        "bool",
    ]
)


@dataclass(frozen=True)
class Numbers:
    """A vector that every frame has: proprio, an action, a reward."""

    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] = ()
    """One a dimension, where the set names them."""
    column: str = ""
    """Where it stands in the files."""
    part: tuple[int, int] | None = None
    """Which dimensions of the column, where it is a slice (GR00T's modality.json)."""


@dataclass(frozen=True)
class Camera:
    """Pictures that every frame has."""

    key: str
    height: int
    width: int
    video: bool
    """In video files, or in a column of the data."""


@dataclass(frozen=True)
class Episode:
    """One attempt at a task."""

    index: int
    length: int
    start: int
    """Its first frame, counted through the whole set."""
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class Info:
    """`meta/info.json`."""

    version: str
    fps: int | float
    robot: str | None
    cameras: Mapping[str, Camera]
    numbers: Mapping[str, Numbers]
    other: Mapping[str, str]
    """Columns of text and other things, by their dtype."""
    data_path: str
    video_path: str | None
    chunks_size: int
    raw: Mapping[str, Any]

    @property
    def major(self) -> int:
        return int(self.version[1])


def read_info(folder: Path) -> Info:
    """All faults of the file come in one error."""
    path = folder / "meta" / "info.json"
    raw = read_object(path)
    faults: list[str] = []
    version = _version(raw.get("codebase_version"), faults)
    fps = raw.get("fps")
    if not isinstance(fps, int | float) or isinstance(fps, bool) or not 0 < fps < 1e6:
        faults.append(f"`fps` is {fps!r:.40}; expected a number above 0")
        fps = 1
    features = raw.get("features")
    if not isinstance(features, Mapping):
        faults.append(f"`features` is {features!r:.40}; expected an object, one entry a column")
        features = {}
    cameras, numbers, other = _features(features, faults)
    if faults:
        raise DataError(f"`{path}` cannot be used: {'; '.join(faults)}")
    old = version.startswith("v2")
    return Info(
        version=version,
        fps=int(fps) if float(fps).is_integer() else fps,
        robot=raw.get("robot_type") if isinstance(raw.get("robot_type"), str) else None,
        cameras=cameras,
        numbers=numbers,
        other=other,
        data_path=raw.get("data_path") or (OLD_DATA if old else DATA),
        video_path=raw.get("video_path") or (OLD_VIDEO if old else VIDEO),
        chunks_size=raw["chunks_size"] if isinstance(raw.get("chunks_size"), int) and raw["chunks_size"] > 0 else 1000,
        raw=raw,
    )


DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
OLD_DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
OLD_VIDEO = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"


def filled(template: str, folder: Path, **values: Any) -> str:
    """A path inside of the folder, from a template of info.json."""
    path = folder / "meta" / "info.json"
    try:
        name = template.format(**values)
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
        raise DataError(
            f"`{path}` has the template `{shortened(str(template))}`, which cannot be filled ({error}); expected one of "
            f"{', '.join(f'{{{name}}}' for name in values)}"
        ) from error
    return inside(name, path)


def read_object(path: Path) -> dict[str, Any]:
    """The object that a JSON file of a set holds."""
    try:
        data = json_of(path.read_bytes())
    except OSError as error:
        raise DataError(f"`{path}` cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"`{path}` is not valid JSON ({error}); fetch or copy it again") from error
    if not isinstance(data, dict):
        raise DataError(f"`{path}` holds a {type(data).__name__}; expected an object with named entries")
    return data


def _version(given: Any, faults: list[str]) -> str:
    version = given if isinstance(given, str) else ""
    version = version if version.startswith("v") else f"v{version}"
    if version not in VERSIONS:
        known = ", ".join(VERSIONS)
        faults.append(
            f"`codebase_version` is {given!r:.40}; sets of {known} can be read. Convert it with its own tools"
        )
        return VERSIONS[-1]
    return version


def _features(
    features: Mapping[str, Any], faults: list[str]
) -> tuple[dict[str, Camera], dict[str, Numbers], dict[str, str]]:
    cameras: dict[str, Camera] = {}
    numbers: dict[str, Numbers] = {}
    other: dict[str, str] = {}
    for key, feature in features.items():
        dtype = feature.get("dtype") if isinstance(feature, Mapping) else None
        shape = _shape(feature.get("shape")) if isinstance(feature, Mapping) else None
        if not isinstance(dtype, str) or shape is None:
            faults.append(f"the feature `{key}` is {feature!r:.60}; expected its dtype and shape")
        elif dtype in ("video", "image"):
            if not _is_depth(feature):
                _add_camera(cameras, key, feature, shape, faults)
        elif key in BOOKKEEPING:
            continue
        elif dtype in NUMERIC:
            numbers[key] = Numbers(dtype, shape, flat_names(feature.get("names"), shape), key)
        else:
            other[key] = dtype
    return cameras, numbers, other


def _shape(given: Any) -> tuple[int, ...] | None:
    whole = isinstance(given, list) and all(isinstance(one, int) and one >= 0 for one in given)
    return tuple(given) if whole else None


def _add_camera(
    cameras: dict[str, Camera], key: str, feature: Mapping[str, Any], shape: tuple[int, ...], faults: list[str]
) -> None:
    axes = _axes(feature.get("names"), shape)
    if axes is None:
        faults.append(
            f"the camera `{key}` has the shape {list(shape)}; expected height, width and channels, in any order"
        )
        return
    height, width = axes
    cameras[key] = Camera(key, shape[height], shape[width], feature["dtype"] == "video")


def _axes(names: Any, shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Where height and width stand: by `names`; without them, channels are the axis of 1, 3 or 4."""
    if len(shape) == 2:
        return 0, 1
    if len(shape) != 3:
        return None
    if isinstance(names, list) and len(names) == 3:
        first = [str(name)[:1].lower() for name in names]
        if sorted(first) == ["c", "h", "w"]:
            return first.index("h"), first.index("w")
    channels_first = shape[0] in (1, 3, 4) and shape[2] not in (1, 3, 4)
    return (1, 2) if channels_first else (0, 1)


def flat_names(names: Any, shape: tuple[int, ...]) -> tuple[str, ...]:
    """One name a dimension, from a list, a list in an object (`{"motors": […]}`) or an object of places."""
    size = 1
    for one in shape:
        size *= one
    found: list[Any] = []
    if isinstance(names, list):
        found = [part for name in names for part in (name if isinstance(name, list) else [name])]
    elif isinstance(names, Mapping):
        lists = [value for value in names.values() if isinstance(value, list)]
        places = all(isinstance(value, int) for value in names.values())
        found = [part for value in lists for part in value]
        if not lists and places:
            found = sorted(names, key=lambda name: names[name])
    return tuple(str(name) for name in found) if len(found) == size else ()


def _is_depth(feature: Mapping[str, Any]) -> bool:
    """Depth maps are measurements, and no pictures."""
    places = [feature.get("info"), feature.get("video_info")]
    return any(
        isinstance(place, Mapping) and bool(place.get("is_depth_map") or place.get("video.is_depth_map"))
        for place in places
    )
