"""Statistics beside numpy's of everything at once, and the envelope that LeRobot's quantiles are."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vertebra.episodes.statistics import QUANTILES, joined, of_images, of_numbers, of_plain, plain, sampled


@settings(max_examples=10)
@given(seed=st.integers(0, 99), frames=st.integers(1, 40))
def test_of_images_is_of_all_their_pixels(seed: int, frames: int):
    images = np.random.default_rng(seed).integers(0, 256, (frames, 6, 5, 3), dtype=np.uint8)
    pixels = images.reshape(-1, 3) / 255
    found = of_images(images)
    expected = {"min": pixels.min(0), "max": pixels.max(0), "mean": pixels.mean(0), "std": pixels.std(0)}
    expected |= {name: np.quantile(pixels, share, axis=0) for name, share in QUANTILES.items()}
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value.reshape(3, 1, 1), atol=1e-12)
    assert found["count"].tolist() == [frames]


@settings(max_examples=10)
@given(seed=st.integers(0, 99), lengths=st.lists(st.integers(1, 20), min_size=1, max_size=5))
def test_joined_is_of_all_but_for_quantiles(seed: int, lengths: list[int]):
    rng = np.random.default_rng(seed)
    parts = [rng.normal(rng.normal(), 2, (length, 3)) for length in lengths]
    together, found = np.concatenate(parts), joined([of_numbers(part) for part in parts])
    np.testing.assert_allclose(found["mean"], together.mean(0), atol=1e-12)
    np.testing.assert_allclose(found["std"], together.std(0), atol=1e-12)
    np.testing.assert_array_equal(found["min"], together.min(0))
    assert found["count"].tolist() == [sum(lengths)]
    lows = [np.quantile(part, 0.01, axis=0) for part in parts]
    np.testing.assert_allclose(found["q01"], np.min(lows, 0))
    np.testing.assert_allclose(found["q90"], np.max([np.quantile(part, 0.9, axis=0) for part in parts], 0))
    again = of_plain(plain({"action": found}))["action"]
    assert all(np.array_equal(again[name], value) for name, value in found.items())


def test_many_frames_are_sampled_from_first_to_last():
    assert sampled(1).tolist() == [0]
    assert sampled(100).tolist() == list(range(100))
    assert (len(sampled(2000)), sampled(2000)[-1]) == (299, 1999)
    large = np.zeros((2, 320, 400, 3), np.uint8)
    assert of_images(large)["max"].shape == (3, 1, 1)
