"""Preparing images: against the library's own Pillow processors, and everything a folder of images can hold."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from vertebra.errors import ConfigError, DataError, UnknownNameError
from vertebra.model.encoders.images import Preparation, prepare_image, prepare_images, read_image

SMALL = Preparation(size=28)


def picture(wide: int = 40, high: int = 30, mode: str = "RGB", seed: int = 0) -> Image.Image:
    field = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(field).resize((wide, high), Image.Resampling.BICUBIC).convert(mode)


def as_bytes(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def open_files() -> list[str]:
    """What this process holds open."""
    return [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]


class TestSteps:
    @settings(max_examples=25, deadline=None)
    @given(st.integers(5, 90), st.integers(5, 90))
    def test_stretched_as_siglip_does(self, wide, high):
        image = picture(wide, high)
        processor = SiglipImageProcessorPil(size={"height": 28, "width": 28}, do_rescale=False, do_normalize=False)
        expected = processor(image, return_tensors="np")["pixel_values"][0]
        assert np.array_equal(prepare_image(image, SMALL), expected)

    @settings(max_examples=25, deadline=None)
    @given(st.integers(5, 90), st.integers(5, 90))
    def test_cropped_as_dinov2_does(self, wide, high):
        image = picture(wide, high)
        how = Preparation(size=28, fit="crop", shorter=32)
        processor = BitImageProcessorPil(
            size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28}, do_rescale=False, do_normalize=False
        )
        expected = processor(image, return_tensors="np")["pixel_values"][0]
        assert np.array_equal(prepare_image(image, how), expected)

    @pytest.mark.parametrize(("wide", "high"), [(60, 20), (20, 60), (30, 30)])
    def test_padded_keeps_the_shape(self, wide, high):
        how = Preparation(size=28, fit="pad", ground=(1, 2, 3))
        made = prepare_image(picture(wide, high), how)
        ground = (made == np.array([1, 2, 3])[:, None, None]).all(0)
        inner = (round(high * 28 / max(wide, high)), round(wide * 28 / max(wide, high)))
        assert (~ground).sum() == inner[0] * inner[1]
        assert not ground[14, 14]

    def test_the_result_is_bytes_channels_first(self):
        made = prepare_images([picture(), picture(seed=1)], SMALL)
        assert made.dtype == np.uint8
        assert made.shape == (2, 3, 28, 28)
        assert made.flags["C_CONTIGUOUS"]
        assert prepare_images([], SMALL).shape == (0, 3, 28, 28)

    def test_turned_as_the_camera_says(self):
        image = picture(40, 20)
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned by a quarter
        turned = as_bytes(image, exif=exif)
        assert read_image(turned).size == (20, 40)
        assert np.array_equal(prepare_image(turned, SMALL), prepare_image(image.rotate(-90, expand=True), SMALL))

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"size": 0}, "size 0"),
            ({"size": 28, "shorter": 20}, "shorter >= size"),
            ({"size": 28, "fit": "streched"}, "Did you mean `stretch`"),
            ({"size": 28, "resample": "bicubik"}, "Did you mean `bicubic`"),
        ],
    )
    def test_settings_that_cannot_be(self, settings, message):
        with pytest.raises((ConfigError, UnknownNameError), match=message):
            Preparation(**settings)


class TestWhatIsTaken:
    def test_file_bytes_image_and_array_are_the_same(self, tmp_path):
        image = picture()
        path = tmp_path / "a.png"
        image.save(path)
        expected = prepare_image(image, SMALL)
        for same in (path, str(path), path.read_bytes(), np.asarray(image)):
            assert np.array_equal(prepare_image(same, SMALL), expected)

    @pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr"])
    def test_other_colors_become_rgb(self, mode):
        image = picture(mode=mode)
        assert np.array_equal(prepare_image(image, SMALL), prepare_image(image.convert("RGB"), SMALL))

    def test_one_channel_is_gray(self):
        gray = np.asarray(picture(mode="L"))
        made = prepare_image(gray, SMALL)
        assert np.array_equal(made[0], made[1])
        assert np.array_equal(made, prepare_image(gray[..., None], SMALL))

    def test_opaque_alpha_is_dropped(self):
        image = picture()
        assert np.array_equal(prepare_image(image.convert("RGBA"), SMALL), prepare_image(image, SMALL))

    def test_transparency_is_a_choice(self):
        image = picture().convert("RGBA")
        image.putpixel((0, 0), (9, 9, 9, 0))
        with pytest.raises(DataError, match=r"transparent pixels; say what is behind them: .*ground=\(255, 255, 255\)"):
            prepare_image(image, SMALL)
        white = read_image(image, ground=(255, 255, 255))
        assert white.getpixel((0, 0)) == (255, 255, 255)
        assert white.getpixel((5, 5)) == picture().getpixel((5, 5))

    def test_a_palette_with_a_transparent_color(self):
        image = picture(mode="P")
        file = as_bytes(image, transparency=image.getpixel((0, 0)))
        with pytest.raises(DataError, match=r"transparent"):
            prepare_image(file, SMALL)


class TestWhatIsRefused:
    def test_zero_size(self):
        with pytest.raises(DataError, match=r"0 × 5 pixels; an image has at least one"):
            prepare_image(Image.new("RGB", (0, 5)), SMALL)
        with pytest.raises(DataError, match=r"shape \(0, 4, 3\)"):
            prepare_image(np.zeros((0, 4, 3), np.uint8), SMALL)

    def test_sixteen_bits(self):
        deep = Image.fromarray(np.full((8, 8), 4000, np.uint16))
        with pytest.raises(DataError, match=r"more than 8 bits a pixel \(mode I;16\); scale it to 8 bits first"):
            prepare_image(as_bytes(deep), SMALL)
        with pytest.raises(DataError, match=r"mode F"):
            prepare_image(Image.fromarray(np.zeros((8, 8), np.float32)), SMALL)
        with pytest.raises(DataError, match=r"an array of uint16; expected 8-bit pixels"):
            prepare_image(np.zeros((8, 8, 3), np.uint16), SMALL)

    @pytest.mark.parametrize("kind", ["PNG", "JPEG"])
    def test_cut_off(self, kind):
        whole = as_bytes(picture(300, 300), kind)
        with pytest.raises(DataError, match=r"damaged or cut off .*; copy it again"):
            prepare_image(whole[: len(whole) // 2], SMALL)

    def test_no_file_is_left_open(self, tmp_path):
        broken, frames = tmp_path / "broken.png", tmp_path / "frames.gif"
        broken.write_bytes(as_bytes(picture(300, 300))[:-900])
        picture().save(frames, save_all=True, append_images=[picture(seed=1)])
        with pytest.raises(DataError, match=r"broken.png` is damaged or cut off") as caught:
            prepare_image(broken, SMALL)
        prepare_image(frames, SMALL)
        assert not {Path(link).name for link in open_files()} & {"broken.png", "frames.gif"}
        assert caught.value.__cause__ is not None  # held until here, and with it the image that it is about

    def test_not_an_image(self, tmp_path):
        file = tmp_path / "notes.png"
        file.write_text("no picture")
        with pytest.raises(DataError, match=r"notes.png` is no image that Pillow can read"):
            prepare_image(file, SMALL)
        with pytest.raises(DataError, match=r"none.png` cannot be read: No such file"):
            prepare_image(tmp_path / "none.png", SMALL)
        with pytest.raises(DataError, match=r"an image is a int"):
            prepare_image(3, SMALL)

    def test_shapes_that_are_no_image(self):
        with pytest.raises(DataError, match=r"shape \(3, 8, 8\); expected \[H, W, 3\]"):
            prepare_image(np.zeros((3, 8, 8), np.uint8), SMALL)

    def test_a_line_cannot_be_cropped(self):
        with pytest.raises(DataError, match=r"is a line"):
            prepare_image(picture(5000, 2), Preparation(size=28, fit="crop"))

    def test_a_bomb(self, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        with pytest.raises(DataError, match=r"too large to open safely"):
            prepare_image(as_bytes(picture(40, 30)), SMALL)

    def test_every_wrong_image_is_named(self):
        good, bad = picture(), Image.new("RGB", (0, 5))
        with pytest.raises(DataError, match=r"image 1: .*; image 3: "):
            prepare_images([good, bad, good, b"nothing"], SMALL)


def letterboxed(image: np.ndarray, size: int, ground: int) -> np.ndarray:
    """OpenVLA's steps written out: a border, the shorter side, the middle as torchvision rounds it."""
    high, wide = image.shape[:2]
    longest = max(high, wide)
    beside, above = int((longest - wide) / 2), int((longest - high) / 2)
    padded = np.full((high + 2 * above, wide + 2 * beside, 3), ground, np.uint8)
    padded[above : above + high, beside : beside + wide] = image
    return middle_by_rounding(padded, size)


def middle_by_rounding(image: np.ndarray, size: int) -> np.ndarray:
    high, wide = image.shape[:2]
    shape = (size, int(size * high / wide)) if wide <= high else (int(size * wide / high), size)
    resized = np.asarray(Image.fromarray(image).resize(shape, Image.Resampling.BICUBIC))
    top, left = (round((side - size) / 2.0) for side in resized.shape[:2])
    return resized[top : top + size, left : left + size]


@pytest.mark.parametrize(("high", "wide"), [(28, 28), (30, 41), (57, 31), (29, 30), (28, 35), (40, 43)])
def test_openvla_s_letterbox_and_crop(high: int, wide: int):
    image = np.random.default_rng(high + wide).integers(0, 256, (high, wide, 3), dtype=np.uint8)
    boxed = Preparation(size=28, fit="letterbox", ground=(127, 127, 127), rounding="even")
    assert np.array_equal(prepare_image(image, boxed), letterboxed(image, 28, 127).transpose(2, 0, 1))
    cropped = Preparation(size=28, fit="crop", rounding="even")
    assert np.array_equal(prepare_image(image, cropped), middle_by_rounding(image, 28).transpose(2, 0, 1))
