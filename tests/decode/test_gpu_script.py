"""`benchmarks/gpu.py` from start to end with a tiny shape on the CPU, so that it runs where somebody has a GPU."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")
def test_it_runs(capsys, monkeypatch):
    """Every row, each beside its peers. Nothing is compiled: what is compiled runs eagerly."""
    script = runpy.run_path(str(SCRIPT))
    for name, small in {"PROMPT": 24, "NEW": 3, "SLOTS": 6, "PAGE": 40}.items():
        assert name in script
        monkeypatch.setitem(script["main"].__globals__, name, small)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--shapes", "tiny", "--device", "cpu", "--rounds", "1"])
    with torch.compiler.set_stance("force_eager"):
        assert script["main"]() == 0
    output = capsys.readouterr().out
    rows = [line.split("|")[1:-1] for line in output.splitlines() if line.startswith("| tiny")]
    assert len(rows) == 7
    assert all("ms" in taken and "×" in beside for _, taken, beside in rows)
    for peer in ("HF generate, static cache, compiled", "ours, compiled without graphs", "prefill of the same length"):
        assert any(peer in beside for _, _, beside in rows), peer


def test_what_there_is_no_time_for_is_left_out(capsys, monkeypatch):
    script = runpy.run_path(str(SCRIPT))
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--shapes", "tiny", "--device", "cpu", "--minutes", "-1"])
    assert script["main"]() == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| tiny")]
    assert len(rows) == len(script["PARTS"])
    assert all("left out" in row for row in rows)


def test_without_a_gpu_it_says_so(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    script = runpy.run_path(str(SCRIPT))
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    assert script["main"]() == 1
    assert "no CUDA device" in capsys.readouterr().err
