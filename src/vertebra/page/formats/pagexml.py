"""PAGE-XML of any year: regions, lines and words as polygons in pixels; the reading order is the file's own, if it has one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from vertebra.errors import shortened
from vertebra.page.formats.source import PageSource, pixels, points_of, share, shown
from vertebra.page.formats.xml import tree, written
from vertebra.page.geometry import Box, Quad, around, corners
from vertebra.page.page import Line, Page, Word, joined

NAMESPACE = "http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15"


def fits(root: str) -> bool:
    return root == "PcGts"


def read(source: PageSource) -> list[Page]:
    pages = []
    for number, page in enumerate(tree(source.content).iter("Page"), 1):
        width, height = page.get("imageWidth"), page.get("imageHeight")
        size = (int(float(width)), int(float(height))) if width and height else None
        whole: list[str] = []
        lines = list(_lines(page, whole))
        kept = [line for line in lines if line.text.strip()]
        notes = [f"{len(lines) - len(kept)} lines without text were left out"] if len(kept) < len(lines) else []
        if whole:
            notes.append(
                f"regions without lines ({shortened(', '.join(whole), 60)}): each row has its share of the box"
            )
        pages.append(source.page(kept, size=size, number=number, name=page.get("imageFilename") or None, notes=notes))
    return pages


def _lines(page: Element, whole: list[str]) -> Iterator[Line]:
    order = {name: n for n, name in enumerate(_order(page.find("ReadingOrder")))}
    regions = [one for one in page if one.tag.endswith("Region")]
    regions.sort(key=lambda one: order.get(one.get("id") or "", len(order)))
    for region in regions:
        yield from _of_region(region, whole)


def _of_region(region: Element, whole: list[str]) -> list[Line]:
    """The lines inside, at any depth (cells of tables, regions in regions); of a region that has a text and no lines with
    one, the rows of its text: then its name joins `whole`."""
    found: list[Line] = []
    for one in region:
        found += [_line(one)] if one.tag == "TextLine" else _of_region(one, whole)
    if any(line.text.strip() for line in found):
        return found
    rows = [row.strip() for row in _text(region)[0].split("\n") if row.strip()]
    if not rows:
        return found
    if len(rows) == len(found):  # lines that were drawn and not written down
        return [replace(line, text=row) for line, row in zip(found, rows, strict=True)]
    whole.append(region.get("id") or "unnamed")
    return _shares(rows, **_place(region))


def _shares(rows: Sequence[str], box: Box | None = None, quad: Quad | None = None) -> list[Line]:
    """Rows down a box, each as high as the others. A guess, but one that keeps them in order from the top, and apart; the
    whole box for each would make every line as high as the region."""
    if box is None or len(rows) == 1:
        return [Line(row, box, quad=quad) for row in rows]
    high = box.height / len(rows)
    tops = [box.top + high * n for n in range(len(rows))]
    return [Line(row, Box(box.left, top, box.right, top + high)) for row, top in zip(rows, tops, strict=True)]


def _order(group: Element | None) -> Iterator[str]:
    """Names of regions in order, groups within groups."""
    if group is None:
        return
    parts = [one for one in group if one.tag.startswith(("RegionRef", "OrderedGroup", "UnorderedGroup"))]
    parts.sort(key=lambda one: int(one.get("index") or 0))
    for one in parts:
        if one.get("regionRef"):
            yield str(one.get("regionRef"))
        yield from _order(one)


def _line(row: Element) -> Line:
    words = tuple(
        Word(text, **_place(one), confidence=sure) for one in row.findall("Word") for text, sure in [_text(one)] if text
    )
    text, sure = _text(row)
    return Line(text or joined([word.text for word in words]), **_place(row), confidence=sure, words=words)


def _text(one: Element) -> tuple[str, float | None]:
    """The first of its readings: lowest index, then as they stand."""
    readings = sorted(one.findall("TextEquiv"), key=lambda found: int(found.get("index") or 0))
    for found in readings:
        text = found.findtext("Unicode") or found.findtext("PlainText") or ""
        if text.strip():
            return text.strip(), share(found.get("conf"))
    return "", None


def _place(one: Element) -> dict[str, Any]:
    coords = one.find("Coords")
    if coords is None:
        return {}
    if coords.get("points") is not None:
        points = points_of((coords.get("points") or "").replace(",", " ").split())
    else:  # 2009 and 2010
        points = [(float(p.get("x") or "nan"), float(p.get("y") or "nan")) for p in coords.findall("Point")]
    if not points:
        return {}
    box = around(points)
    quad: Any = tuple(points) if len(points) == 4 and all(math.isfinite(n) for n in box) else None
    return {"box": box, "quad": None if quad == corners(box) else quad}


def write(pages: Sequence[Page]) -> str:
    root = Element("PcGts", xmlns=NAMESPACE)
    SubElement(SubElement(root, "Metadata"), "Creator").text = "vertebra"
    for page in map(pixels, pages):
        width, height = page.size or (0, 0)
        made = SubElement(root, "Page", imageWidth=str(math.ceil(width)), imageHeight=str(math.ceil(height)))
        made.set("imageFilename", page.name or "")
        region = SubElement(made, "TextRegion", id=f"r{page.number}")
        SubElement(region, "Coords", points=_points(corners(around([(0, 0), (width, height)]))))
        for number, line in enumerate(page.lines):
            if line.text.strip():
                row = SubElement(region, "TextLine", id=f"r{page.number}l{number}")
                _write(row, line)
                for place, word in enumerate(line.words):
                    _write(SubElement(row, "Word", id=f"r{page.number}l{number}w{place}"), word)
                _write_text(row, line)
    return written(root)


def _write(element: Element, one: Line | Word) -> None:
    if one.box is not None:
        SubElement(element, "Coords", points=_points(one.quad or corners(one.box)))
    if isinstance(one, Word):
        _write_text(element, one)


def _write_text(element: Element, one: Line | Word) -> None:
    equiv = SubElement(element, "TextEquiv")
    if one.confidence is not None:
        equiv.set("conf", shown(one.confidence))
    SubElement(equiv, "Unicode").text = one.text


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{shown(x)},{shown(y)}" for x, y in points)
