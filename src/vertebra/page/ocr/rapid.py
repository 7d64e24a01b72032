"""RapidOCR: PP-OCR's models inside its wheel, by onnxruntime. Sideways pages are seen by tall boxes and low scores, and the
reading with the best scores counts."""

from __future__ import annotations

import importlib.util
import logging
from functools import cached_property
from typing import Any

from vertebra.errors import MissingPartError
from vertebra.page.ocr.apart import Apart
from vertebra.page.ocr.engines import upright
from vertebra.page.page import Line, Page, Word, quad_line
from vertebra.page.pictures import turned_image

UNSURE = 0.8
"""Mean score below which the page may stand on its head."""


class Rapid:
    """`words`: places of words inside the lines; `orient`: look for the way up."""

    name = "rapidocr"

    def __init__(self, *, words: bool = True, orient: bool = True) -> None:
        if importlib.util.find_spec("rapidocr") is None:
            raise MissingPartError("reading pictures (OCR)", "rapidocr", "ocr")
        self.words, self.orient = words, orient

    @property
    def apart(self) -> Apart:
        """How a process of its own makes it."""
        return __name__, type(self).__name__, {"words": self.words, "orient": self.orient}

    @cached_property
    def model(self) -> Any:
        """Its models, where it reads itself."""
        from rapidocr import RapidOCR

        logging.getLogger("RapidOCR").setLevel(logging.ERROR)
        return RapidOCR(params={"Global.log_level": "error"})

    def read(self, image: Any) -> Page:
        """The text of a picture, the right way up."""
        best, angle = self._read(image), 0
        for candidate in _candidates(best) if self.orient else ():
            found = self._read(turned_image(image, candidate))
            if _score(found) > _score(best):
                best, angle = found, candidate
        return upright(image, best, angle)

    def _read(self, image: Any) -> Page:
        import numpy as np

        pixels = np.asarray(image.convert("RGB"))[:, :, ::-1]
        found = self.model(pixels, use_cls=False, return_word_box=self.words)
        lines: list[Line] = []
        if found.txts is not None:
            words = found.word_results if self.words and found.word_results else [()] * len(found.txts)
            for box, text, score, own in zip(found.boxes, found.txts, found.scores, words, strict=False):
                lines.append(_line(box, text, score, own))
        return Page.of(lines, size=image.size, on_bad="repair", where="rapidocr's answer")


def _line(box: Any, text: str, score: float, words: Any) -> Line:
    points = [(float(x), float(y)) for x, y in box]
    made = tuple(_word(*word) for word in words or () if word[0] and str(word[0]).strip() and word[2] is not None)
    return quad_line(text, points, confidence=min(float(score), 1.0), words=made)


def _word(text: str, score: float, box: Any) -> Word:
    line = quad_line(text, [(float(x), float(y)) for x, y in box])
    return Word(text, line.box, quad=line.quad, confidence=min(float(score), 1.0))


def _candidates(page: Page) -> tuple[int, ...]:
    """Turns that are worth a try."""
    long = [line for line in page.lines if line.box is not None and len(line.text) > 2]
    if not long:
        return (90, 270, 180) if page.lines else ()
    tall = sum(line.box.height > 1.5 * line.box.width for line in long if line.box)
    if tall > 0.5 * len(long):
        return (90, 270)
    mean = sum(line.confidence or 0 for line in long) / len(long)
    return (180,) if mean < UNSURE else ()


def _score(page: Page) -> float:
    """Characters, each as sure as its line, in lines that lie."""
    return sum(len(line.text) * (line.confidence or 0) ** 2 for line in page.lines if line.box)
