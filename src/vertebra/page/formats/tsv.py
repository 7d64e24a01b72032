"""tesseract's TSV: pixels, left top width height, confidence 0..100; level 1 is a page, 4 a line, 5 a word."""

from __future__ import annotations

from collections.abc import Sequence

from vertebra.page.formats.source import PageSource, pixels, required_box, share, shown, whole, words_of
from vertebra.page.geometry import Box
from vertebra.page.page import Line, Page, Word, line_of

HEADER = "level page_num block_num par_num line_num word_num left top width height conf text"
PAGE, BLOCK, PARAGRAPH, LINE, WORD = 1, 2, 3, 4, 5


def fits(text: str) -> bool:
    return text.lstrip("\ufeff").startswith("level\tpage_num\tblock_num")


def read(source: PageSource) -> list[Page]:
    sizes: dict[int, tuple[float, float]] = {}
    boxes: dict[tuple[int, ...], Box] = {}
    words: dict[tuple[int, ...], list[Word]] = {}
    for row in source.content.lstrip("\ufeff").split("\n")[1:]:
        cells = row.rstrip("\r").split("\t", 11)
        if len(cells) < 11:
            if row.strip():
                raise ValueError(f"a row of {len(cells)} cells: {row[:60]!r}")
            continue
        level, at = int(cells[0]), tuple(int(cell) for cell in cells[1:5])
        left, top, width, height = (whole(float(cell)) for cell in cells[6:10])
        box = Box(left, top, left + width, top + height)
        if level == PAGE:
            sizes[at[0]] = (width, height)
        elif level == LINE:
            boxes[at] = box
            words.setdefault(at, [])
        elif level == WORD and len(cells) == 12 and cells[11].strip():
            words.setdefault(at, []).append(Word(cells[11].strip(), box, confidence=share(cells[10], 100)))
    numbers = sorted({*sizes, *(at[0] for at in words)})
    return [
        source.page(
            [line_of(found, boxes.get(at)) for at, found in words.items() if at[0] == number and found],
            size=sizes.get(number),
            number=number,
        )
        for number in numbers
    ]


def write(pages: Sequence[Page]) -> str:
    rows = [HEADER.replace(" ", "\t")]
    for page in map(pixels, pages):
        width, height = page.size or (0, 0)
        rows.append(_row(PAGE, (page.number, 0, 0, 0, 0), Box(0, 0, width, height)))
        rows.append(_row(BLOCK, (page.number, 1, 0, 0, 0), Box(0, 0, width, height)))
        rows.append(_row(PARAGRAPH, (page.number, 1, 1, 0, 0), Box(0, 0, width, height)))
        for number, line in enumerate((line for line in page.lines if line.text.strip()), 1):
            rows += _line(page.number, number, line)
    return "\n".join(rows) + "\n"


def _line(page: int, number: int, line: Line) -> list[str]:
    at = (page, 1, 1, number)
    rows = [_row(LINE, (*at, 0), required_box(line, "TSV"))]
    for place, word in enumerate(words_of(line, "TSV"), 1):
        sure = "-1" if word.confidence is None else shown(round(word.confidence * 100, 7))
        rows.append(_row(WORD, (*at, place), required_box(word, "TSV"), sure, " ".join(word.text.split())))
    return rows


def _row(level: int, at: tuple[int, ...], box: Box, sure: str = "-1", text: str = "") -> str:
    left, top, right, bottom = box
    return "\t".join([*map(str, (level, *at)), *map(shown, (left, top, right - left, bottom - top)), sure, text])
