"""Every recipe of the repository has a plan, before there is any data or an earlier stage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.tasks.robots import small_set
from tests.training.test_run import RECIPES
from vertebra.errors import ConfigError
from vertebra.training.config import ImageConfig
from vertebra.training.planning.plan import plan
from vertebra.training.recipes import read_recipe


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_has_a_plan(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    episodes = "kind: episodes" in path.read_text()
    run = read_recipe(path, [f"data.path={small_set(tmp_path / 'demonstrations')}"] if episodes else [])
    if run.model.start is not None:
        with pytest.raises(ConfigError, match=r"there is no folder .* yet"):
            plan(run)
        run = replace(run, model=replace(run.model, start=None, image=ImageConfig()))
    made = plan(run, memory=8)
    assert made.chosen is not None
    assert bool(made.outside) == (run.data.kind in ("squares", "look", "episodes", "pages"))
