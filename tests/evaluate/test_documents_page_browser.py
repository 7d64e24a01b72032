"""The page of an evaluation on documents in a real browser: tables, bins, answers and boxes that light each other up.

Needs an installed Chromium (`apt-get install chromium`) and is run by `make test-browser`.
"""

from __future__ import annotations

import pytest

from tests.browser import opened
from tests.evaluate.test_documents_page import EVIL, an_evaluation
from vertebra.evaluate import write_documents_page

pytestmark = pytest.mark.browser


def test_the_page_is_whole_and_answers_light_up(tmp_path):
    path = write_documents_page(*an_evaluation(), tmp_path / "x.html")
    with opened(path, tmp_path / "profile") as browser:
        assert browser.run("document.title") == f"m{EVIL}: an evaluation on documents"
        assert browser.run("document.querySelectorAll('b:not(.rate b)').length") == 0  # what a text says is no element
        assert browser.run("document.querySelectorAll('#rates tbody tr').length") == 5
        assert browser.run("document.querySelectorAll('#calibration .bin').length") == 3
        assert browser.run("document.querySelectorAll('.sheet svg').length") == 3
        assert browser.run("document.querySelector('.sheet svg').getBoundingClientRect().width > 200")
        browser.run("document.querySelector('tr[data-field=\"0:total\"]').dispatchEvent(new MouseEvent('mouseenter'))")
        assert browser.run("document.querySelectorAll('rect.on').length") == 3  # where it points, and where it stands
        dashed = "getComputedStyle(document.querySelector('rect.gold')).strokeDasharray"
        assert browser.run(dashed) == "6px, 4px"
        browser.require_whole("documents-evaluation", tmp_path)
