"""A set of episodes that is written an episode at a time, in LeRobot's v3.0, and appears whole.

    with EpisodeWriter("set", fps=10, cameras={"observation.images.top": (96, 96)}, numbers={"action": ["x", "y"]}) as out:
        out.add("push the cube", {"action": actions}, {"observation.images.top": images})

Everything goes into a hidden folder beside it, which takes the name when the block ends without an error. Appending links
the files that are there into that folder and writes new ones, so that a crash leaves the old set as it was.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from vertebra.episodes.facts import INFO, Numbers
from vertebra.episodes.films import Films, require_codec
from vertebra.episodes.former import Former, former_of
from vertebra.episodes.given import GivenEpisode, require_names, written_numbers
from vertebra.episodes.ledger import Ledger, column_of
from vertebra.episodes.needed import arrow
from vertebra.episodes.pictures import pictures_column
from vertebra.episodes.statistics import of_images, of_numbers
from vertebra.episodes.view import require_same_view, write_view
from vertebra.episodes.written import features_of
from vertebra.errors import ConfigError, DataError
from vertebra.folders import require_free, require_place, whole

MEGABYTE = 1 << 20


class EpisodeWriter:
    """A context manager; `add` takes one whole episode."""

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        fps: int,
        cameras: Mapping[str, tuple[int, int]],
        numbers: Mapping[str, Sequence[str]],
        robot: str | None = None,
        view: Mapping[str, Any] | None = None,
        codec: Literal["h264", "av1", "image"] = "h264",
        floats: Literal["float32", "float64"] = "float32",
        append: bool = False,
        overwrite: bool = False,
        data_mb: float = 100,
        video_mb: float = 200,
        reads: Iterable[str | Path] = (),
    ) -> None:
        """`cameras`: {key: (height, width)}; `numbers`: {key: a name for each dimension}. What is no 32-bit float is stored
        as `floats`, whole numbers as 64 bits. `view`: how a simulator drew the images, as plain data."""
        if isinstance(fps, bool) or not isinstance(fps, int) or fps < 1:
            raise ConfigError(f"fps is {fps!r}; expected a whole number of frames a second, 1 or more")
        require_names(cameras, numbers)
        require_codec(codec, cameras)
        arrow("writing episodes")
        self.folder, self.fps, self.robot, self.codec, self.floats = Path(folder), fps, robot, codec, floats
        self.cameras = {key: (int(height), int(width)) for key, (height, width) in cameras.items()}
        self.names = {key: tuple(names) for key, names in numbers.items()}
        self._data_bytes, self._video_bytes = data_mb * MEGABYTE, video_mb * MEGABYTE
        self._sizes = {"data_files_size_in_mb": data_mb, "video_files_size_in_mb": video_mb}
        self._former = former_of(self.folder) if append else Former()
        if not append:
            require_free(self.folder, overwrite=overwrite, reads=reads, holds=[INFO])
        elif overwrite:
            raise ConfigError("append and overwrite exclude each other; choose one")
        self._view = dict(view or {})
        self._replace = append or overwrite
        self._former.require_same(fps=fps, cameras=self.cameras, names=self.names, codec=codec)
        if append:
            require_same_view(self.folder, self._view)
        require_place(self.folder)
        self._stack = ExitStack()
        self._state: Literal["new", "open", "closed", "broken"] = "new"
        self.numbers: dict[str, Numbers] = dict(self._former.numbers)

    def __enter__(self) -> EpisodeWriter:
        if self._state != "new":
            raise ConfigError("an EpisodeWriter is used once; make another one")
        part = self._stack.enter_context(whole(self.folder, replace=self._replace))
        self._former.link(part)
        self._ledger, self._state = Ledger(part, self._former, fps=self.fps, most=self._data_bytes), "open"
        self._films = {
            key: Films(
                part, key, fps=self.fps, size=size, codec=self.codec, most=self._video_bytes,
                first=self._former.video_files.get(key, 0),
            )
            for key, size in self.cameras.items()
            if self.codec != "image"
        }  # fmt: skip
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        state, self._state = self._state, "closed"
        if error is not None or state == "broken":
            self._close_files(silently=True)
            failed = error or DataError(f"`{self.folder}` is not written: an episode could not be added")
            self._stack.__exit__(type(failed), failed, trace)
            if error is None:
                raise failed
            return
        with self._stack:  # an error from here on leaves nothing either
            self._finish()

    def add(self, sentence: str, numbers: Mapping[str, Any], images: Mapping[str, Any]) -> int:
        """One whole episode: {key: (length, dims)}, {key: uint8 (length, height, width, 3)}; its index is returned.

        What does not fit is refused before anything of it is written.
        """
        if self._state != "open":
            raise ConfigError("episodes are added inside `with EpisodeWriter(…) as writer:`")
        given = GivenEpisode.of(sentence, numbers, images, names=self.names, cameras=self.cameras, floats=self.floats)
        if not self.numbers:
            self.numbers = written_numbers(given, self.names)
        given.require_dtypes(self.numbers)
        self._state = "broken"  # unless all of it is written
        index = self._write(given)
        self._state = "open"
        return index

    def _write(self, given: GivenEpisode) -> int:
        stats = {key: of_numbers(values) for key, values in given.numbers.items()}
        stats |= {key: of_images(images) for key, images in given.images.items()}
        clips: dict[str, Any] = {}
        for key, film in self._films.items():
            clips |= film.add(given.images[key])
        columns = {key: column_of(values) for key, values in given.numbers.items()}
        if self.codec == "image":
            columns |= {key: pictures_column(images) for key, images in given.images.items()}
        return self._ledger.enter([given.sentence] * given.length, columns, clips=clips, stats=stats)

    def _finish(self) -> None:
        if not self._replace:
            require_free(self.folder, overwrite=None)  # somebody else may have been quicker
        self._close_files(silently=False)
        features = features_of(self.fps, self.cameras, self.numbers, self.codec)
        videos = self.codec != "image" and bool(self.cameras)
        self._ledger.finish(features, robot=self.robot, videos=videos, sizes=self._sizes)
        if self._view:
            write_view(self._ledger.folder, self._view)

    def _close_files(self, *, silently: bool) -> None:
        files: list[Ledger | Films] = [*self._films.values()]
        if silently:
            files.append(self._ledger)
        for file in files:
            try:
                file.close()
            except Exception:  # an error is on its way already: it is that one which is to be seen
                if not silently:
                    raise
