"""Pictures of pages: opened with a limit on their pixels, the way up that their camera noted, and turned."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from vertebra.errors import DataError
from vertebra.page.units import Size
from vertebra.reading import reading

MOST_PIXELS = 80_000_000
"""An A4 page of 600 dpi has 35 million."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".tif", ".tiff", ".bmp", ".webp", ".gif")
_BEGINNINGS = re.compile(rb"\x89PNG\r\n|\xff\xd8\xff|GIF8[79]a|(?:II[*+]\0|MM\0[*+])|RIFF....WEBP", re.DOTALL)
"""How files of pictures begin, whatever they are called."""


def is_picture(path: str | Path, head: bytes) -> bool:
    """Whether a file that begins so is a picture, by its first bytes or by its name."""
    return _BEGINNINGS.match(head) is not None or Path(path).suffix.lower() in SUFFIXES


def opened(image: Any, most: int = MOST_PIXELS, *, number: int = 1) -> Any:
    """An image, or a file of one, as RGB or grey, the right way up by its EXIF; refused unread where it is too large.

    `number`: which page of a file that has several.
    """
    from PIL import Image, ImageOps

    if isinstance(image, Image.Image):
        found = image
        require_pixels(found.size, "the image", most)
    else:
        found = _file(image, most)
    try:
        with reading(f"{_named(image)} cannot be decoded", "save it again as PNG", error=DataError):
            if number > 1:
                found.seek(number - 1)
                require_pixels(found.size, f"page {number} of {_named(image)}", most)
            upright = _on_white(_of_8_bits(ImageOps.exif_transpose(found), image))
            return upright.convert("RGB" if upright.mode not in ("L", "1") else "L")
    finally:
        if found is not image:
            found.close()


def pages_in(path: str | Path) -> int:
    """How many pages a file of pictures has: as many as a TIFF has images. Those of other formats are moments of a film, or
    smaller copies of the first."""
    with _file(path, None) as found, reading(f"`{path}` cannot be decoded", "save it again", error=DataError):
        return int(getattr(found, "n_frames", 1)) if found.format == "TIFF" else 1


def _of_8_bits(image: Any, given: Any) -> Any:
    """A scan of 16 bits in the 8 of all others, by its upper half: converted as it is, it would be cut off at 255, and all
    of it white. Numbers of 32 bits have no white that a file names."""
    from PIL import Image

    if image.mode in ("I", "F"):
        raise DataError(
            f"{_named(given)} has 32 bits a pixel (mode {image.mode}), and nothing says which value is white; save it as a "
            "picture of 8 or 16 bits"
        )
    if not image.mode.startswith("I;16"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


def _on_white(image: Any) -> Any:
    """What can be seen through lies on paper: converted as it is, it would be black, as its text most often is."""
    from PIL import Image

    if not image.has_transparency_data:
        return image
    drawn = image.convert("RGBA")
    paper = Image.new("RGBA", drawn.size, "white")
    paper.alpha_composite(drawn)
    return paper.convert("RGB")


def size_of(path: Any) -> Size:
    """Width and height of a file's image the right way up, from its head alone."""
    with _file(path, None) as found:
        turned = found.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        width, height = found.size
    return (height, width) if turned else (width, height)


def _file(path: Any, most: int | None) -> Any:
    from PIL import Image

    if not Path(path).is_file():
        raise DataError(f"`{path}` is no file; expected a picture")
    with (
        reading(f"`{path}` is no picture that can be opened", "save it again as PNG", error=DataError),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is below
        found = Image.open(path)
    if most is not None:
        try:
            require_pixels(found.size, f"`{path}`", most)
        except DataError:
            found.close()
            raise
    return found


def require_pixels(size: tuple[int, int], what: str, most: int) -> None:
    """Refuse an image that would take the memory of the machine."""
    if size[0] * size[1] > most:
        raise DataError(
            f"{what} has {size[0]:,} × {size[1]:,} pixels, and {most:,} are read; make it smaller (an A4 page of 300 dpi has "
            "8.7 million)"
        )


def turned_image(image: Any, angle: int) -> Any:
    """The image turned clockwise by 0, 90, 180 or 270 degrees."""
    return image if angle % 360 == 0 else image.rotate(-angle, expand=True)


def _named(image: Any) -> str:
    return f"`{image}`" if isinstance(image, (str, Path)) else "the image"
