"""The page of an evaluation in a real browser: its films move, it is dark where the reader is, it asks for nothing.

Needs an installed Chromium (`apt-get install chromium`) and is run by `make test-browser`.
"""

from __future__ import annotations

import pytest

from tests.browser import opened
from tests.evaluate.test_evaluation import evaluated
from tests.evaluate.toys import Blind

pytestmark = pytest.mark.browser

_PLAYED = """new Promise(done => {
  const films = [...document.querySelectorAll('video')];
  films.forEach(film => { film.muted = true; film.play(); });
  const moved = () => films.every(film => film.currentTime > 0.2);
  const look = () => moved() ? done(films.map(film => film.videoWidth)) : setTimeout(look, 50);
  look();
})"""


def test_the_films_move_and_the_page_fits(tmp_path):
    evaluated(tmp_path / "out", Blind(), films=True, arms=("swapped", "paraphrase"))
    with opened(tmp_path / "out" / "report.html", tmp_path / "profile") as browser:
        assert browser.run(_PLAYED) == [192, 192, 192, 192]
        assert browser.run("document.querySelectorAll('#rates tbody tr').length") == 3
        browser.require_whole("evaluation", tmp_path)
