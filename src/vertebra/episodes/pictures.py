"""Images that stand in a column of the data, as `{bytes, path}`: PNG or JPEG bytes, or a file beside the set."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vertebra.episodes.needed import arrow
from vertebra.errors import DataError
from vertebra.reading import inside, reading


def picture_of(value: Any, folder: Path, where: str) -> np.ndarray:
    """uint8 [H, W, 3] of an entry of the column."""
    entry = value if isinstance(value, dict) else {"bytes": value}
    content, name = entry.get("bytes"), entry.get("path")
    if not content and isinstance(name, str) and name:
        path = folder / inside(name, folder / "data")
        if not path.is_file():
            raise DataError(f"{where} is the file `{path}`, which is missing; fetch or copy the set again")
        content = path.read_bytes()
    if not isinstance(content, bytes):
        raise DataError(f"{where} has neither the bytes of an image nor the path of one")
    with (
        reading(f"{where} is no image that can be read", "record or fetch it again", error=DataError),
        Image.open(io.BytesIO(content)) as image,
    ):
        return np.asarray(image.convert("RGB"))


def pictures_column(images: np.ndarray) -> Any:
    """A column of PNGs: nothing is lost."""
    pa = arrow()
    rows = [{"bytes": _png(image), "path": f"frame-{frame:06d}.png"} for frame, image in enumerate(images)]
    return pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))


def _png(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG", compress_level=1)
    return out.getvalue()
