"""Frames of video files by their time, quick in any order: files stay open, what lies just ahead is decoded on to, and
anything else begins at the key frame before it.

Times become whole frames before they come here, so that no sum of floats decides which frame is meant: the nearest one
within half a frame is it. It knows no episodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from vertebra.episodes.needed import video
from vertebra.episodes.recent import Recent
from vertebra.episodes.tables import ADVICE, whole_file
from vertebra.errors import DataError
from vertebra.reading import reading

OPEN = 8
"""Files that stay open, each with a decoder."""
AHEAD = 8
"""Frames that are decoded rather than leapt over, where no key frame lies between."""

DAMAGED = "fetch or copy that file again, or leave out the episodes that stand in it"
"""`vertebra data check` lists packets and decodes one frame a file: it need not have seen this."""


class Videos:
    """The video files of a set."""

    def __init__(self, folder: Path, fps: int | float, *, most: int = OPEN) -> None:
        self.folder, self.fps = folder, fps
        self._open: Recent[Reel] = Recent(most, close=Reel.close)

    def frames(self, name: str, numbers: Sequence[int]) -> np.ndarray:
        """[n, H, W, 3] of the frames with these numbers of a file, in the order asked for."""
        with self._open.alone():
            reel = self._open.get(name, lambda: Reel(self.folder / name, self.fps))
            try:
                return reel.frames(numbers)
            except BaseException:
                self._open.forget(name)  # wherever in the file it was, the next one begins anew
                raise

    def close(self) -> None:
        self._open.clear()


class Reel:
    """One open video file, and the frame that it stands at."""

    def __init__(self, path: Path, fps: int | float) -> None:
        av = video()
        self.path, self.step = path, 1 / Fraction(fps).limit_denominator(1_000_000)
        with whole_file(path):
            self._file = av.open(str(path))
            if not self._file.streams.video:
                raise DataError(f"`{path}` has no video in it; {ADVICE}")
            self._stream = self._file.streams.video[0]
            # one thread: workers are many, and several threads would first fill a queue at each leap
            self._stream.codec_context.thread_count = 1
            self._stream.thread_type = "NONE"
            self._base = Fraction(self._stream.time_base)
            entries = list(self._stream.index_entries)
            self._keys = np.array(sorted(one.timestamp for one in entries if one.is_keyframe), np.int64)
        self._first = self._stream.start_time or 0
        self._to_rgb = av.video.reformatter.VideoReformatter()
        self._decoding: Iterator[Any] = iter(())
        self._last: Any = None
        """The frame that was decoded last; the next one of `_decoding` follows it."""

    def frames(self, numbers: Sequence[int]) -> np.ndarray:
        ordered = sorted(set(numbers))
        with reading(f"`{self.path}` cannot be decoded", DAMAGED, error=DataError):
            found = {number: self._rgb(self._frame(number)) for number in ordered}
        return np.stack([found[number] for number in numbers])

    def close(self) -> None:
        self._last, self._decoding = None, iter(())
        self._file.close()

    def _frame(self, number: int) -> Any:
        """The decoded frame nearest to the time of a number."""
        at = number * self.step / self._base + self._first
        half = self.step / self._base / 2
        if not self._lies_ahead(at, half):
            self._leap(at)
        before = self._last
        while self._last is None or self._last.pts + 1 <= at:
            before = self._last
            if not self._advance():
                break
        near = [one for one in (before, self._last) if one is not None and abs(one.pts - at) <= half]
        if not near:
            raise DataError(
                f"`{self.path}` has no frame {number} ({float(number * self.step):.3f} s); {self._extent()}; {ADVICE}"
            )
        return min(near, key=lambda one: abs(one.pts - at))

    def _lies_ahead(self, at: Fraction, half: Fraction) -> bool:
        """Whether decoding on is the way: nothing to leap to lies between, or the frame is at hand."""
        if self._last is None or self._last.pts > at + 1:
            return False
        here = self._last.pts
        if at - here <= 2 * half * 1.5:
            return True
        if len(self._keys):
            between = np.searchsorted(self._keys, float(at), "right") - np.searchsorted(self._keys, here, "right")
            return bool(between == 0)
        return at - here <= AHEAD * 2 * half

    def _leap(self, at: Fraction) -> None:
        """Stand at or before a time: at the key frame before it, or further back where that one begins behind it."""
        back = Fraction(0)
        while True:
            target = max(int(at - back), min(self._first, 0))
            self._file.seek(target, stream=self._stream, backward=True, any_frame=False)
            self._decoding, self._last = self._file.decode(self._stream), None
            if not self._advance() or self._last.pts <= at + self.step / self._base / 2:
                return
            if at - back <= self._first:
                return
            back = max(4 * back, 1 / self._base)

    def _advance(self) -> bool:
        for frame in self._decoding:
            if frame.pts is not None:
                self._last = frame
                return True
        return False

    def _rgb(self, frame: Any) -> np.ndarray:
        return np.asarray(self._to_rgb.reformat(frame, format="rgb24", threads=1).to_ndarray())

    def _extent(self) -> str:
        length = self._stream.duration
        return f"it is {float(length * self._base):.3f} s long" if length else "its length is not written in it"
