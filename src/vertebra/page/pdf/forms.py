"""What was filled into a form: texts, choices and ticks, which stand in fields and in no text layer.

Name of the applicant  [Jane Doe]      the line `Jane Doe` in the place of its field, behind what stands left of it
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from vertebra.page.geometry import Box
from vertebra.page.page import Line, Page
from vertebra.page.pdf.characters import placed

TICK = "☒"
"""The text of a box that is ticked."""
_MOST = 1 << 16
"""Bytes of a value that are read."""


def with_fields(pdf_page: Any, page: Page) -> Page:
    """The page with a line for every row of every field that something was filled into."""
    found = list(_filled(pdf_page))
    if not found or page.size is None:
        return page
    lines = list(page.lines)
    for line in found:
        lines.insert(_behind(lines, line), line)
    note = (
        "1 line was filled into a field of a form: it is read with the text layer"
        if len(found) == 1
        else f"{len(found)} lines were filled into fields of a form: they are read with the text layer"
    )
    made = Page.of(lines, size=page.size, unit="point", on_bad="repair", number=page.number, name=page.name)
    return replace(page, lines=made.lines, notes=(*page.notes, note))


def _behind(lines: list[Line], line: Line) -> int:
    """Where a line stands among others: behind the last that lies above it, or left of it in its row."""
    box = line.box
    assert box is not None
    place = 0
    for number, other in enumerate(lines, 1):
        if other.box is None:
            continue
        middle = (other.box.top + other.box.bottom) / 2
        in_row = box.top <= middle <= box.bottom
        if (in_row and other.box.left <= box.left) or (not in_row and middle < box.top):
            place = number
    return place


def _filled(pdf_page: Any) -> Iterator[Line]:
    import pypdfium2.raw as raw

    form = pdf_page.formenv
    if form is None:
        return
    for number in range(raw.FPDFPage_GetAnnotCount(pdf_page.raw)):
        with _annotation(pdf_page, number) as one:
            if one is None or raw.FPDFAnnot_GetSubtype(one) != raw.FPDF_ANNOT_WIDGET:
                continue
            if raw.FPDFAnnot_GetFlags(one) & (raw.FPDF_ANNOT_FLAG_HIDDEN | raw.FPDF_ANNOT_FLAG_NOVIEW):
                continue
            box = _box(pdf_page, one)
            rows = [row.strip() for row in _value(form, one).replace("\r", "\n").split("\n")]
            rows = [row for row in rows if row]
            for at, row in enumerate(rows):  # a field of several rows is as high as all of them
                high = (box.bottom - box.top) / len(rows)
                yield Line(row, Box(box.left, box.top + at * high, box.right, box.top + (at + 1) * high))


@contextmanager
def _annotation(pdf_page: Any, number: int) -> Iterator[Any]:
    import pypdfium2.raw as raw

    found = raw.FPDFPage_GetAnnot(pdf_page.raw, number)
    try:
        yield found or None
    finally:
        if found:
            raw.FPDFPage_CloseAnnot(found)


def _value(form: Any, one: Any) -> str:
    """What a field shows; nothing, where it shows nothing of its own."""
    import pypdfium2.raw as raw

    kind = raw.FPDFAnnot_GetFormFieldType(form.raw, one)
    if kind in (raw.FPDF_FORMFIELD_CHECKBOX, raw.FPDF_FORMFIELD_RADIOBUTTON):
        return TICK if raw.FPDFAnnot_IsChecked(form.raw, one) else ""
    if kind not in (raw.FPDF_FORMFIELD_TEXTFIELD, raw.FPDF_FORMFIELD_COMBOBOX, raw.FPDF_FORMFIELD_LISTBOX):
        return ""
    size = min(raw.FPDFAnnot_GetFormFieldValue(form.raw, one, None, 0), _MOST)
    letters = (raw.FPDF_WCHAR * (size // 2 + 1))()
    raw.FPDFAnnot_GetFormFieldValue(form.raw, one, letters, size)
    return bytes(letters).decode("utf-16-le", "replace").split("\0")[0]


def _box(pdf_page: Any, one: Any) -> Box:
    import pypdfium2.raw as raw

    edges = raw.FS_RECTF()
    raw.FPDFAnnot_GetRect(one, ctypes.byref(edges))
    left, right = sorted((edges.left, edges.right))
    bottom, top = sorted((edges.bottom, edges.top))
    sides = (np.array([side], float) for side in (left, bottom, right, top))
    return Box(*(float(side) for side in placed(pdf_page, pdf_page.get_rotation(), *sides)[:, 0]))
