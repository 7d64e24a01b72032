"""`convert_episodes`: other people's episodes as a set of LeRobot's v3.0. An older set is taken over without decoding a frame
(`upgrade`); files of other recorders are read by a schema and written by `EpisodeWriter`, an episode at a time.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Collection, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vertebra import config
from vertebra.episodes.episode_set import is_episodes
from vertebra.episodes.recorders import Recorded, recorded
from vertebra.episodes.schema import EpisodesSchema
from vertebra.episodes.upgrade import upgrade
from vertebra.episodes.writer import EpisodeWriter
from vertebra.errors import ConfigError, DataError
from vertebra.reading import reading


def convert_episodes(
    source: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    schema: EpisodesSchema | str | os.PathLike[str] | None = None,
    skip: Collection[int] = (),
    overwrite: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Path:
    """Write `source`, an older set or a folder of files that `schema` describes, to `folder`; `skip` leaves episodes out, and
    `progress` is called with the number of those that are written."""
    place = Path(source)
    if is_episodes(place):
        if schema is not None:
            raise ConfigError(f"`{place}` is a set of LeRobot's and says itself what is where; leave the schema out")
        return upgrade(place, folder, skip=skip, overwrite=overwrite)
    if schema is None:
        raise ConfigError(
            f"`{place}` is no set of LeRobot's (it has no meta/info.json); a schema has to say what is where (--schema)"
        )
    known = schema if isinstance(schema, EpisodesSchema) else config.read(EpisodesSchema, Path(schema))
    return _by_schema(place, Path(folder), known, frozenset(skip), overwrite=overwrite, progress=progress)


def _by_schema(
    source: Path,
    folder: Path,
    schema: EpisodesSchema,
    skip: frozenset[int],
    *,
    overwrite: bool,
    progress: Callable[[int], object] | None,
) -> Path:
    count = 0

    def kept_ones() -> Iterator[Recorded]:
        nonlocal count
        for at, one in enumerate(_all(source, schema)):
            count = at + 1
            if at not in skip:
                yield one

    kept = kept_ones()
    first = next(kept, None)
    if first is None:
        raise DataError(f"`{source}` has no episode that is not left out")
    begun = _episode(first, schema)
    numbers = {
        key: schema.names.get(key) or [f"{key}.{at}" for at in range(part.shape[1])] for key, part in begun[1].items()
    }
    cameras = {key: images.shape[1:3] for key, images in begun[2].items()}
    with EpisodeWriter(
        folder,
        fps=schema.fps,
        cameras=cameras,
        numbers=numbers,
        robot=schema.robot,
        codec=schema.codec,
        overwrite=overwrite,
        reads=[source],
    ) as writer:
        for one in chain([first], kept):
            with _named(one.where):
                index = writer.add(*_episode(one, schema))
            if progress is not None:
                progress(index + 1)
        unknown = sorted(skip - set(range(count)))
        if unknown:  # else what should have been left out is in
            raise DataError(f"`skip` names the episodes {unknown[:6]}, and `{source}` has 0 to {count - 1}")
    return folder


def _all(source: Path, schema: EpisodesSchema) -> Iterator[Recorded]:
    paths = [source] if source.is_file() else sorted(path for path in source.glob(schema.files) if path.is_file())
    if not paths:
        raise DataError(f"`{source}` has no file `{schema.files}`; name them in the schema with `files`")
    for path in paths:
        yield from recorded(path, schema.episodes)


def _episode(one: Recorded, schema: EpisodesSchema) -> tuple[str, dict[str, np.ndarray], dict[str, np.ndarray]]:
    sentence = schema.sentence if schema.sentence_from is None else one.text(schema.sentence_from)
    assert sentence is not None
    numbers = {
        key: np.concatenate([_rows(one, name) for name in ([names] if isinstance(names, str) else names)], axis=1)
        for key, names in schema.numbers.items()
    }
    return sentence, numbers, {key: _images(one, name) for key, name in schema.cameras.items()}


def _rows(one: Recorded, name: str) -> np.ndarray:
    values = one.array(name)
    if isinstance(values, list) or values.dtype.kind not in "fiub" or not values.ndim:
        raise DataError(f"{one.where}: `{name}` is no numbers, a row a frame")
    if not values.size:
        raise DataError(
            f"{one.where}: `{name}` is empty, of the shape {values.shape}; leave the episode out by its number (--skip), or "
            "the column"
        )
    return values.reshape(len(values), -1)


def _images(one: Recorded, name: str) -> np.ndarray:
    """[frames, H, W, 3]; encoded ones are decoded, and channels that come first are put last."""
    values = one.array(name)
    if isinstance(values, list) or values.dtype.kind in "OS":
        return np.stack([_decoded(value, f"{one.where}: `{name}`, frame {at}") for at, value in enumerate(values)])
    if values.ndim == 4 and values.shape[1] == 3 and values.shape[3] != 3:
        values = np.moveaxis(values, 1, 3)
    if values.dtype != np.uint8 or values.ndim != 4 or values.shape[3] != 3:
        raise DataError(
            f"{one.where}: `{name}` is {values.dtype} of the shape {values.shape}; expected uint8 (frames, height, width, 3)"
        )
    return values


def _decoded(value: Any, where: str) -> np.ndarray:
    content = value if isinstance(value, bytes) else np.asarray(value).tobytes()
    with reading(f"{where} is no image that can be read", error=DataError), Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


class _named:
    """Say of which episode an error is."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, DataError) and self.where not in str(error):
            raise DataError(f"{self.where}: {error}") from error
