"""`docs/migrate.md`: what it names exists, and its code runs on a folder."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from PIL import Image

from tests.interop.openvla.made import made_folder, statistics
from tests.interop.openvla.test_read import picture
from vertebra.interop.openvla.options import NAMES

PAGE = (Path(__file__).parents[3] / "docs" / "migrate.md").read_text(encoding="utf-8")


def test_names_exist():
    import vertebra

    for name in re.findall(r"`(?:vt|vertebra)\.([\w.]+)", PAGE):
        *rooms, leaf = name.split(".")
        place = importlib.import_module(".".join(["vertebra", *rooms])) if rooms else vertebra
        assert hasattr(place, leaf), name
    assert set(re.findall(r"`(\w+)=", PAGE)) >= set(NAMES) - {"llm"}


def test_the_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    made_folder(tmp_path / "openvla-7b", norm_stats={"bridge_orig": statistics()})
    for name in ("scene", "a", "b"):
        Image.fromarray(picture(len(name), 40, 50)).save(f"{name}.png")
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, names)
    assert names["action"].shape == (1, 7)
    assert [chunk.shape for chunk in names["actions"]] == [(1, 7), (1, 7)]
