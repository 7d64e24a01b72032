"""The stem: key points against plain loops, the order of its grid, what it refuses, and its way through a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vertebra.backbone.registry import load_backbone
from vertebra.errors import ConfigError
from vertebra.model.encoders.stem import StemEncoder, key_points
from vertebra.model.fresh import new_part
from vertebra.model.model import Model


def plain_points(maps: np.ndarray) -> np.ndarray:
    """Where a softmax over each map has its mean, cell by cell."""
    count, points, high, wide = maps.shape
    found = np.zeros((count, points, 2))
    for image in range(count):
        for point in range(points):
            raised = np.exp(maps[image, point] - maps[image, point].max())
            shares = raised / raised.sum()
            for row in range(high):
                for column in range(wide):
                    x = 2 * column / (wide - 1) - 1
                    y = 2 * row / (high - 1) - 1
                    found[image, point] += shares[row, column] * np.array([x, y])
    return found


@given(st.integers(0, 2**20), st.integers(1, 3), st.integers(1, 4), st.integers(2, 5), st.integers(2, 5))
def test_key_points_are_means_of_a_softmax(seed: int, count: int, points: int, high: int, wide: int):
    maps = np.random.default_rng(seed).normal(0, 3, (count, points, high, wide))
    assert np.allclose(key_points(torch.from_numpy(maps).float()), plain_points(maps), atol=1e-5)


def test_the_grid_stands_row_by_row_and_the_points_behind_it():
    image = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    image[1, :, 8:16, 24:32] = 255
    moved = torch.zeros(16)
    for seed in range(20):  # one draw may look at little there, and norms carry a change to every place
        torch.manual_seed(seed)
        encoder = StemEncoder(16, image_size=32, grid=4, points=3, channels=8)
        assert encoder.slots == 17
        with torch.no_grad():
            encoder.place.zero_()
            dark, light = encoder(image)
        moved += (light - dark).abs().sum(-1)[:16]
    assert int(moved.argmax()) == 1 * 4 + 3, "the second row, the last column"
    assert StemEncoder(16, image_size=32, grid=8, points=0, channels=8)(image).shape == (2, 64, 16)


def test_a_bright_spot_pulls_a_point_that_looks_for_brightness():
    encoder = StemEncoder(8, image_size=32, grid=8, points=1, channels=8)
    seen = []
    for column in (4, 24):
        maps = torch.zeros(1, 1, 8, 8)
        maps[0, 0, 4, column // 4] = 20
        seen.append(float(key_points(maps)[0, 0, 0]))
    assert seen[0] < -0.5 < 0.5 < seen[1]
    assert "1 key points" in encoder.about()


def test_bytes_and_floats_are_the_same_image():
    encoder = StemEncoder(8, image_size=32, grid=4, channels=8)
    image = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    assert torch.allclose(encoder(image), encoder(image.float() / 255), atol=1e-6)


@pytest.mark.parametrize(
    "sizes",
    [{"grid": 3}, {"grid": 32}, {"grid": 0}, {"image_size": 60}, {"channels": 12}, {"points": -1}, {"width": 0}],
)
def test_sizes_that_cannot_be(sizes):
    with pytest.raises(ConfigError, match=r"a stem that cannot be: .*expected"):
        StemEncoder(**{"width": 8, **sizes})


def test_it_comes_back_from_a_folder(tmp_path: Path):
    backbone = load_backbone("tiny-llama2", dtype="float32")
    parts = {f"image:{name}": new_part(backbone, StemEncoder(8, image_size=32, channels=8), "linear") for name in "ab"}
    model = Model(backbone, parts)
    again = Model.load(model.save(tmp_path / "model"), inference_mode=True)
    image = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    for name in parts:
        assert torch.equal(again.parts[name](image), model.parts[name](image)), name
    assert not torch.equal(again.parts["image:a"](image), again.parts["image:b"](image)), "each camera has its own"
