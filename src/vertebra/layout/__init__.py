"""How pages enter a model: lines of text with their places as spans of the one sequence, and the way back.

    document ──lines_of──► lines in reading order ─page_windows─► lines that fit ──page_row──► PageRow
                           (numbers of the page kept)                             │ sequence   what the model reads
    Model.record["page"] ──PageRecord.of──► record ───────────────────────────────┤ items      raw items of its slots
    a Model or ModelFacts ──Renderer.of───► renderer ─────────────────────────────┘ places     position ⇄ (page, line, word)

    record, renderer = PageRecord.of(model.record), Renderer.of(model)
    for lines in page_windows(document, record, renderer, room=700):     a list of Laid; one window, where all of it fits
        asked = [page_row(lines, [(record.asked_field(name), None)], record, renderer) for name in ("total", "date")]
        asked[0].places.of(17)       PagePlace(page=1, line=4, word=2), or None: no part of the page
        asked[0].places.at(1, 4)     the positions of line 4 of page 1
        rows = [(row.sequence, model.prepare(row.items)) for row in asked]
        page = Prefilled(model, *rows[0], upto=asked[0].head)            of `vertebra.decode`: computed once …
        generate(model, page.begin(rows))                                … for any number of questions, a row each

Training and inference write rows by `page_row` alone, lines first and the question last, so that all rows of one window
begin alike. `images={1: picture}` gives the pictures of pages, where the record has them. Nothing here knows models.
"""

from __future__ import annotations

from vertebra.lazy import offer

__getattr__, __dir__, __all__ = offer(
    __name__,
    {
        "record": "PageRecord",
        "manners": "Manner MANNERS",
        "lines": "Laid lines_of shuffled",
        "places": "PagePlace Places",
        "renderer": "Renderer",
        "rows": "PageRow page_row box_part",
        "apart": "Apart",
        "windows": "page_windows",
    },
)
