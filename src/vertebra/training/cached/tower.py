"""A frozen image tower's features, once an image: epochs and runs that share it then pay for the projector alone.

    image ──► prepare ──► tower ──► [slots, width]   on disk, under a key of image, tower and precision
                                         │
    batch:  features["image"] = those ───┴──► projector ──► …     `Part` knows features from pixels

It does not know how batches are made: it stands in where a sample's images were read.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
import torch

from vertebra.data.encode.items import ImageItems, Maker, image_makers
from vertebra.data.read.rows import digest
from vertebra.data.samples.samples import Samples
from vertebra.errors import ConfigError
from vertebra.model.encoders.part import ItemEncoder
from vertebra.training.cached.store import VectorRows, rows_of, weights_of

AT_ONCE = 32
"""Images of one pass through the tower."""
SEGMENT = "image"
"""Of a model's part for images; `image:NAME` for one camera's alone."""


class CachedImages:
    """What images became: what shows them in place of pixels."""

    def __init__(self, rows: VectorRows, numbers: Mapping[str, int]) -> None:
        self.rows, self.numbers = rows, dict(numbers)

    def __call__(self, images: Sequence[Any] | np.ndarray) -> np.ndarray:
        return np.stack([self.rows[self.numbers[image_key(image)]] for image in images])


class ImagePlace(NamedTuple):
    """Where an image is found: samples, which of them, maker, segment, number among the images there."""

    samples: int
    sample: int
    maker: int
    segment: str
    number: int


def cached_images(
    model: Any,
    samples: Sequence[Samples],
    makers: Maker | None,
    autocast: Callable[[], AbstractContextManager[Any]],
    *,
    precision: str,
) -> CachedImages:
    """The features of every image of these samples, by the model's frozen tower."""
    tower = _frozen_tower(model)
    shows = image_makers(makers)
    numbers, where = _images(samples, shows)
    key = digest("tower, by key", weights_of(tower), tower.settings(), precision, sorted(numbers))

    def compute() -> Iterator[tuple[Sequence[int], Sequence[np.ndarray]]]:
        device = next(tower.parameters()).device
        was = tower.training
        tower.eval()
        for start in range(0, len(where), AT_ONCE):
            chosen = range(start, min(start + AT_ONCE, len(where)))
            pixels = np.concatenate([_pixels(samples, shows, where[n]) for n in chosen])
            with torch.no_grad(), autocast():
                made = tower(torch.from_numpy(pixels).to(device))
            yield chosen, list(made.float().cpu().numpy())
        tower.train(was)

    rows = rows_of(f"tower-{key[:32]}", [tower.slots] * len(where), tower.width, compute, what="image features")
    return CachedImages(rows, numbers)


def _pixels(samples: Sequence[Samples], shows: Sequence[ImageItems], at: ImagePlace) -> np.ndarray:
    """[1, 3, S, S]: one image, as the tower takes it."""
    show = shows[at.maker]
    return show.pixels([show.images(samples[at.samples].extra(at.sample))[at.segment][at.number]])


def image_key(image: Any) -> str:
    """What an image is known by: its bytes or pixels, or a file's name, size and time."""
    if isinstance(image, bytes):
        return hashlib.blake2b(image, digest_size=16).hexdigest()
    if isinstance(image, str | os.PathLike):
        found = os.stat(image)
        return digest(os.path.abspath(image), found.st_size, found.st_mtime_ns)
    pixels = np.ascontiguousarray(image)
    return hashlib.blake2b(pixels, digest_size=16, salt=repr(pixels.shape).encode()[:16]).hexdigest()


def _frozen_tower(model: Any) -> ItemEncoder:
    towers = [part.encoder for name, part in model.parts.items() if name.partition(":")[0] == SEGMENT]
    if not towers:
        raise ConfigError("cache.tower: this model has no image part; leave it out, or give the model `image` settings")
    if len(towers) > 1:
        raise ConfigError(
            f"cache.tower: this model has {len(towers)} image encoders, one for each camera; a frozen one can serve all of "
            "them (model.image.each=false)"
        )
    encoder: ItemEncoder = towers[0]
    if encoder.reads_text:
        raise ConfigError("cache.tower: this image encoder reads the text (FiLM), so that an image has no one feature")
    if any(parameter.requires_grad for parameter in encoder.parameters()):
        raise ConfigError(
            "cache.tower: the image encoder trains, so that its features change with every step. Choose a stage that "
            "leaves it frozen (align, lora, vla-train), or freeze it (tune.freeze='parts.image.encoder.*')"
        )
    return encoder


def _images(samples: Sequence[Samples], shows: Sequence[ImageItems]) -> tuple[dict[str, int], list[ImagePlace]]:
    """The number of each image by its key, and where one of its kind is found.

    Numbers follow the keys, and not the order of the samples: runs that see the same images in another order share the rows.
    """
    found: dict[str, ImagePlace] = {}
    for which, some in enumerate(samples):
        _require_the_same(some, shows)
        for index in range(len(some)):
            for place, image in _of_sample(some.extra(index), shows):
                found.setdefault(image_key(image), place._replace(samples=which, sample=index))
    if not found:
        raise ConfigError("cache.tower: the data has no image")
    keys = sorted(found)
    return {key: number for number, key in enumerate(keys)}, [found[key] for key in keys]


def _of_sample(extra: Mapping[str, Any], shows: Sequence[ImageItems]) -> Iterator[tuple[ImagePlace, Any]]:
    for maker, show in enumerate(shows):
        for segment, images in show.images(extra).items():
            for number, image in enumerate(images):
                yield ImagePlace(0, 0, maker, segment, number), image


def _require_the_same(samples: Samples, shows: Sequence[ImageItems]) -> None:
    """Refuse images that are other ones in every epoch."""
    for index in range(min(len(samples), 3)):
        first, second = ([image_key(image) for _, image in _of_sample(samples.extra(index, e), shows)] for e in (0, 1))
        if first != second:
            raise ConfigError(
                "cache.tower: images are changed anew in every epoch (data.options shift, crop, color), so that none has "
                "features that stay. Leave these out, or cache.tower"
            )
