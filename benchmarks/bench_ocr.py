"""Both OCR engines on pages whose words are known: the F1 of words, without case, and seconds of CPU a page.

    python benchmarks/bench_ocr.py [--receipts FILE.jsonl --images DIR] [--pdf FILE …] [--text PICTURE=FILE …] [--drawn N]

Receipts are held against their lines, PDF files against their own text layers, pictures against a text, drawn receipts
(worn and slanted) against what was drawn. Processes of engines count.
"""

from __future__ import annotations

import argparse
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vertebra.errors import VertebraError
from vertebra.page import engine, read_document, read_pages, read_picture, word_f1
from vertebra.page.paper.made import drawn_page
from vertebra.page.pdf.opening import opened_pdf, pages_of, rendered
from vertebra.page.pictures import opened

ENGINES: dict[str, dict[str, Any]] = {
    "rapidocr": {},
    "tesseract page": {"kind": "page"},
    "tesseract block": {"kind": "block"},
    "tesseract form": {"kind": "form"},
}


def pages(given: argparse.Namespace) -> Iterator[tuple[str, Any, str]]:
    """(name, picture, its words)"""
    for page in read_pages(given.receipts) if given.receipts else ():
        picture = given.images / f"{page.name}.jpg"
        if picture.is_file():
            yield f"receipt {page.name}", opened(picture), page.text
    for file in given.pdf:
        page = read_document(file, [1], when="never").pages[0]
        with opened_pdf(file) as document:
            for _, one in pages_of(document, file, [1]):
                yield file.name, rendered(one, 200, 20_000_000), page.text
    for pair in given.text:
        picture, _, text = pair.partition("=")
        yield Path(picture).name, opened(picture), Path(text).read_text(encoding="utf-8")
    for number in range(given.drawn):
        page = drawn_page("receipt", number, 16, picture=True)
        yield f"drawn {number}", page.image, page.text


def spent() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--receipts", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--pdf", type=Path, nargs="*", default=[])
    parser.add_argument("--text", nargs="*", default=[])
    parser.add_argument("--drawn", type=int, help="so many receipts (3 where nothing else is named)")
    given = parser.parse_args()
    if given.drawn is None:
        given.drawn = 0 if given.receipts or given.pdf or given.text else 3
    print("  " + " ".join(f"{name:>16}" for name in ("page", *ENGINES)))
    for name, picture, text in pages(given):
        found = []
        for which, how in ENGINES.items():
            try:
                read = read_picture(picture, engine(which.split()[0], **how))
                found.append(f"{word_f1(text, read.text):16.3f}")
            except VertebraError as error:
                found.append(f"{str(error)[:16]:>16}")
        print(f"  {name[:16]:>16} " + " ".join(found), flush=True)
    print(f"  {spent():.0f} s of CPU in all, without engines that have not ended")


if __name__ == "__main__":
    main()
