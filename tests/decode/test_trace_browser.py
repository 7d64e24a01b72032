"""The page in a real browser: it opens without a network, a click shows a step, and a picture of it is kept.

Needs an installed Chromium (`apt-get install chromium`) and is run by `make test-browser`.
"""

from __future__ import annotations

import pytest

from tests.browser import opened
from tests.decode.test_sheets import traced
from tests.model.models import batch_of, page_row, shared
from vertebra.decode.tracing.html import trace_page
from vertebra.decode.tracing.trace import trace

pytestmark = pytest.mark.browser


def test_a_click_shows_a_step(tmp_path):
    model = shared(inference_mode=True, weights=True)
    traced = trace(model, batch_of(model, [page_row(0)]), max_new_tokens=8, temperature=0.9, top_p=0.9, seed=4)
    file = tmp_path / "trace.html"
    file.write_text(trace_page(traced), encoding="utf-8")
    with opened(file, tmp_path / "profile") as browser:
        shown = "[...document.querySelectorAll('section.step')].filter(one => one.offsetParent).map(one => one.id)"
        assert browser.run(shown) == ["step-0"]
        browser.run("document.querySelectorAll('button.token')[3].click()")
        assert browser.run(shown) == ["step-3"]
        assert "Decode: one column goes in" in browser.run("document.querySelector('#step-3').innerText")
        browser.run("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowLeft'}))")
        assert browser.run(shown) == ["step-2"]
        browser.run("document.querySelectorAll('button.token')[0].click()")
        browser.require_whole("trace", tmp_path)


def test_a_page_is_drawn_with_its_slots(tmp_path):
    lines, _, made = traced("tiny-llama2", "laytext", pages=1)
    file = tmp_path / "trace.html"
    file.write_text(trace_page(made), encoding="utf-8")
    with opened(file, tmp_path / "profile") as browser:
        boxed = [line for line in lines if line.box is not None]
        assert browser.run("document.querySelectorAll('.sheet g.line:not(.asked) rect').length") == len(boxed)
        assert browser.run("document.querySelector('.sheet svg').getBoundingClientRect().width") == 700
        place = browser.run(
            "(() => { const r = document.querySelector('.sheet g.line rect').getBoundingClientRect(), "
            "s = document.querySelector('.sheet svg').getBoundingClientRect(); "
            "return [(r.left - s.left) / s.width, (r.top - s.top) / s.height]; })()"
        )
        assert place == pytest.approx([boxed[0].box[0] / 1000, boxed[0].box[1] / 1000], abs=0.01)
        assert "▢" in browser.run("document.querySelector('.sheet .at').textContent")
        browser.require_whole("trace-page", tmp_path)
