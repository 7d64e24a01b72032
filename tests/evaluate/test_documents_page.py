"""The page of an evaluation on documents: every rate and pair as the results have it, pages drawn, texts that stay texts."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from PIL import Image

from tests.evaluate.test_documents import page
from vertebra.documents.calibration import ece, reliability
from vertebra.errors import CheckpointError
from vertebra.evaluate import AnswerRecord, DocumentResults, documents_page, write_documents_page

EVIL = "</script><b>&'\"$x"


def answer(number: int, field: str, given: str | None, right: bool, *, arm: str = "model", sure: float = 0.9):
    golds = {"total": ("9.50",), "company": (EVIL,)}[field]
    lines = {"total": (4, 5), "company": (0,)}[field] if right else (3,)
    return AnswerRecord(
        arm=arm, page=number, seed=0, field=field, kind="amount" if field == "total" else "text", golds=golds,
        answer=given, confidence=sure, exact=right, same=right, anls=float(right), line_f1=1.0 if right else 0.0,
        box_hits=None, stands=True, lines=lines if given is not None else (),
    )  # fmt: skip


def an_evaluation():
    """Four pages, the second without any wrong answer, the third without a size, and an arm that is always wrong."""
    pages = [page(number) for number in (1, 2, 3, 4)]
    pages[0] = replace(pages[0], name=EVIL)
    pages[1] = replace(pages[1], image=Image.new("RGB", (300, 180), "#eeeeff"))
    pages[2] = replace(pages[2], size=None, unit="pixel", lines=tuple(replace(one, box=None) for one in pages[2].lines))
    records = [
        answer(0, "total", "CASH", False, sure=0.6), answer(0, "company", EVIL, True),
        answer(1, "total", "9.50", True), answer(1, "company", EVIL, True, sure=0.95),
        answer(2, "total", None, False, sure=0.2), answer(2, "company", "ACE", False, sure=0.65),
        answer(3, "total", "9.50", True, sure=1.0),
    ]  # fmt: skip
    worse = [replace(one, arm="no-boxes", exact=False, same=False, anls=0.0, answer="x") for one in records]
    return DocumentResults(model=f"m{EVIL}", records=(*records, *worse)), pages


def test_the_page_says_what_the_results_say():
    results, pages = an_evaluation()
    made = documents_page(results, pages, drawn=3)
    assert EVIL not in made
    data = made.split('<script type="application/json" id="results">')[1].split("</script>")[0]
    assert json.loads(data) == json.loads(json.dumps(results.to_json()))
    (pair,) = results.paired
    assert f"{100 * pair.difference:+.1f} <span class='soft'>[{100 * pair.low:+.1f} to {100 * pair.high:+.1f}]" in made
    rates = made.split("id='rates'")[1].split("</table>")[0]
    assert re.findall(r"<td>([^<]*)</td>", rates) == ["all answers", "total", "company", "(amount)", "(text)"]
    shares = ["57.1", "0.0", "50.0", "0.0", "66.7", "0.0", "50.0", "0.0", "66.7", "0.0"]
    assert re.findall(r"</span>([\d.]+)%", rates) == shares


def test_bins_of_confidences_are_drawn_as_they_are():
    results, pages = an_evaluation()
    own = results.of("model")
    raw, right = [one.confidence for one in own], [one.same for one in own]
    bins = reliability(raw, right)
    assert [(round(one.low, 1), one.answers, one.right) for one in bins] == [
        (0.2, 1, 0.0), (0.6, 2, 0.0), (0.9, 4, 1.0)
    ]  # fmt: skip
    assert ece(raw, right) == pytest.approx(sum(one.answers / 7 * abs(one.confidence - one.right) for one in bins))
    drawn = documents_page(results, pages).split("id='calibration'")[1].split("</svg>")[0]
    heights = [float(height) for height in re.findall(r"class='bin'[^>]* height='([\d.]+)'", drawn)]
    assert heights == [1, 1, 240]
    assert f"calibration error {results.ece:.3f}" in drawn


def test_pages_with_right_and_with_wrong_answers_are_drawn():
    results, pages = an_evaluation()
    made = documents_page(results, pages, drawn=2)
    sheets = made.split("class='card sheet'")[1:]
    assert len(sheets) == 2  # the first wrong one and the first right one
    assert re.findall(r"<rect data-field='0:total' class='(\w+)'", sheets[0]) == ["bad", "gold", "gold"]
    assert re.findall(r"<rect data-field='1:\w+' class='(\w+)'", sheets[1]) == ["good", "good", "good"]
    assert "data:image/jpeg" in sheets[1]
    every = documents_page(results, pages, drawn=9).split("class='card sheet'")[1:]
    assert len(every) == 4
    assert "without a size" in every[2]
    assert "absent" in every[2]
    assert documents_page(results, pages, drawn=0).count("class='card sheet'") == 0


def test_a_file_that_cannot_be_written(tmp_path):
    results, pages = an_evaluation()
    assert write_documents_page(results, pages, tmp_path / "x.html").stat().st_size > 5000
    with pytest.raises(CheckpointError, match="name a file in a folder that exists"):
        write_documents_page(results, pages, tmp_path / "no" / "x.html")
