"""Augmentation: what it changes, against plain code; the same draw for all cameras and moments; nothing without settings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vertebra.data.samples.augment import Augmentation, recolored
from vertebra.errors import ConfigError

SEEDS = st.integers(0, 2**20)


def images(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@given(SEEDS, st.integers(1, 4))
def test_a_shift_moves_by_whole_pixels_and_repeats_the_border(seed: int, most: int):
    pixels = images(seed, 2, 3, 9, 9)
    made = Augmentation(shift=most)({"image": pixels}, np.random.default_rng(seed))["image"]
    padded = np.pad(pixels, ((0, 0), (0, 0), (most, most), (most, most)), mode="edge")
    cut = [padded[..., y : y + 9, x : x + 9] for y in range(2 * most + 1) for x in range(2 * most + 1)]
    assert any(np.array_equal(made, one) for one in cut)


@given(SEEDS)
def test_a_crop_shows_pixels_of_the_image_in_their_order(seed: int):
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8), (1, 3, 64, 64))
    made = Augmentation(crop=0.5)({"image": ramp}, np.random.default_rng(seed))["image"]
    assert made.shape == ramp.shape
    row = made[0, 0, 0].astype(int)
    assert (np.diff(row) >= 0).all()
    assert row[-1] - row[0] >= 30, "no more than half is cut away"


@given(SEEDS, *[st.floats(0.5, 1.5)] * 3)
def test_colors_against_plain_code(seed: int, brightness: float, contrast: float, saturation: float):
    pixels = images(seed, 2, 3, 4, 5)
    made = recolored(pixels, brightness, contrast, saturation)
    for number, image in enumerate(pixels.astype(float)):
        gray = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
        changed = gray + (image - gray) * saturation
        changed = (changed.mean() + (changed - changed.mean()) * contrast) * brightness
        assert np.abs(made[number] - np.clip(changed, 0, 255)).max() <= 0.51


def test_all_cameras_and_moments_share_one_draw():
    pixels = images(1, 1, 3, 8, 8)
    both = {"image:a": np.concatenate([pixels, pixels]), "image:b": pixels}
    made = Augmentation(shift=3, crop=0.2, color=0.3)(both, np.random.default_rng(5))
    assert np.array_equal(made["image:a"][0], made["image:a"][1])
    assert np.array_equal(made["image:a"][:1], made["image:b"])
    assert not np.array_equal(made["image:b"], pixels)


def test_nothing_is_changed_without_settings_and_nonsense_is_refused():
    assert not Augmentation()
    pixels = images(2, 1, 3, 8, 8)
    assert Augmentation()({"image": pixels}, np.random.default_rng(0))["image"] is pixels
    with pytest.raises(ConfigError, match="crop"):
        Augmentation(crop=1.0)
