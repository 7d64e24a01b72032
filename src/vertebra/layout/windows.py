"""A long document as windows that each fit a row, whole lines with their boxes.

What a line costs is what it takes by itself: its tokens, its slot, its newline. What a row takes beside its lines
(the format, question and answer) is kept free by whoever asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from vertebra.layout.lines import Laid, lines_of
from vertebra.layout.manners import BOXES, IMAGE
from vertebra.layout.record import PageRecord
from vertebra.layout.renderer import Renderer
from vertebra.page.page import Document, Page, distinct
from vertebra.page.windows import Priced, cut


def page_windows(
    pages: Document | Page | Iterable[Page],
    record: PageRecord,
    renderer: Renderer,
    *,
    room: int,
    images: bool | None = None,
    overlap: int = 0,
    whole_pages: bool = False,
) -> Iterator[list[Laid]]:
    """The lines of a document in windows of at most `room` positions, in order; one window, where all of them fit.

    `room`: positions for lines, marks and pictures; question and answer come beside it. `images`: whether pages have
    pictures (None: what the record has). `overlap`: lines that a window repeats of the one before, as far as they fit.
    `whole_pages`: a page begins a new window rather than be cut, where it fits one.
    """
    eyes = renderer.sizes.get(IMAGE, 0) if (record.image if images is None else images) else 0
    mark = renderer.count([record.mark.replace("{number}", "999") + "\n"])[0]
    pages = distinct([pages] if isinstance(pages, Page) else pages)
    priced = (_priced(lines_of(page, record), record, renderer) for page in pages)
    for held in cut(priced, room, overlap=overlap, page_cost=mark + eyes, whole_pages=whole_pages):
        yield [one.line for one in held]


def _priced(lines: Sequence[Laid], record: PageRecord, renderer: Renderer) -> list[Priced[Laid]]:
    """Each line with the positions that it takes."""
    # a slot parts a token that would join a text with its newline
    slot = 0 if record.how.slot == "none" else renderer.sizes.get(BOXES, 1) + 1
    counts = renderer.count([f"{line.text}\n" for line in lines])
    return [
        Priced(line, count + slot, line.page, line.number, line.text) for line, count in zip(lines, counts, strict=True)
    ]
