"""Recipes by path and by name, from any folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from vertebra.errors import ConfigError
from vertebra.train.recipes import find_recipe, read_recipe

OWN = Path(__file__).parents[2] / "recipes"


def test_a_name_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_recipe("chat-lora").samefile(OWN / "chat-lora.yaml")
    assert Path(str(read_recipe("chat-lora").data.path)).is_file(), "its data lies beside it"


def test_what_lies_where_the_command_is_started_goes_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    mine = tmp_path / "recipes" / "chat-lora.yaml"
    mine.write_text((OWN / "chat-lora.yaml").read_text().replace("name: chat-lora", "name: mine"))
    assert find_recipe("chat-lora").samefile(mine)
    other = tmp_path / "chat-lora"
    other.write_text(mine.read_text())
    assert find_recipe("chat-lora").samefile(other), "a path goes before a name"


def test_a_name_that_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"no recipe `chat-lor`\. Did you mean `chat-lora`.*\? Recipes: .*squares"):
        find_recipe("chat-lor")
