"""`docs/documents.md`: its code runs as it stands, its recipe trains."""

from __future__ import annotations

import re
from pathlib import Path

from vertebra.layout import PagePlace
from vertebra.training.recipes import read_recipe
from vertebra.training.run import train

PAGE = (Path(__file__).parents[2] / "docs" / "documents.md").read_text(encoding="utf-8")


def test_code_runs_as_it_stands(capsys):
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "documents.md", "exec"), names)
    assert names["place"] == PagePlace(page=1, line=1, word=1)
    assert "Invoice 4711" in capsys.readouterr().out
    assert len(names["made"].text) == 2


def test_the_recipe_trains(tmp_path):
    (recipe,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "receipts-drawn.yaml"
    path.write_text(recipe)
    settings = [f"out={tmp_path / 'run'}", "steps=2", "data.count=8", "data.options.asked=4", "watch.bar=false"]
    found = train(read_recipe(str(path), settings)).found
    assert {"accuracy", "anls", "amount"} <= set(found)
