"""An extraction drawn: one self-contained page in which answers and their boxes light each other up, or a picture with boxes.

No network, no library; texts of documents are text, wherever they stand.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vertebra.documents.found import Extraction, Found
from vertebra.folders import named_file
from vertebra.page.drawing import LONGEST, blank
from vertebra.page.geometry import Box
from vertebra.page.page import Page
from vertebra.page.pictures import opened
from vertebra.webpage import beside, data_url, escaped, webpage

COLORS = {"good": (26, 127, 55), "fair": (183, 121, 31), "bad": (179, 38, 30)}
"""By confidence: 0.9 and more, 0.5 and more, less."""


def level(confidence: float) -> str:
    """The name of a confidence's color."""
    return "good" if confidence >= 0.9 else "fair" if confidence >= 0.5 else "bad"


def extraction_page(found: Extraction, pictures: Mapping[int, Any] | None = None) -> str:
    """The page, ready to be written to a file. `pictures`: of pages, by their numbers; a page's own by default."""
    own = {page.number: page.image for page in found.document if page.image is not None}
    own |= pictures or {}
    sheets = [sheet(page, own.get(page.number), _marks(found, page)) for page in found.document]
    body = [_head(found), "<div id='pages'>", *sheets, "</div>", _answers(found)]
    data, style = ("extraction", found.to_dict()), beside("vertebra.documents", "page.css")
    return webpage(_name(found), "\n".join(body), style=style, data=data, script=light())


def write_extraction_page(found: Extraction, path: str | Path, pictures: Mapping[int, Any] | None = None) -> Path:
    """The same as a file."""
    with named_file(path) as file:
        file.write_text(extraction_page(found, pictures), encoding="utf-8")
    return file


def draw_extraction(found: Extraction, page: Page, picture: Any = None) -> Any:
    """A page's picture (or white, with its texts) with a box and a name for each answer on it."""
    from PIL import ImageDraw, ImageFont

    picture = page.image if picture is None else picture
    made = blank(page) if picture is None else opened(picture).convert("RGB")
    pen = ImageDraw.Draw(made)
    size = max(11, made.width // 80)
    font = ImageFont.load_default(size)
    for path, one, box in _boxes(found, page):
        box = box.scaled(made.width / page.extent[0], made.height / page.extent[1])  # type: ignore[index]
        color = COLORS[level(one.confidence)]
        pen.rectangle(list(box), outline=color, width=3)
        label = f"{path} {one.confidence:.2f}".encode("latin-1", "replace").decode("latin-1")
        pen.text((box.left + 2, max(box.top - size - 3, 0)), label, fill=color, font=font)
    return made


def write_extraction_picture(found: Extraction, page: Page, path: str | Path, picture: Any = None) -> Path:
    """The same as a PNG file."""
    with named_file(path) as file:
        draw_extraction(found, page, picture).save(file, "PNG")
    return file


def _boxes(found: Extraction, page: Page) -> Iterator[tuple[str, Found, Box]]:
    """(path, answer, box) of every box on a page that has a size."""
    for path, one in found.leaves() if page.extent is not None else ():
        for place in one.places:
            if place.page == page.number:
                yield from ((path, one, box) for box in place.boxes)


def _marks(found: Extraction, page: Page) -> list[Mark]:
    return [
        Mark(path, level(one.confidence), f"{path}: {one.text} ({one.confidence:.2f})", box)
        for path, one, box in _boxes(found, page)
    ]


def _name(found: Extraction) -> str:
    return f"{found.document.name or 'A document'}: what was found"


def _head(found: Extraction) -> str:
    some = sum(one.value is not None for _, one in found.leaves())
    windows = "" if found.windows == 1 else f", read in {found.windows} windows"
    errors = "".join(f"<li>{escaped(error)}</li>" for error in found.errors)
    listed = f"<div class='card' id='errors'><h2>To be looked at</h2><ul>{errors}</ul></div>" if errors else ""
    return (
        f"<header><h1>{escaped(_name(found))}</h1><p class='soft'>{some} values on {len(found.document)} pages{windows}. "
        f"Boxes are green from a confidence of 0.9 on, yellow from 0.5 on, else red.</p>{listed}</header>"
    )


@dataclass(frozen=True)
class Mark:
    """A box on a page: what it belongs to (all of one name light up together), its color's class, its words, its place."""

    name: str
    look: str
    title: str
    box: Box


def light() -> str:
    """The script by which boxes and rows of one name light each other up."""
    return beside("vertebra.documents", "light.html")


def sheet(page: Page, picture: Any, marks: Iterable[Mark], title: str | None = None) -> str:
    """A page as a drawing: its picture, or its texts, and boxes in the page's own unit."""
    title = f"Page {page.number}" if title is None else title
    inside = []
    if picture is not None:
        image = opened(picture)
        width, height = image.size
        inside.append(f"<image href='{_jpeg(image)}' width='{width}' height='{height}'/>")
    elif page.extent is not None and page.size is not None:
        scale = LONGEST / max(page.size)
        width, height = round(page.size[0] * scale), round(page.size[1] * scale)
        x, y = width / page.extent[0], height / page.extent[1]
        for line in page.lines:
            if line.box is not None:
                box = line.box.scaled(x, y)
                inside.append(
                    f"<text x='{box.left:.1f}' y='{box.bottom:.1f}' font-size='{max(box.height * 0.8, 4):.1f}' "
                    f"textLength='{max(box.width, 1):.1f}' lengthAdjust='spacingAndGlyphs'>{escaped(line.text)}</text>"
                )
    else:
        lines = "".join(f"<li value='{number}'>{escaped(line.text)}</li>" for number, line in enumerate(page.lines))
        head = f"<h2>{escaped(title)}</h2><p class='soft'>without a size</p>"
        return f"<div class='card sheet'>{head}<ol>{lines}</ol></div>"
    extent = page.extent
    for mark in marks:
        if extent is None:  # nobody can say where its boxes are
            break
        box = mark.box.scaled(width / extent[0], height / extent[1])
        inside.append(
            f"<rect data-field='{escaped(mark.name)}' class='{mark.look}' x='{box.left:.1f}' y='{box.top:.1f}' "
            f"width='{max(box.width, 1):.1f}' height='{max(box.height, 1):.1f}'><title>{escaped(mark.title)}</title></rect>"
        )
    drawn = f"<svg viewBox='0 0 {width} {height}' role='img'>{''.join(inside)}</svg>"
    return f"<div class='card sheet'><h2>{escaped(title)}</h2>{drawn}</div>"


def _jpeg(image: Any, most: int = LONGEST) -> str:
    """A picture as it is embedded: no larger than it is drawn."""
    small = image.convert("RGB")
    small.thumbnail((most, most))
    raw = io.BytesIO()
    small.save(raw, "JPEG", quality=80)
    return data_url(raw.getvalue(), "image/jpeg")


def _answers(found: Extraction) -> str:
    rows = "".join(_row(path, one) for path, one in found.leaves())
    return (
        "<div class='card' id='answers'><h2>Answers</h2><table><thead><tr><th>field</th><th>value</th><th>on the page</th>"
        f"<th>page</th><th>confidence</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _row(path: str, one: Found) -> str:
    value = "<span class='soft'>absent</span>" if one.value in (None, []) else escaped(_plain(one.value))
    note = f"<br><span class='soft'>{escaped(one.note)}</span>" if one.note else ""
    places = f" <span class='soft'>({len(one.places)} places)</span>" if one.ambiguous else ""
    text = "" if one.text is None else escaped(one.text)
    sure = f"<i style='width:{100 * one.confidence:.0f}%'></i>"
    bar = f"<span class='sure {level(one.confidence)}'>{sure}</span>{one.confidence:.2f}"
    return (
        f"<tr data-field='{escaped(path)}'><td>{escaped(path)}</td><td>{value}{note}</td><td>{text}</td>"
        f"<td>{'' if one.page is None else one.page}{places}</td><td>{bar}</td></tr>"
    )


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
