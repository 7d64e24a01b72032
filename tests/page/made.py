"""Pages made for tests: drawn from a seed, or by hypothesis; real files where they are."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import strategies as st

from vertebra.page import Box, Line, Page, Word
from vertebra.page.page import line_of

SHARED = Path(os.environ.get("VERTEBRA_SHARED_DATA") or Path(__file__).parents[3] / "shared" / "data")
SAMPLES = SHARED / "doc-samples"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"the real documents are not at {SHARED}")

TEXTS = ("Total", "9,50", "שלום", "مرحبا", "中文", "日本", "</s>", "<|im_end|>", "a<b&\"c'", "x;y", "ß", "😀")


def words(draw_from: random.Random, count: int, top: float) -> list[Word]:
    left, made = 0.0, []
    for _ in range(count):
        width = draw_from.randrange(5, 40)
        box = Box(left, top, left + width, top + draw_from.randrange(5, 12))
        made.append(Word(draw_from.choice(TEXTS), box, confidence=draw_from.choice((None, 0.5, 0.96, 1.0))))
        left += width + 4
    return made


def page(seed: int, lines: int = 6, **facts) -> Page:
    """Lines of words down a page of 400 × 300."""
    draw_from = random.Random(seed)
    made = [line_of(words(draw_from, draw_from.randrange(1, 6), 5 + 20 * n)) for n in range(lines)]
    return Page.of(made, size=(400, 300), **facts)


BOXES = st.tuples(*[st.integers(0, 100)] * 4).map(
    lambda four: Box(min(four[0], four[2]), min(four[1], four[3]), max(four[0], four[2]), max(four[1], four[3]))
)
PAGES = st.lists(BOXES, max_size=12).map(
    lambda boxes: Page.of([Line(f"line {n}", box) for n, box in enumerate(boxes)], size=(100, 100))
)
