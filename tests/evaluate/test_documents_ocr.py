"""The arms `ocr` and `no-pixels` as they really run: an engine that reads pictures, and a model that looks at them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.layout.made import SIDE, model
from vertebra.documents.settings import ExtractSettings
from vertebra.evaluate import evaluate_documents
from vertebra.evaluate.documents import arms
from vertebra.page.metrics.evidence import word_f1
from vertebra.page.ocr.engines import read_picture
from vertebra.page.paper.made import drawn_page


def test_a_drawn_receipt_by_its_picture(monkeypatch):
    pytest.importorskip("rapidocr", reason="rapidocr is not installed (vertebra[ocr])")
    page = drawn_page("receipt", 0, 3, picture=True)
    read = []

    def noted(image, by, **how):
        read.append(read_picture(image, by, **how))
        return read[-1]

    monkeypatch.setattr(arms, "read_picture", noted)
    one = model("tiny-llama2", "doclaylm", patches=True)
    seen = one.parts["image"].encoder
    looked = []
    handle = seen.register_forward_hook(lambda module, given, made: looked.append(given[0].shape))
    settings = ExtractSettings(max_new_tokens=4)
    try:
        field = next(iter(page.facts["fields"]))
        results = evaluate_documents(one, [page], arms="ocr=rapidocr,no-pixels", fields=[field], settings=settings)
        with_pixels = len(looked)
        evaluate_documents(one, [replace(page, image=None)], fields=[field], settings=settings)
    finally:
        handle.remove()
    assert results.arms == ["model", "ocr-rapidocr", "no-pixels"]
    assert with_pixels == len(looked) == 2  # the arm `no-pixels` has no picture, and neither has a page without one
    assert looked[0][-2:] == (SIDE, SIDE)
    assert len(read) == 1
    assert word_f1(page.text, read[0].text) > 0.7
    assert all(one.stands for one in results.records)
    assert len(results.records) == 3
