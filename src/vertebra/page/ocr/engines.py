"""The engines, a row each; one of them is chosen by name, or the best that is installed. Any object with `name` and
`read(image) -> Page` is an engine too."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import threading
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from vertebra.errors import DataError, MissingPartError, UnknownNameError
from vertebra.page.ocr.apart import Apart, read_apart, too_long
from vertebra.page.page import Page
from vertebra.page.pictures import opened, turned_image
from vertebra.reading import reading

SECONDS = 300.0
"""Time that an engine has for a page."""


@runtime_checkable
class OcrEngine(Protocol):
    """What reads pictures: boxes in pixels of the picture that it is given."""

    name: str

    def read(self, image: Any) -> Page:
        """The text of a picture (a PIL image), with places."""
        ...


ENGINES = {"rapidocr": ("rapid", "Rapid"), "tesseract": ("tesseract", "Tesseract")}
"""From the best on: name -> module and class."""


def installed() -> list[str]:
    """The engines that can be used here."""
    there = {
        "rapidocr": importlib.util.find_spec("rapidocr") is not None,
        "tesseract": shutil.which("tesseract") is not None,
    }
    return [name for name in ENGINES if there[name]]


def engine(name: str = "auto", **settings: Any) -> OcrEngine:
    """An engine by its name; `auto`: the first that is installed."""
    if name == "auto":
        found = installed()
        if not found:
            raise MissingPartError("reading pictures (OCR)", "rapidocr", "ocr")
        name = found[0]
    if name not in ENGINES:
        raise UnknownNameError("OCR engine", name, [*ENGINES, "auto"])
    module, kind = ENGINES[name]
    made: OcrEngine = getattr(importlib.import_module(f"vertebra.page.ocr.{module}"), kind)(**settings)
    return made


def read_picture(image: Any, by: OcrEngine, *, seconds: float = SECONDS) -> Page:
    """A picture (or a file of one) read by an engine, within a time; whatever it throws is an error of ours.

    An engine that says how a process makes it (`apart`: module, class, settings) reads in one, which is ended when the
    time is over; one that keeps its own time has `within(seconds)`.
    """
    picture = opened(image)
    apart: Apart | None = getattr(by, "apart", None)
    if apart is not None:
        return read_apart(by.name, apart, picture, seconds)
    if hasattr(by, "within"):
        by = by.within(seconds)
        with reading(f"{by.name} failed", "try another engine (--ocr), or another picture", error=DataError):
            return by.read(picture)
    found: list[Page] = []
    thrown: list[BaseException] = []

    def work() -> None:
        try:
            found.append(by.read(picture))
        except BaseException as error:
            thrown.append(error)

    worker = threading.Thread(target=work, name=f"ocr-{by.name}", daemon=True)  # nobody waits for it at exit
    worker.start()
    worker.join(seconds)
    if worker.is_alive():
        raise too_long(by.name, picture, seconds)
    with reading(f"{by.name} failed", "try another engine (--ocr), or another picture", error=DataError):
        if thrown:
            raise thrown[0]
    return found[0]


def upright(picture: Any, page: Page, angle: int) -> Page:
    """A page that was read from a turned picture, with that picture and a note."""
    if angle == 0:
        return replace(page, image=picture)
    note = f"the picture was turned by {angle} degrees clockwise, so that its text stands upright"
    return replace(
        page, image=turned_image(picture, angle), facts={**page.facts, "turned": angle}, notes=(*page.notes, note)
    )
