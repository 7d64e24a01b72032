"""Video files that are written an episode after the other, and the next file where one is full.

A frame a second of the set's clock, no frame that waits for a later one, and a key frame every other one, so that any
frame is at most two decodes away. It knows no tables.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from vertebra.episodes.facts import VIDEO
from vertebra.episodes.needed import video
from vertebra.errors import DataError, UnknownNameError
from vertebra.reading import reading

KEY_FRAMES = 2
PER_CHUNK = 1000
"""Files of one folder."""
ENCODERS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "h264": ("libx264", {"crf": "20", "preset": "veryfast", "bf": "0", "forced-idr": "1"}),
    "av1": ("libsvtav1", {"crf": "30", "preset": "11", "svtav1-params": "lp=1"}),
}
CODECS = (*ENCODERS, "image")
LEAST = 64
"""Pixels of a side, below which AV1's encoder refuses."""


def require_codec(codec: str, cameras: Mapping[str, tuple[int, int]]) -> None:
    """Whether these pictures can be encoded so, before anything is recorded."""
    if codec not in CODECS:
        raise UnknownNameError("codec", codec, CODECS)
    if codec == "image":
        return
    video("a video")
    for key, (height, width) in cameras.items():
        if height % 2 or width % 2:
            raise DataError(
                f"the camera `{key}` is {height} × {width}; video takes even sizes. Use them, or codec=image"
            )
        if codec == "av1" and min(height, width) < LEAST:
            raise DataError(f"the camera `{key}` is {height} × {width}; av1 takes {LEAST} and more. Use h264, or image")


class Films:
    """One camera's video files."""

    def __init__(
        self, folder: Path, key: str, *, fps: int, size: tuple[int, int], codec: str, most: float, first: int = 0
    ) -> None:
        self.folder, self.key, self.fps, self.size, self.codec = folder, key, fps, size, codec
        self.most, self.file = most, first
        """`most`: bytes of a file."""
        self._out: Any = None
        self._stream: Any = None
        self._frames = self._bytes = 0

    def add(self, images: np.ndarray) -> dict[str, Any]:
        """Encode an episode; where it lies, as the table of episodes has it."""
        if self._frames and self._bytes + self._bytes / self._frames * len(images) >= self.most:
            self.close()
            self.file += 1
        if self._out is None:
            self._open()
        start = self._frames
        with reading(f"an episode of `{self.key}` cannot be encoded", "make room, or use codec=image", error=DataError):
            for number, image in enumerate(images):
                self._encode(image, first=number == 0)
        where = f"videos/{self.key}"
        return {
            f"{where}/chunk_index": self.file // PER_CHUNK,
            f"{where}/file_index": self.file % PER_CHUNK,
            f"{where}/from_timestamp": start / self.fps,
            f"{where}/to_timestamp": self._frames / self.fps,
        }

    def close(self) -> None:
        """Finish the file that is open."""
        if self._out is not None:
            self._mux(self._stream.encode(None))
            self._out.close()
        self._out = self._stream = None
        self._frames = self._bytes = 0

    def _open(self) -> None:
        av = video("a video")
        os.environ.setdefault("SVT_LOG", "1")  # its encoder prints its settings otherwise
        encoder, options = ENCODERS[self.codec]
        name = VIDEO.format(video_key=self.key, chunk_index=self.file // PER_CHUNK, file_index=self.file % PER_CHUNK)
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with reading(f"a video of {self.size[0]} × {self.size[1]} cannot be made", "use codec=image", error=DataError):
            self._to_yuv = av.video.reformatter.VideoReformatter()
            self._out = av.open(str(path), "w")
            self._stream = self._out.add_stream(encoder, rate=self.fps, options={"g": str(KEY_FRAMES), **options})
            self._stream.height, self._stream.width = self.size
            self._stream.pix_fmt = "yuv420p"
            self._stream.codec_context.thread_count = 1

    def _encode(self, image: np.ndarray, *, first: bool) -> None:
        av = video("a video")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame = self._to_yuv.reformat(frame, format="yuv420p", threads=1)
        frame.pts, frame.time_base = self._frames, Fraction(1, self.fps)
        if first:
            frame.pict_type = av.video.frame.PictureType.I
        self._mux(self._stream.encode(frame))
        self._frames += 1

    def _mux(self, packets: Any) -> None:
        for packet in packets:
            self._bytes += packet.size
            self._out.mux(packet)


def film_facts(codec: str, fps: int, size: tuple[int, int]) -> dict[str, Any]:
    """What info.json says of a camera's videos."""
    return {
        "video.height": size[0], "video.width": size[1], "video.codec": codec, "video.pix_fmt": "yuv420p",
        "video.is_depth_map": False, "video.fps": fps, "video.channels": 3, "has_audio": False,
    }  # fmt: skip
