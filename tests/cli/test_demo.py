"""`vertebra demo`: what it promises to write and to learn."""

from __future__ import annotations

import re

import torch

PNG = b"\x89PNG"


def test_demo(vertebra, tmp_path):
    threads = torch.get_num_threads()
    done = vertebra("demo", "basics", "--no-real", "--out", str(tmp_path / "out"))
    assert done.code == 0
    assert "3 of 3 families passed" in done.out
    assert "3 of 3 right" in done.out
    assert (tmp_path / "out" / "loss.png").read_bytes().startswith(PNG)
    assert "<html" in (tmp_path / "out" / "prompt.html").read_text(encoding="utf-8")
    assert "100 steps" in done.out
    assert float(re.search(r"policy +reaches (\d+)%", done.out)[1]) >= 80
    assert "Hot" in (tmp_path / "out" / "trace.html").read_text(encoding="utf-8")
    assert "success" in (tmp_path / "out" / "squares" / "report.html").read_text(encoding="utf-8")
    assert torch.get_num_threads() == threads


def test_demo_without_matplotlib(tmp_path, monkeypatch, caplog):
    from vertebra.cli import demo

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with caplog.at_level("WARNING", logger="vertebra"):
        assert demo._draw([1.0, 0.5], tmp_path / "loss.png") is None
    assert "vertebra[train]" in caplog.text


def test_a_folder_that_cannot_be_made(vertebra, tmp_path):
    (tmp_path / "file").write_text("")
    done = vertebra("demo", "--out", str(tmp_path / "file" / "out"))
    assert done.code == 1
    assert "cannot be made" in done.err


def test_a_real_model_that_cannot_be_fetched(monkeypatch, capsys):
    """One line, and the demo goes on."""
    from rich.console import Console

    from vertebra.cli import demo_real
    from vertebra.errors import NetworkError

    def refused(name):
        raise NetworkError("no network here\nand more")

    monkeypatch.setattr("vertebra.interop.packages.get", refused)
    assert not demo_real.real_model(Console(width=200))
    assert capsys.readouterr().out == "no real model here, the demo goes on without them: no network here\n"
