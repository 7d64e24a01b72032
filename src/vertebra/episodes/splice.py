"""Videos of one episode each, laid behind one another in larger files without decoding them: nothing is lost.

Packets keep their bytes and get a later time. A file whose codec, size or header differs from the one before begins a new
one. It knows no tables.
"""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

from vertebra.episodes.facts import VIDEO
from vertebra.episodes.films import PER_CHUNK
from vertebra.episodes.needed import video
from vertebra.episodes.tables import ADVICE, whole_file
from vertebra.errors import DataError


class SplicedFilms:
    """One camera's files, with the methods of `Films`."""

    def __init__(self, folder: Path, key: str, *, fps: int | float, most: float) -> None:
        self.folder, self.key, self.most, self.file = folder, key, most, 0
        self.step = 1 / Fraction(fps).limit_denominator(1_000_000)
        self._out: Any = None
        self._stream: Any = None
        self._kind: Any = None
        self._frames = self._bytes = self._decoded = 0

    def add(self, source: Path, length: int) -> dict[str, Any]:
        """Lay a video behind those that are there; where it lies, as the table of episodes has it."""
        av = video("converting a video")
        with whole_file(source), av.open(str(source)) as film:
            if not film.streams.video:
                raise DataError(f"`{source}` has no video in it; {ADVICE}")
            stream = film.streams.video[0]
            packets = [one for one in film.demux(stream) if one.dts is not None and one.pts is not None]
            if self._out is not None and not self._fits(stream, packets, source.stat().st_size):
                self.close()
                self.file += 1
            if self._out is None:
                self._open(stream)
            start = self._frames
            self._copy(stream, packets)
        # frames that lie behind the last one stay its own: the next episode begins on a whole frame
        self._frames = max(self._frames, start + length)
        self._bytes += source.stat().st_size
        where = f"videos/{self.key}"
        return {
            f"{where}/chunk_index": self.file // PER_CHUNK,
            f"{where}/file_index": self.file % PER_CHUNK,
            f"{where}/from_timestamp": float(start * self.step),
            f"{where}/to_timestamp": float((start + length) * self.step),
        }

    def close(self) -> None:
        if self._out is not None:
            self._out.close()
        self._out = self._stream = None
        self._frames = self._bytes = self._decoded = 0

    def _fits(self, stream: Any, packets: list[Any], size: int) -> bool:
        """Whether they can stand behind what is there: of one kind, in a file not too large, in an order that decoders take."""
        later = not packets or packets[0].dts + self._shift(stream) > self._decoded
        return _kind_of(stream) == self._kind and self._bytes + size < self.most and later

    def _shift(self, stream: Any) -> int:
        """How many ticks later a video begins than in its own file."""
        return round(self._frames * self.step / Fraction(stream.time_base)) - (stream.start_time or 0)

    def _open(self, stream: Any) -> None:
        name = VIDEO.format(video_key=self.key, chunk_index=self.file // PER_CHUNK, file_index=self.file % PER_CHUNK)
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._out = video("converting a video").open(str(path), "w")
        self._stream, self._kind = self._out.add_stream_from_template(stream), _kind_of(stream)
        self._stream.time_base = stream.time_base

    def _copy(self, stream: Any, packets: list[Any]) -> None:
        base, shift, last = Fraction(stream.time_base), self._shift(stream), Fraction(0)
        for packet in packets:
            packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
            last, self._decoded = max(last, packet.pts * base), packet.dts
            packet.stream = self._stream
            self._out.mux(packet)
        self._frames = max(self._frames, math.floor(last / self.step + Fraction(1, 2)) + 1)


def _kind_of(stream: Any) -> Any:
    """What must be alike for packets to stand in one file."""
    context = stream.codec_context
    header = bytes(context.extradata or b"")
    return context.name, context.width, context.height, context.pix_fmt, Fraction(stream.time_base), header
