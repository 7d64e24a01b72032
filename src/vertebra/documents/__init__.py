"""Documents: from pages and a schema to values that can be pointed at (`vertebra.extract`), with places and confidences.

It takes models and pages and does without names of models; how they are trained is not its business.
"""

from __future__ import annotations

from vertebra.lazy import offer

__getattr__, __dir__, __all__ = offer(
    __name__,
    {
        "schema": "Field fields_of",
        "found": "Found Extraction",
        "settings": "ExtractSettings",
        "calibration": "Calibration ece",
        "extract": "ask",
        "drawing": "extraction_page draw_extraction",
    },
)
