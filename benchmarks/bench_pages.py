"""Text layers of PDF files beside pdfplumber's `extract_words`: seconds a file, and how far boxes of equal words lie apart.

    python benchmarks/bench_pages.py FILE.pdf … [--rounds N]

One thread, process CPU time, both sides in turn; needs pdfplumber (`pip install pdfplumber`). Words are matched by their
text; the goals are half a point and 8 ×. The last line streams one file's pages again and again, to 500, and gives the memory.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from timing import in_turn
from vertebra.page import read_document, stream_pages


def theirs(path: Path) -> list[list[dict[str, Any]]]:
    import pdfplumber

    with pdfplumber.open(path) as document:
        return [page.extract_words() for page in document.pages]


def compared(path: Path) -> tuple[int, int, float]:
    """(their words, those of ours that are equal to half a point, the largest difference of a matched word)."""
    count = equal = 0
    worst = 0.0
    for page, words in zip(read_document(path, when="never"), theirs(path), strict=True):
        ours = defaultdict(list)
        for word in page.words:
            ours[word.text].append(word.box)
        for word in words:
            count += 1
            place = (word["x0"], word["top"], word["x1"], word["bottom"])
            apart = [max(abs(a - b) for a, b in zip(box, place, strict=True)) for box in ours[word["text"]] if box]
            if apart and min(apart) <= 0.5:
                equal += 1
                worst = max(worst, min(apart))
    return count, equal, worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    try:
        import pdfplumber  # noqa: F401
    except ImportError:
        print("  pdfplumber is not installed; nothing to compare with")
        return
    for path in arguments.files:
        works = {
            "ours": lambda path=path: read_document(path, when="never"),
            "pdfplumber": lambda path=path: theirs(path),
        }
        taken = in_turn(works, rounds=arguments.rounds, clock=time.process_time)
        count, equal, worst = compared(path)
        ratio = taken["pdfplumber"] / taken["ours"]
        print(
            f"  {path.name[:36]:<36} {taken['ours'] * 1e3:8.1f} ms  {ratio:5.1f} × (goal 8)   {equal} of {count} words equal, "
            f"{worst:.2f} pt at most",
            flush=True,
        )
    if arguments.files:
        pages = itertools.chain.from_iterable(stream_pages(arguments.files[0], when="never") for _ in itertools.count())
        for number, _ in enumerate(pages, 1):
            if number in (10, 500):
                print(
                    f"  after {number} pages: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB",
                    flush=True,
                )
            if number == 500:
                break


if __name__ == "__main__":
    main()
