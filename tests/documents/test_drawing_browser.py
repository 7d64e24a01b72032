"""The page of an extraction in a real browser: answers and boxes light each other up; it asks for nothing; texts are texts.

Needs an installed Chromium (`apt-get install chromium`) and is run by `make test-browser`.
"""

from __future__ import annotations

import pytest
from PIL import Image

from tests.browser import opened
from tests.documents.test_drawing import EVIL, an_extraction
from vertebra.documents.drawing import write_extraction_page

pytestmark = pytest.mark.browser

_HOVER = "document.querySelector('{}').dispatchEvent(new MouseEvent('{}'))"


def test_answers_and_boxes_light_each_other_up(tmp_path):
    path = write_extraction_page(an_extraction(), tmp_path / "x.html", {1: Image.new("RGB", (300, 300), "#eeeeff")})
    with opened(path, tmp_path / "profile") as browser:
        assert browser.run("document.title") == f"{EVIL}.pdf: what was found"
        assert browser.run("document.querySelectorAll('svg image').length") == 1
        assert browser.run("document.querySelector('svg image').getBoundingClientRect().width > 100")
        lit = "document.querySelectorAll('rect.on').length"
        assert browser.run(lit) == 0
        browser.run(_HOVER.format("tr[data-field=total]", "mouseenter"))
        assert browser.run(lit) == 2
        browser.run(_HOVER.format("tr[data-field=total]", "mouseleave"))
        assert browser.run(lit) == 0
        browser.run(_HOVER.format("rect[data-field=total]", "click"))
        assert browser.run("document.querySelectorAll('tr.on').length") == 1
        box = browser.run(
            "(() => { const r = document.querySelector('rect[data-field=total]').getBoundingClientRect(), "
            "s = document.querySelector('svg').getBoundingClientRect(); "
            "return [(r.left - s.left) / s.width, (r.top - s.top) / s.height]; })()"
        )
        assert box == pytest.approx([0.7, 0.8], abs=0.02)
        browser.require_whole("extraction", tmp_path)
