"""The display: whole on a narrow terminal, more on a wide one, silent where there is none."""

from __future__ import annotations

import io

import pytest
import rich.console

from vertebra.training.watching.progress import Display


@pytest.mark.parametrize("width", [80, 100, 130, 160])
def test_nothing_is_cut_off(width: int, monkeypatch: pytest.MonkeyPatch):
    shown = io.StringIO()
    real = rich.console.Console
    made = lambda **options: real(file=shown, force_terminal=True, width=width, color_system=None)  # noqa: E731
    monkeypatch.setattr(rich.console, "Console", made)
    display = Display(10_000, shown=True)
    display.shown = True
    display.evaluated(3.4567, 3.2)
    display.step(10_000, 11.3441, 3e-7, 1_234_567.0)
    display.close()
    line = next(line for line in shown.getvalue().split("\r") if "tokens" in line)
    assert "10000/10000 loss 11.3441  lr 3.00e-07  1,234,567 tokens/s 0:00:00 left" in line
    assert "…" not in line
    assert ("training" in line) == (width >= 100)
    assert ("eval 3.4567 (best 3.2000)" in line) == (width >= 130)


def test_nothing_is_shown_where_nobody_looks(capsys: pytest.CaptureFixture[str]):
    display = Display(2, shown=True)
    display.step(2, 1.0, 1.0, 1.0)
    display.close()
    assert capsys.readouterr() == ("", "")
