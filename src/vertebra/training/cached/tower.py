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
from typing import Any

import numpy as np
import torch

from vertebra.data.read.rows import digest
from vertebra.data.samples.samples import Samples
from vertebra.errors import ConfigError
from vertebra.model.encoders.part import ItemEncoder
from vertebra.training.cached.store import Rows, rows_of, weights_of

AT_ONCE = 32
"""Images of one pass through the tower."""
SEGMENT = "image"


class CachedImages:
    """What a sample's images became: in place of `ImageFeatures`."""

    def __init__(self, rows: Rows, numbers: Mapping[str, int]) -> None:
        self.rows, self.numbers = rows, dict(numbers)

    def __call__(self, extra: Mapping[str, Any]) -> dict[str, np.ndarray]:
        images = extra.get("images", ())
        if not images:
            return {}
        return {SEGMENT: np.stack([self.rows[self.numbers[image_key(image)]] for image in images])}


def cached_images(
    model: Any, samples: Sequence[Samples], autocast: Callable[[], AbstractContextManager[Any]], *, precision: str
) -> CachedImages:
    """The features of every image of these samples, by the model's frozen tower."""
    tower = _frozen_tower(model)
    numbers, where = _images(samples)
    key = digest("tower, by key", weights_of(tower), tower.settings(), precision, sorted(numbers))

    def compute() -> Iterator[tuple[Sequence[int], Sequence[np.ndarray]]]:
        device = next(tower.parameters()).device
        was = tower.training
        tower.eval()
        for start in range(0, len(where), AT_ONCE):
            chosen = range(start, min(start + AT_ONCE, len(where)))
            images = [
                samples[which].extra(index)["images"][number] for which, index, number in (where[i] for i in chosen)
            ]
            with torch.no_grad(), autocast():
                made = tower(torch.from_numpy(tower.prepare(images)).to(device))
            yield chosen, list(made.float().cpu().numpy())
        tower.train(was)

    rows = rows_of(f"tower-{key[:32]}", [tower.slots] * len(where), tower.width, compute, what="image features")
    return CachedImages(rows, numbers)


def image_key(image: Any) -> str:
    """What an image is known by: its bytes, or a file's name, size and time."""
    if isinstance(image, bytes):
        return hashlib.blake2b(image, digest_size=16).hexdigest()
    found = os.stat(image)
    return digest(os.path.abspath(image), found.st_size, found.st_mtime_ns)


def _frozen_tower(model: Any) -> ItemEncoder:
    if SEGMENT not in model.parts:
        raise ConfigError("cache.tower: this model has no image part; leave it out, or give the model `image` settings")
    encoder: ItemEncoder = model.parts[SEGMENT].encoder
    if encoder.reads_text:
        raise ConfigError("cache.tower: this image encoder film the text (FiLM), so that an image has no one feature")
    if any(parameter.requires_grad for parameter in encoder.parameters()):
        raise ConfigError(
            "cache.tower: the image encoder trains, so that its features change with every step. Choose a stage that "
            "leaves it frozen (align, lora, vla-train), or freeze it (tune.freeze='parts.image.encoder.*')"
        )
    return encoder


def _images(samples: Sequence[Samples]) -> tuple[dict[str, int], list[tuple[int, int, int]]]:
    """The number of each image by its key, and where one of its kind is found: samples, index, place among its images.

    Numbers follow the keys, and not the order of the samples: runs that see the same images in another order share the rows.
    """
    found: dict[str, tuple[int, int, int]] = {}
    for which, some in enumerate(samples):
        for index in range(len(some)):
            for place, image in enumerate(some.extra(index).get("images", ())):
                found.setdefault(image_key(image), (which, index, place))
    if not found:
        raise ConfigError("cache.tower: the data has no image")
    keys = sorted(found)
    return {key: number for number, key in enumerate(keys)}, [found[key] for key in keys]
