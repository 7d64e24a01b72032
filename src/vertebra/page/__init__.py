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
        "windows": "windows_of Window",
        "formats.table": "read_pages write_pages to_text FORMATS",
    },
)
