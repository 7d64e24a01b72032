"""Pictures of pages as people have them: many in one TIFF, seen through, called otherwise than what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from vertebra.errors import DataError
from vertebra.page import Page, read_document
from vertebra.page.geometry import Box
from vertebra.page.page import Line
from vertebra.page.pictures import opened, pages_in


def picture(shade: int, size: tuple[int, int] = (40, 30), mode: str = "L") -> Image.Image:
    return Image.new("L", size, shade).convert(mode)


class Shade:
    """An engine that reads how bright a picture is."""

    name = "shade"

    def read(self, image: Image.Image) -> Page:
        return Page.of([Line(str(image.convert("L").getpixel((0, 0))), Box(1, 1, 9, 9))], size=image.size)


def saved(path: Path, *pictures: Image.Image) -> Path:
    pictures[0].save(path, save_all=len(pictures) > 1, append_images=pictures[1:])
    return path


@pytest.mark.parametrize("count", [1, 2, 7])
def test_every_page_of_a_tiff_is_read(count: int, tmp_path: Path):
    path = saved(tmp_path / "a.tiff", *[picture(10 * n, (40 + n, 30)) for n in range(count)])
    assert pages_in(path) == count
    found = read_document(path, ocr=Shade())
    assert [(page.number, page.text, page.size) for page in found] == [
        (n + 1, str(10 * n), (40 + n, 30)) for n in range(count)
    ]
    last = read_document(path, [count], ocr=Shade())
    assert [(page.number, page.text) for page in last] == [(count, str(10 * count - 10))]
    with pytest.raises(DataError, match=f"there is no page {count + 1}"):
        read_document(path, [count + 1], ocr=Shade())


def test_a_film_is_one_page(tmp_path: Path):
    path = saved(tmp_path / "a.gif", *[picture(80 * n, mode="P") for n in range(3)])
    assert [page.text for page in read_document(path, ocr=Shade())] == ["0"]


def test_a_later_page_may_not_be_a_bomb_either(tmp_path: Path):
    path = saved(tmp_path / "a.tiff", picture(0), picture(0, (400, 300)))
    assert opened(path, 2000).size == (40, 30)
    with pytest.raises(DataError, match=r"page 2 of .* has 400 × 300 pixels"):
        opened(path, 2000, number=2)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_a_scan_of_16_bits_is_that_of_8(suffix: str, byteorder: str, tmp_path: Path):
    """Each value of 8 bits as 16: cut off at 255 instead, all of the page but black would be white."""
    shades = np.arange(256, dtype=np.uint8).reshape(8, 32)
    deep = Image.fromarray((shades.astype(np.uint16) * 257).astype(f"{byteorder}u2"))
    deep.save(tmp_path / f"deep.{suffix}")
    for given in (deep, tmp_path / f"deep.{suffix}"):
        found = opened(given)
        assert found.mode == "L"
        assert np.array_equal(np.asarray(found), shades)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_a_picture_of_32_bits_is_refused(dtype: type, tmp_path: Path):
    path = tmp_path / "deep.tiff"
    Image.fromarray(np.full((8, 8), 7, dtype=dtype)).save(path)
    with pytest.raises(DataError, match=r"`.*deep\.tiff` has 32 bits a pixel .* save it as a picture of 8 or 16 bits"):
        opened(path)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_seen_through_is_paper(mode: str, tmp_path: Path):
    """Black letters on nothing, as programs draw them: they stay black, and the nothing is white."""
    drawn = Image.new("RGBA", (40, 30), (0, 0, 0, 0))
    ImageDraw.Draw(drawn).rectangle((10, 10, 20, 20), fill=(0, 0, 0, 255))
    path = saved(tmp_path / "a.png", drawn.quantize() if mode == "P" else drawn.convert(mode))
    found = opened(path)
    assert found.mode == "RGB"
    assert found.getpixel((15, 15)) == (0, 0, 0)
    assert found.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "GIF", "WEBP"])
@pytest.mark.parametrize("name", ["scan", "scan.jfif", "scan.dat", "scan.txt"])
def test_a_picture_is_known_by_how_it_begins(format: str, name: str, tmp_path: Path):
    picture(240).save(tmp_path / name, format=format)
    (page,) = read_document(tmp_path / name, ocr=Shade())
    assert abs(int(page.text) - 240) < 4
    with pytest.raises(DataError, match="is a picture, which is in no format of pages"):
        read_document(tmp_path / name, ocr=Shade(), format="alto")
