"""The `tesseract` program: the page's kind chooses how it is cut up, its own orientation test turns the picture upright."""

from __future__ import annotations

import copy
import io
import re
import shutil
import subprocess
import time
from typing import Any

from vertebra.errors import ConfigError, DataError, UnknownNameError, VertebraError
from vertebra.page.formats import tsv
from vertebra.page.formats.source import PageSource
from vertebra.page.ocr.engines import SECONDS, upright
from vertebra.page.page import Page
from vertebra.page.pictures import turned_image

KINDS = {"page": 4, "block": 6, "form": 11, "line": 7}
"""Kind of page -> tesseract's page segmentation mode. On photographs of receipts 4 and 6 are best, 11 the worst."""
_TURN = re.compile(r"Rotate: (\d+)")
_SURE = re.compile(r"Orientation confidence: ([\d.]+)")
LEAST_SURE = 1.0


class MissingProgramError(VertebraError, ImportError):
    """A program that is not installed."""


class Tesseract:
    """`kind`: page, block, form or line; `languages` as tesseract names them (`eng+deu`)."""

    name = "tesseract"

    def __init__(
        self, kind: str = "page", languages: str = "eng", *, orient: bool = True, seconds: float = SECONDS
    ) -> None:
        if kind not in KINDS:
            raise UnknownNameError("kind of page", kind, KINDS)
        if not re.fullmatch(r"[A-Za-z_+]+", languages):
            raise ConfigError(f"languages are {languages!r:.40}; expected names as in eng+deu")
        self.mode, self.languages, self.orient, self.seconds = KINDS[kind], languages, orient, seconds
        self._until = time.monotonic() + seconds

    def within(self, seconds: float) -> Tesseract:
        """The same engine with at most so much time: the program is ended when it is over."""
        made = copy.copy(self)
        made.seconds = min(self.seconds, seconds)
        return made

    def read(self, image: Any) -> Page:
        """The text of a picture, which is turned upright first."""
        self._until = time.monotonic() + self.seconds
        best, angle = self._page(image), 0
        turn = self._angle(image) if self.orient else 0
        if turn:  # the test is often wrong on photographs: the better reading counts
            turned = self._page(turned_image(image, turn))
            if _score(turned) > _score(best):
                best, angle = turned, turn
        return upright(image, best, angle)

    def _page(self, image: Any) -> Page:
        text = self._run(image, "--psm", str(self.mode), "tsv")
        (page, *_) = tsv.read(PageSource(text, "tesseract's answer", image.size, on_bad="repair")) or [
            Page.of([], size=image.size)
        ]
        return page

    def _angle(self, image: Any) -> int:
        try:
            text = self._run(image, "--psm", "0", language="osd")
        except DataError:  # too few characters to see a direction
            return 0
        turn, sure = _TURN.search(text), _SURE.search(text)
        return int(turn[1]) if turn and sure and float(sure[1]) >= LEAST_SURE else 0

    def _run(self, image: Any, *options: str, language: str | None = None) -> str:
        program = shutil.which("tesseract")
        if program is None:
            raise MissingProgramError(
                "reading pictures with tesseract needs the program, which is not installed. Install it with: apt-get install "
                "tesseract-ocr, or brew install tesseract; or use rapidocr: pip install 'vertebra[ocr]'"
            )
        raw = io.BytesIO()
        image.save(raw, "PNG", compress_level=1)
        command = [program, "stdin", "stdout", "-l", language or self.languages, "--dpi", "300", *options]
        left = max(self._until - time.monotonic(), 1e-3)
        try:
            done = subprocess.run(command, input=raw.getvalue(), capture_output=True, timeout=left, check=False)
        except subprocess.TimeoutExpired:
            raise DataError(
                f"tesseract has not read a picture of {image.width} × {image.height} within {self.seconds:g} s; make it "
                "smaller, or allow more time"
            ) from None
        if done.returncode:
            why = " ".join(done.stderr.decode(errors="replace").split())[-200:]
            raise DataError(f"tesseract failed with exit code {done.returncode}: {why or 'no reason given'}")
        return done.stdout.decode(errors="replace")


def _score(page: Page) -> float:
    """Characters, each as sure as its word."""
    return sum(len(word.text) * (word.confidence or 0) ** 2 for word in page.words)
