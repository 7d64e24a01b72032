"""`vertebra env`: versions that are installed, parts that are missing with the way to get them."""

from __future__ import annotations

import json
import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import torch

from vertebra.cli import env

PYPROJECT = tomllib.loads((Path(__file__).parent.parent.parent / "pyproject.toml").read_text(encoding="utf-8"))


def test_json(vertebra):
    data = json.loads(vertebra("env", "--json").out)
    assert data["versions"]["torch"] == version("torch")
    assert data["system"]["vertebra"] == version("vertebra")
    assert data["devices"][0]["name"] == "cpu"
    assert len(data["devices"]) == 1 + torch.cuda.device_count() + torch.backends.mps.is_available()
    parts = {part["name"]: part for part in data["parts"]}
    assert parts["peft"]["here"] is True
    assert parts["peft"]["version"] == version("peft")
    assert data["settings"]["offline"] is True


def test_a_missing_part_says_how_to_get_it(vertebra, monkeypatch):
    monkeypatch.setattr(env, "PARTS", (env.OptionalPart("no-such-thing", "nothing", "pip install 'vertebra[train]'"),))
    out = vertebra("env").out
    assert "no-such-thing" in out
    assert "pip install 'vertebra[train]'" in out


def test_every_optional_dependency_is_listed():
    """And each is gotten by an extra that has it."""
    extras = PYPROJECT["project"]["optional-dependencies"]
    named = {
        (re.split(r"[>=\[ ]", package)[0], f"pip install 'vertebra[{extra}]'")
        for extra, packages in extras.items()
        if extra != "dev"
        for package in packages
    }
    assert named <= {(part.name, part.get) for part in env.PARTS}


def test_every_core_dependency_is_listed():
    core = {re.split(r"[>=\[ ]", package)[0] for package in PYPROJECT["project"]["dependencies"]}
    assert core == set(env._CORE)
