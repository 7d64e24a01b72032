"""ALTO 2 to 4: XML of blocks, lines and strings; pixels, tenths of a millimetre or 1/1200 inch, as the file gives it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from vertebra.errors import DataError
from vertebra.page.formats.source import PageSource, points_of, share, shown, whole
from vertebra.page.formats.xml import tree, written
from vertebra.page.geometry import Box, around, corners
from vertebra.page.page import Line, Page, Word, joined, line_of
from vertebra.page.units import UnitName

UNITS: dict[str, UnitName] = {"pixel": "pixel", "mm10": "mm10", "inch1200": "inch1200"}
NAMESPACE = "http://www.loc.gov/standards/alto/ns-v4#"


def fits(root: str) -> bool:
    return root == "alto"


def read(source: PageSource) -> list[Page]:
    root = tree(source.content)
    named = (root.findtext(".//MeasurementUnit") or "pixel").strip()
    if named not in UNITS:
        raise DataError(f"{source.where} measures in {named!r:.40}; ALTO has {', '.join(UNITS)}")
    image = (root.findtext(".//sourceImageInformation/fileName") or "").strip() or None
    order = {found.get("REF"): n for n, found in enumerate(root.iter("ElementRef"))}
    pages = []
    for number, page in enumerate(root.iter("Page"), 1):
        size = _size(page) or (source.size if named == "pixel" else None)
        lines = _lines(page, order)
        written = [line for line in lines if line.text.strip()]
        blank = len(lines) - len(written)
        notes = [f"{blank} lines without text were left out"] if blank else []
        if size is None and (size := _reach(page)):
            notes.append("the file gives no size of the page: it ends where its print space and margins do")
        pages.append(source.page(written, size=size, unit=UNITS[named], number=number, name=image, notes=notes))
    return pages


def _size(one: Element) -> tuple[float, float] | None:
    width, height = (_number(one, name) for name in ("WIDTH", "HEIGHT"))
    return (width, height) if width and height and width > 0 and height > 0 else None


def _reach(page: Element) -> tuple[float, float] | None:
    """How far its print space and its margins go, which begin somewhere on the page and not at its corner."""
    found = [(_size(one), _number(one, "HPOS") or 0, _number(one, "VPOS") or 0) for one in page]
    ends = [(left + size[0], top + size[1]) for size, left, top in found if size]
    return (max(x for x, _ in ends), max(y for _, y in ends)) if ends else None


def _number(one: Element, name: str) -> float | None:
    text = one.get(name)
    return None if text is None or not text.strip() else whole(float(text))


def _lines(page: Element, order: dict[str | None, int]) -> list[Line]:
    blocks = list(page.iter("TextBlock"))
    last = len(order)
    blocks.sort(key=lambda block: order.get(block.get("ID"), last))
    found = []
    for block in blocks:
        rows = list(block.iter("TextLine"))
        rows.sort(key=lambda row: order.get(row.get("ID"), -1))
        found += [_line(row) for row in rows]
    return found


def _line(row: Element) -> Line:
    words: list[Word] = []
    for one in row:
        if one.tag == "String":
            text = (one.get("CONTENT") or "").strip()
            if text:
                words.append(Word(text, **_place(one), confidence=share(one.get("WC"))))
        elif one.tag == "HYP" and words:  # the mark at the end of a line that breaks a word
            last = words[-1]
            words[-1] = Word(
                last.text + (one.get("CONTENT") or "-"), last.box, quad=last.quad, confidence=last.confidence
            )
    place = _place(row)
    return line_of(words, place["box"], quad=place["quad"]) if words else Line("", **place)


def _place(one: Element) -> dict[str, Any]:
    numbers = [_number(one, name) for name in ("HPOS", "VPOS", "WIDTH", "HEIGHT")]
    polygon = one.find("Shape/Polygon")
    points = points_of((polygon.get("POINTS") or "").replace(",", " ").split()) if polygon is not None else []
    box = None
    found = [number for number in numbers if number is not None]
    if len(found) == len(numbers):
        left, top, width, height = found
        box = Box(left, top, whole(left + width), whole(top + height))
    elif points:
        box = around(points)
    quad: Any = tuple(points) if len(points) == 4 and box is not None else None
    if (
        quad is not None
        and box is not None
        and (quad == corners(box) or not all(math.isfinite(n) for point in quad for n in point))
    ):
        quad = None
    return {"box": box, "quad": quad}


def write(pages: Sequence[Page]) -> str:
    units = {page.unit for page in pages}
    unit = next(iter(units)) if len(units) == 1 and units <= set(UNITS) else "pixel"
    root = Element("alto", xmlns=NAMESPACE)
    about = SubElement(root, "Description")
    SubElement(about, "MeasurementUnit").text = unit
    if name := next((page.name for page in pages if page.name), None):
        SubElement(SubElement(about, "sourceImageInformation"), "fileName").text = name
    layout = SubElement(root, "Layout")
    for page in pages:
        page = page if page.unit == unit else page.to(unit, dpi=page.dpi or 72)
        width, height = page.size or (0, 0)
        size: dict[str, Any] = {"WIDTH": shown(width), "HEIGHT": shown(height)}
        made = SubElement(layout, "Page", ID=f"page_{page.number}", PHYSICAL_IMG_NR=str(page.number), **size)
        block = SubElement(
            SubElement(made, "PrintSpace", HPOS="0", VPOS="0", **size), "TextBlock", ID=f"block_{page.number}"
        )
        for line in page.lines:
            if line.text.strip():
                _write_line(block, line)
    return written(root)


def _write_line(block: Element, line: Line) -> None:
    row = SubElement(block, "TextLine")
    _write_place(row, line)
    words: tuple[Word, ...] = (Word(line.text, line.box, confidence=line.confidence),)
    if joined([word.text for word in line.words]) == line.text:
        words = line.words  # which need not have places here
    for number, word in enumerate(words):
        if number:
            SubElement(row, "SP")
        made = SubElement(row, "String", CONTENT=word.text)
        _write_place(made, word)
        if word.confidence is not None:
            made.set("WC", shown(word.confidence))


def _write_place(element: Element, one: Line | Word) -> None:
    if one.box is None:
        return
    left, top, right, bottom = one.box
    for name, number in {"HPOS": left, "VPOS": top, "WIDTH": right - left, "HEIGHT": bottom - top}.items():
        element.set(name, shown(number))
    if one.quad is not None:
        points = " ".join(f"{shown(x)} {shown(y)}" for x, y in one.quad)
        SubElement(SubElement(element, "Shape"), "Polygon", POINTS=points)
