"""Pages: lines of text with their places, from scans, PDF files and the formats of others, in one type.

    from vertebra.page import read_document     whatever the file is: a PDF, a picture, hOCR, ALTO, FUNSD …

Unit and origin of coordinates are explicit and converted once. It does without tokens, models and torch.
"""

from __future__ import annotations

from vertebra.lazy import offer

__getattr__, __dir__, __all__ = offer(
    __name__,
    {
        "page": "Page Line Word Document",
        "geometry": "Box",
        "ocr.engines": "OcrEngine engine read_picture",
        "windows": "windows_of Window",
        "reading": "read_document stream_pages",
        "metrics.answers": "anls exact substring relaxed",
        "metrics.structures": "anls_star donut_f1 donut_accuracy",
        "metrics.tags": "entity_f1",
        "metrics.tables": "cell_f1 teds table_cells",
        "metrics.evidence": "box_hits line_f1 lines_with word_f1",
        "formats.registry": "read_pages write_pages to_text FORMATS",
    },
)
