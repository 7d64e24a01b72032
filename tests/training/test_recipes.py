"""Recipes by path and by name, from any folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from vertebra.errors import ConfigError
from vertebra.training.recipes import find_recipe, read_recipe
from vertebra.training.verbs import config_of

OWN = Path(__file__).parents[2] / "recipes"


def test_a_name_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_recipe("chat-lora").samefile(OWN / "chat-lora.yaml")
    assert Path(str(read_recipe("chat-lora").data.path)).is_file(), "its data lies beside it"


def test_a_file_of_the_same_name_here_is_not_taken(tmp_path, monkeypatch):
    """What the recipe names lies beside the recipe; the same command reads the same data from every folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "chat.jsonl").write_text("somebody else's")
    for name in ("chat-lora", "chat-full", OWN / "chat-lora.yaml"):
        assert Path(str(read_recipe(name).data.path)) == OWN.resolve() / "data" / "chat.jsonl"


def test_paths_are_relative_to_who_names_them(tmp_path, monkeypatch):
    """Beside the recipe for a recipe, here for an override; whole in what the run records, so that it can run again."""
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there, there / "rows"):
        folder.mkdir()
        (folder / "a.jsonl").write_text("")
    monkeypatch.chdir(here)
    recipe = there / "mine.yaml"

    def path_of(value, *overrides):
        text = (OWN / "chat-lora.yaml").read_text().replace("path: data/chat.jsonl", f"path: {value}")
        recipe.write_text(text)
        return read_recipe("../there/mine.yaml", overrides).data.path

    assert path_of("a.jsonl") == path_of("./a.jsonl").replace("/./", "/") == str(there / "a.jsonl")
    assert path_of("rows") == str(there / "rows")
    assert path_of("rows/*.jsonl") == str(there / "rows" / "*.jsonl")
    assert path_of(str(here / "a.jsonl")) == str(here / "a.jsonl")
    assert path_of("missing.jsonl") == str(there / "missing.jsonl"), "the message names the place that was searched"
    assert path_of("owner/name") == "owner/name"
    assert path_of("hub:rows") == "hub:rows"
    assert path_of("stdlib") == "stdlib"
    assert path_of("rows", "data.path=a.jsonl") == str(here / "a.jsonl")
    assert path_of("rows", "data.path=owner/name") == "owner/name"
    (here / "only-here.jsonl").write_text("")
    (here / "owner" / "name").mkdir(parents=True)
    for value in ("only-here.jsonl", "owner/name", "only-*.jsonl"):
        with pytest.raises(ConfigError, match=r"relative to the recipe.*if it is meant, give --set data\.path="):
            path_of(value)


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


def test_overrides_reach_a_config_too():
    """Given beside a config they were ignored in silence."""
    config = read_recipe("causal-lm")
    assert config_of(config, ["seed=7", "optim.lr=0.5"]) == read_recipe("causal-lm", ["seed=7", "optim.lr=0.5"])
    assert config_of(config) is config
    with pytest.raises(ConfigError, match=r"unknown setting `optim\.lrr`"):
        config_of(config, ["optim.lrr=1"])
    with pytest.raises(ConfigError, match="a recipe of type dict; expected a YAML file"):
        config_of({"seed": 1})


def test_the_folder_of_a_run_is_its_recipe_and_goes_on_there(tmp_path, monkeypatch):
    from vertebra.training.verbs import train

    monkeypatch.chdir(tmp_path)
    short = ["watch.every=1", "save.every=1", "watch.bar=false"]
    first = train("causal-lm", short, out="runs/mine", tiny=True)
    monkeypatch.chdir(tmp_path / "runs")  # wherever somebody stands
    again = train("mine", ["steps=5"], resume=True)
    assert (first.step, again.step) == (4, 5)
    assert again.folder.samefile(tmp_path / "runs" / "mine")
    assert Path(read_recipe("mine", ["out=elsewhere"]).out) == Path("elsewhere"), "an override goes before"
