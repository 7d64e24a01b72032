"""`vertebra demo`, and the examples: what they promise to write and to learn."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import matplotlib as mpl
import pytest
import torch

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
PNG = b"\x89PNG"


def test_demo(vertebra, tmp_path):
    threads = torch.get_num_threads()
    done = vertebra("demo", "--out", str(tmp_path / "out"))
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


@pytest.fixture
def example(monkeypatch, capsys, tmp_path):
    def run(name: str, *arguments: str) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        with mpl.rc_context({"backend": "Agg"}), torch.random.fork_rng(devices=[]):
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_bare_loop(example, tmp_path):
    out = example("bare_loop.py", str(tmp_path / "loss.png"))
    assert "after: ['Hot tea.', 'On the left.', 'The robot.']" in out
    assert (tmp_path / "loss.png").read_bytes().startswith(PNG)
    assert len((EXAMPLES / "bare_loop.py").read_text(encoding="utf-8").splitlines()) < 40


def test_load_and_generate(example):
    assert example("load_and_generate.py", "tiny-gpt2").strip()
