"""Names of files and folders that cannot be, at every command that takes one: our message or usage, and never a traceback."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.training.test_bad_input import chat
from vertebra.cli.main import app
from vertebra.errors import CheckpointError
from vertebra.folders import require_place

LONG = "a" * 5000
# command lines in which PLACE stands for the name
WRITES = {
    "tiny": ("tiny", "--family", "llama2", "PLACE"),
    "prompt": ("prompt", "tiny-llama2", "--user", "a", "--html", "PLACE"),
    "trace": ("trace", "tiny-llama2", "a", "--max-new-tokens", "1", "--html", "PLACE"),
    "train": ("train", "RECIPE", "--out", "PLACE"),
    "dry run": ("train", "RECIPE", "--dry-run", "--out", "PLACE"),
    "set out": ("train", "RECIPE", "--set", "out=PLACE"),
    "demo": ("demo", "--out", "PLACE"),
}
READS = {
    "info": ("info", "PLACE"),
    "check": ("check", "PLACE"),
    "generate": ("generate", "PLACE", "hi"),
    "schema": ("generate", "tiny-llama2", "hi", "--json-schema", "PLACE"),
    "plan": ("plan", "PLACE"),
    "backbone": ("plan", "RECIPE", "--set", "model.backbone=PLACE"),
    "start": ("train", "RECIPE", "--set", "model.start=PLACE"),
    "data": ("train", "RECIPE", "--set", "data.path=PLACE"),
    "report": ("report", "PLACE"),
    "export": ("export", "PLACE", "out"),
    "adapter": ("merge", "tiny-llama2", "PLACE", "out"),
    "base": ("merge", "PLACE", "adapter", "out"),
}


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Names that cannot be a folder or file to write, and the recipe of a small run."""
    chat(tmp_path / "chat.jsonl")
    (tmp_path / "recipe.yaml").write_text(
        "name: r\nmodel: {backbone: tiny-llama2}\ndata: {kind: chat, path: chat.jsonl}\nsteps: 1\n"
    )
    (tmp_path / "file").write_bytes(b"\xff\x00\x92")
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    names = {"long": LONG, "a long part": f"{tmp_path}/{'b' * 300}", "in a file": f"{tmp_path}/file/x", "nul": "a\0b"}
    return {**names, "proc": "/proc/x/y", "empty": ""} if os.path.isdir("/proc/self") else {**names, "empty": ""}


def call(vertebra, places: dict[str, str], line: tuple[str, ...], place: str, tmp_path: Path):
    recipe = str(tmp_path / "recipe.yaml")
    return vertebra(*(part.replace("PLACE", place).replace("RECIPE", recipe) for part in line))


@pytest.mark.parametrize("command", WRITES)
def test_places_to_write(vertebra, places: dict[str, str], command: str, tmp_path: Path):
    for kind, place in places.items():
        done = call(vertebra, places, WRITES[command], place, tmp_path)
        assert done.code in (1, 2), (kind, done.err)
        assert "error" in done.err.lower(), kind
        assert len(done.err) < 20_000, kind
    assert list((tmp_path / "cwd").iterdir()) == []


@pytest.mark.parametrize("command", READS)
def test_places_to_read(vertebra, places: dict[str, str], command: str, tmp_path: Path):
    for kind, place in {**places, "bytes": str(tmp_path / "file"), "a device": os.devnull}.items():
        done = call(vertebra, places, READS[command], place, tmp_path)
        assert done.code in (1, 2), (kind, done.err)
        assert "error" in done.err.lower(), kind
    assert list((tmp_path / "cwd").iterdir()) == []


def test_a_place_is_tried_and_left_as_it_was(tmp_path: Path):
    for good in (tmp_path, tmp_path / "a" / "b" / "c"):
        require_place(good)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    for bad in (tmp_path / "file", tmp_path / "file" / "x", tmp_path / ("a" * 300)):
        with pytest.raises(CheckpointError, match="cannot be written to"):
            require_place(bad)


@pytest.mark.skipif(os.geteuid() == 0, reason="an administrator may write everywhere")
def test_a_folder_without_the_right_to_write(tmp_path: Path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(CheckpointError, match="Permission denied"):
        require_place(tmp_path / "locked" / "run")


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Every command, those of groups too, by its whole name."""
    command = command.real() if hasattr(command, "real") else command
    for part, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, f"{name} {part}".strip())
    if not getattr(command, "commands", {}):
        yield name, command


def test_every_default_goes_the_way_of_what_is_typed():
    """A command without options takes its own defaults: what reads a typed name reads a default too."""
    read = 0
    for name, command in _commands(typer.main.get_command(app), ""):
        context = typer.Context(command, info_name=name)
        for parameter in command.params:
            default = parameter.get_default(context)
            if default is not None and not parameter.is_eager:
                parameter.process_value(context, default)
                read += isinstance(default, Path)
    assert read
