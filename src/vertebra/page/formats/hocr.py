"""hOCR: HTML whose `title` attributes hold boxes in pixels and confidences 0..100. Read as HTML, which expands nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from typing import Any

from vertebra.errors import shortened
from vertebra.page.formats.source import PageSource, box_of, pixels, required_box, share, shown, words_of
from vertebra.page.page import Line, Page, Word, line_of

LINES = ("ocr_line", "ocr_header", "ocr_caption", "ocr_textfloat", "ocrx_line")
_PROPERTY = re.compile(r"""\s*([\w-]+)\s*((?:"[^"]*"|'[^']*'|[^;"'])*)""")
_VOID = {"meta", "link", "br", "img", "hr", "input"}


def fits(text: str) -> bool:
    return "ocr_page" in text and "<" in text


def read(source: PageSource) -> list[Page]:
    parser = _Pages()
    parser.feed(source.content)
    parser.close()
    parser.end_line()
    pages = []
    for number, found in enumerate(parser.pages, 1):
        facts = found.facts
        size = box_of(facts["bbox"].split()[:4]) if "bbox" in facts else None
        image = _unquoted(facts.get("image", "")) or None
        dpi = float(facts["scan_res"].split()[0]) if facts.get("scan_res", "").strip() else 0.0
        pages.append(
            source.page(
                found.lines, size=size and (size.right, size.bottom), number=number, name=image,
                dpi=dpi if dpi > 0 else None, notes=found.notes,  # 0: not known
            )
        )  # fmt: skip
    return pages


def properties(title: str) -> dict[str, str]:
    """`bbox 1 2 3 4; x_wconf 92` as a table."""
    return {found[1]: found[2].strip() for found in map(_PROPERTY.match, _split(title)) if found}


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text.strip("\"'")


def _split(title: str) -> list[str]:
    return re.findall(r"""(?:"[^"]*"|'[^']*'|[^;"'])+""", title)


class _Found:
    def __init__(self, facts: dict[str, str]) -> None:
        self.facts = facts
        self.lines: list[Line] = []
        self.outside: list[str] = []  # texts that stand in no line

    @property
    def notes(self) -> list[str]:
        if not self.outside:
            return []
        return [f"{len(self.outside)} texts outside of lines were left out: {shortened(self.outside[0], 40)!r} …"]


class _Pages(HTMLParser):
    """Pages, lines and words, as their elements open and close."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pages: list[_Found] = []
        self.open: list[str] = []  # kinds of the open elements
        self.line: dict[str, str] | None = None
        self.label: str | None = None
        self.words: list[Word] = []
        self.word: dict[str, str] | None = None
        self.text = ""  # of the open word
        self.loose = ""  # of the line, outside of words, since the last of them

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        named = dict(attributes)
        kinds = (named.get("class") or "").split()
        facts = properties(named.get("title") or "")
        kind = ""
        if "ocr_page" in kinds:
            self.pages.append(_Found(facts))
        elif found := [name for name in kinds if name in LINES]:
            self.end_line()
            kind, self.line, self.label = "line", facts, None if found[0] == "ocr_line" else found[0]
        elif "ocrx_word" in kinds:
            kind, self.word, self.text = "word", facts, self.end_loose(glued=True)
        if tag not in _VOID:
            self.open.append(kind)

    def handle_startendtag(self, tag: str, attributes: Any) -> None:
        if tag not in _VOID:
            self.handle_starttag(tag, attributes)
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in _VOID or not self.open:
            return
        kind = self.open.pop()
        if kind == "word":
            self.end_word()
        elif kind == "line":
            self.end_line()

    def handle_data(self, data: str) -> None:
        if self.word is not None:
            self.text += data
        elif self.line is not None:
            self.loose += data
        elif data.strip() and self.pages:
            self.pages[-1].outside.append(" ".join(data.split()))

    def end_loose(self, *, glued: bool = False) -> str:
        """Text of the line between its words: words without a place. What touches a word (a comma, a bracket)
        belongs to it; `glued`: a word begins, and is given what it is touched by."""
        loose, self.loose = self.loose, ""
        texts = loose.split()
        if texts and self.words and not loose[0].isspace():
            last = self.words[-1]
            self.words[-1] = replace(last, text=last.text + texts.pop(0))
        start = texts.pop() if glued and texts and not loose[-1].isspace() else ""
        self.words += [Word(text) for text in texts]
        return start

    def end_word(self) -> None:
        facts, self.word = self.word or {}, None
        text = " ".join(self.text.split())
        if not text:
            return
        box = box_of(facts["bbox"].split()[:4]) if "bbox" in facts else None
        self.words.append(Word(text, box, confidence=share(facts.get("x_wconf"), 100)))
        if self.line is None:  # a word outside of lines is one
            self._add(line_of(self.words))
            self.words = []

    def end_line(self) -> None:
        if self.line is None:
            return
        box = box_of(self.line["bbox"].split()[:4]) if "bbox" in self.line else None
        loose = " ".join(self.loose.split())
        if self.words:
            self.end_loose()
            self._add(line_of(self.words, box, label=self.label))
        elif loose:
            self._add(Line(loose, box, label=self.label))
        self.line, self.words, self.loose = None, [], ""

    def _add(self, line: Line) -> None:
        if not self.pages:
            raise ValueError("a line stands before the first `ocr_page`")
        self.pages[-1].lines.append(line)


def write(pages: Sequence[Page]) -> str:
    out = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<html xmlns="http://www.w3.org/1999/xhtml"><head><title></title>',
        '<meta http-equiv="Content-Type" content="text/html; charset=utf-8"/>',
        '<meta name="ocr-system" content="vertebra"/>',
        '<meta name="ocr-capabilities" content="ocr_page ocr_line ocrx_word"/></head><body>',
    ]
    for place, page in enumerate(map(pixels, pages)):
        width, height = page.size or (0, 0)
        quote = "'" if '"' in (page.name or "") else '"'  # of a name that has both kinds, one is lost
        title = f"image {quote}{page.name or ''}{quote}; bbox 0 0 {shown(width)} {shown(height)}; ppageno {place}"
        if page.dpi:
            title += f"; scan_res {shown(page.dpi)} {shown(page.dpi)}"
        out.append(f'<div class="ocr_page" id="page_{page.number}" title="{escape(title)}">')
        out += [_line(line) for line in page.lines if line.text.strip()]
        out.append("</div>")
    return "\n".join([*out, "</body></html>\n"])


def _line(line: Line) -> str:
    kind = line.label if line.label in LINES else "ocr_line"
    words = []
    for word in words_of(line, "hOCR"):
        sure = "" if word.confidence is None else f"; x_wconf {shown(round(word.confidence * 100, 7))}"
        words.append(f'<span class="ocrx_word" title="{_box(word)}{sure}">{escape(word.text)}</span>')
    return f'<span class="{kind}" title="{_box(line)}">{" ".join(words)}</span>'


def _box(one: Any) -> str:
    return "bbox " + " ".join(shown(number) for number in required_box(one, "hOCR"))
