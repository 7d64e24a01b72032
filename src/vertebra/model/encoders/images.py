"""From an image file to the pixels of an encoder: read, turn, resize, crop. Every step is written out, with Pillow alone.

    stretch     the whole image, whatever its shape            pages, robot cameras
    crop        the shorter side to `shorter`, then the middle  photographs
    pad         the whole image, its shape kept, on a ground    wide or tall pages
    letterbox   made square by a border first, then resized     OpenVLA's kin

The result is 8-bit, [3, size, size]; scaling and normalising are the encoder's work. What cannot be read without
guessing (16 bits, real transparency) is refused with the choice named. Knows no encoders.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vertebra.errors import ConfigError, DataError, UnknownNameError
from vertebra.model.encoders.tensorflow_steps import STEPS
from vertebra.sequence.length import listed

Fit = Literal["stretch", "crop", "pad", "letterbox"]
FITS: tuple[Fit, ...] = ("stretch", "crop", "pad", "letterbox")
Rounding = Literal["down", "even"]
ROUNDINGS: tuple[Rounding, ...] = ("down", "even")
RESAMPLE = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

ImageLike = Any
"""A path, the bytes of a file, a Pillow image, or an 8-bit array [H, W, 3], [H, W, 4], [H, W, 1] or [H, W]."""


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How an image becomes a square of `size` pixels."""

    size: int
    fit: Fit = "stretch"
    shorter: int | None = None
    """`crop`: what the shorter side is resized to before the middle is cut out; None: `size`."""
    resample: str = "bicubic"
    ground: tuple[int, int, int] | None = None
    """The color behind transparent pixels and beside padded images; None: transparency is refused, padding is black."""
    rounding: Rounding = "down"
    """Where the middle is when an odd number of pixels is cut off: `down` as transformers, `even` as torchvision."""
    first: tuple[str, ...] = ()
    """Steps of `tensorflow_steps` that come before all others, in order."""

    def __post_init__(self) -> None:
        if self.size < 1 or (self.shorter is not None and self.shorter < self.size):
            raise ConfigError(f"size {self.size}, shorter {self.shorter}; expected 1 or more, and shorter >= size")
        if self.fit not in FITS:
            raise UnknownNameError("fit", self.fit, FITS)
        if self.resample not in RESAMPLE:
            raise UnknownNameError("resample", self.resample, RESAMPLE)
        if self.rounding not in ROUNDINGS:
            raise UnknownNameError("rounding", self.rounding, ROUNDINGS)
        for step in self.first:
            if step not in STEPS:
                raise UnknownNameError("step of a preparation", step, STEPS)
        object.__setattr__(self, "first", tuple(self.first))
        if self.ground is not None:
            object.__setattr__(self, "ground", tuple(self.ground))  # a list, where it was read from JSON

    @classmethod
    def of(cls, given: Preparation | dict[str, Any] | None, size: int) -> Preparation:
        """What was given, or stretching to `size`; it must lead to that size."""
        made = cls(**given) if isinstance(given, dict) else given or cls(size=size)
        if made.size != size:
            raise ConfigError(f"the preparation makes images of {made.size} pixels, and the encoder takes {size}")
        return made

    def settings(self) -> dict[str, Any]:
        return asdict(self)


def prepare_images(images: Sequence[ImageLike], how: Preparation) -> np.ndarray:
    """Images as 8-bit pixels [M, 3, size, size]; one error lists every image that cannot be read."""
    prepared, faults = [], []
    for number, image in enumerate(images):
        try:
            prepared.append(prepare_image(image, how))
        except DataError as error:
            faults.append(f"image {number}: {error}" if len(images) > 1 else str(error))
    if faults:
        raise DataError(listed(faults))
    return np.stack(prepared) if prepared else np.zeros((0, 3, how.size, how.size), np.uint8)


def prepare_image(image: ImageLike, how: Preparation) -> np.ndarray:
    """One image as 8-bit pixels [3, size, size]."""
    read = read_image(image, ground=how.ground)
    for step in how.first:
        read = STEPS[step](read, how.size)
    fitted = _fitted(read, how)
    return np.ascontiguousarray(np.asarray(fitted).transpose(2, 0, 1))


def read_image(image: ImageLike, *, ground: tuple[int, int, int] | None = None) -> Image.Image:
    """An RGB image, turned as its camera says. Gray becomes RGB; 16 bits and transparency without `ground` are refused."""
    opened, name = _opened(image)
    try:
        return _rgb(_decoded(opened, name), name, ground)
    finally:
        if opened is not image:
            opened.close()  # Pillow itself keeps a broken file open, and one of several frames


def _decoded(opened: Image.Image, name: str) -> Image.Image:
    """A copy of the pixels, turned."""
    if 0 in opened.size:
        raise DataError(f"{name} is {opened.size[0]} × {opened.size[1]} pixels; an image has at least one")
    try:
        return ImageOps.exif_transpose(opened)
    except (OSError, ValueError, SyntaxError) as error:  # decoding starts here, and finds what is cut off
        raise DataError(f"{name} is damaged or cut off ({error}); copy it again, or leave it out") from error


def _opened(image: ImageLike) -> tuple[Image.Image, str]:
    if isinstance(image, Image.Image):
        return image, f"an image of mode {image.mode}"
    if isinstance(image, np.ndarray):
        return _from_array(image), f"an array of shape {image.shape}"
    if isinstance(image, bytes):
        name, source = f"an image of {len(image)} bytes", io.BytesIO(image)
    elif isinstance(image, str | Path):
        name, source = f"`{image}`", Path(image).expanduser()  # type: ignore[assignment]
    else:
        raise DataError(
            f"an image is a {type(image).__name__}; expected a path, bytes, a Pillow image or an 8-bit array [H, W, 3]"
        )
    try:
        return Image.open(source), name
    except UnidentifiedImageError as error:
        raise DataError(f"{name} is no image that Pillow can read; convert it to PNG or JPEG") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{name} is too large to open safely ({error}); scale it down first") from error
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror or error}") from error


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8:
        raise DataError(
            f"an image is an array of {array.dtype}; expected 8-bit pixels (uint8): only you know which value is white"
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim != 2 and (array.ndim != 3 or array.shape[2] not in (3, 4)):
        raise DataError(f"an image is an array of shape {array.shape}; expected [H, W, 3], [H, W, 4] or [H, W]")
    if 0 in array.shape:
        raise DataError(f"an image is an array of shape {array.shape}; an image has at least one pixel")
    return Image.fromarray(array)


def _rgb(image: Image.Image, name: str, ground: tuple[int, int, int] | None) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        raise DataError(
            f"{name} has more than 8 bits a pixel (mode {image.mode}); scale it to 8 bits first, since only you know which "
            "value is white"
        )
    if not (image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info):
        return image.convert("RGB")
    image = image.convert("RGBA")
    lowest = image.getchannel("A").getextrema()[0]
    if lowest == 255:
        return image.convert("RGB")
    if ground is None:
        raise DataError(
            f"{name} has transparent pixels; say what is behind them: Preparation(…, ground=(255, 255, 255)) for white"
        )
    behind = Image.new("RGBA", image.size, (*ground, 255))
    return Image.alpha_composite(behind, image).convert("RGB")


def _fitted(image: Image.Image, how: Preparation) -> Image.Image:
    size, resample = how.size, RESAMPLE[how.resample]
    wide, high = image.size
    if how.fit == "stretch":
        return image.resize((size, size), resample)
    if how.fit == "pad":
        scale = size / max(wide, high)
        inner = (max(1, round(wide * scale)), max(1, round(high * scale)))
        ground = Image.new("RGB", (size, size), how.ground or (0, 0, 0))
        ground.paste(image.resize(inner, resample), ((size - inner[0]) // 2, (size - inner[1]) // 2))
        return ground
    if how.fit == "letterbox":
        image = _squared(image, how.ground or (0, 0, 0))
        wide, high = image.size
    shorter = how.shorter or size
    longer = int(shorter * max(wide, high) / min(wide, high))
    if longer > 1000 * shorter:
        raise DataError(f"an image of {wide} × {high} pixels is a line; a square cut out of it shows nothing")
    image = image.resize((shorter, longer) if wide <= high else (longer, shorter), resample)
    left, top = (_middle(side - size, how.rounding) for side in image.size)
    return image.crop((left, top, left + size, top + size))


def _squared(image: Image.Image, ground: tuple[int, int, int]) -> Image.Image:
    """A border of equal width on both sides: where an odd number of pixels is lacking, one pixel is lacking still."""
    wide, high = image.size
    beside, above = ((max(wide, high) - side) // 2 for side in image.size)
    squared = Image.new("RGB", (wide + 2 * beside, high + 2 * above), ground)
    squared.paste(image, (beside, above))
    return squared


def _middle(spare: int, rounding: Rounding) -> int:
    return spare // 2 if rounding == "down" else round(spare / 2)
