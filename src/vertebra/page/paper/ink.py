"""A sheet as a picture: dark ink on light paper, a slant of a few degrees, blur, grain; and its page, moved along."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vertebra.page.geometry import around, corners
from vertebra.page.page import Line, Page, Word
from vertebra.page.paper.fonts import font
from vertebra.page.paper.sheet import PaperSheet


@dataclass(frozen=True, kw_only=True)
class Wear:
    """How a picture differs from a clean print; each is the most, drawn anew for every picture."""

    turn: float = 2.0
    """Degrees, either way."""
    blur: float = 0.7
    """Pixels."""
    grain: float = 10.0
    """Of 255, a standard deviation."""
    fade: float = 0.35
    """Share of the contrast that is lost."""


def pictured(sheet: PaperSheet, draw: Any, wear: Wear | None = None, number: int = 1) -> Page:
    """The page of a sheet with its picture (`page.image`), both slanted alike; lines then have quads."""
    from PIL import Image, ImageDraw, ImageFilter

    wear = wear or Wear()
    ink = float(draw.uniform(0, wear.fade) * 200)
    paper = 255 - float(draw.uniform(0, wear.fade) * 60)
    made = Image.new("L", sheet.size, int(paper))
    pen = ImageDraw.Draw(made)
    for run in sheet.runs:
        pen.text((run.left, run.y), run.text, fill=int(ink), font=font(run.font, run.size), anchor="lt")
    for rule in sheet.rules:
        pen.line(rule, fill=int(ink), width=1)
    angle = float(draw.uniform(-wear.turn, wear.turn))
    size = made.size
    made = made.rotate(angle, resample=Image.Resampling.BICUBIC, expand=True, fillcolor=int(paper))
    page = slanted(sheet.page(number), angle, made.size, size)
    made = made.filter(ImageFilter.GaussianBlur(float(draw.uniform(0, wear.blur))))
    noise = draw.normal(0, max(float(draw.uniform(0, wear.grain)), 1e-3), (made.height, made.width))
    pixels = np.clip(np.asarray(made, np.float32) + noise, 0, 255).astype(np.uint8)
    return replace(page, image=Image.fromarray(pixels, "L").convert("RGB"))


def leaning(page: Page, angle: float) -> Page:
    """A page turned by some degrees onto one that is as large as it then needs: what `pictured` does to a picture's boxes."""
    assert page.size is not None
    (wide, high), turn = page.size, math.radians(abs(angle))
    size = (wide * math.cos(turn) + high * math.sin(turn), wide * math.sin(turn) + high * math.cos(turn))
    return slanted(page, angle, (math.ceil(size[0]), math.ceil(size[1])), (int(wide), int(high)))


def slanted(page: Page, angle: float, size: tuple[int, int], before: tuple[int, int]) -> Page:
    """A page turned counterclockwise by some degrees about its middle, onto a picture of another size."""
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))

    def moved(x: float, y: float) -> tuple[float, float]:
        x, y = x - before[0] / 2, y - before[1] / 2
        return cosine * x + sine * y + size[0] / 2, -sine * x + cosine * y + size[1] / 2

    def place(one: Line | Word) -> dict[str, Any]:
        if one.box is None:
            return {}
        quad = tuple(moved(*point) for point in one.quad or corners(one.box))
        return {"box": around(quad), "quad": quad}

    lines = [
        replace(line, **place(line), words=tuple(replace(word, **place(word)) for word in line.words))
        for line in page.lines
    ]
    facts: Any = {"number": page.number, "facts": page.facts, "name": page.name}
    return Page.of(lines, size=size, on_bad="repair", **facts)
