"""`docs/generation.md`: its code runs as it stands, one block after the other, and its masks are those that are traced."""

from __future__ import annotations

import re
from pathlib import Path

from vertebra import load
from vertebra.decode.tracing.trace import trace

PAGE = Path(__file__).parents[2] / "docs" / "generation.md"


def test_code_runs_as_it_stands(capsys):
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, PAGE.name, "exec"), names)
    assert "`[18, 1, 1, 1, …]`" in PAGE.read_text(encoding="utf-8")
    assert names["answer"].shape_of_passes[:4] == [18, 1, 1, 1]
    assert names["both"].lengths == [5, 5]
    assert "length" in capsys.readouterr().out


def drawn() -> list[str]:
    """Both kinds of layers of Gemma-3, side by side, as `vertebra trace tiny-gemma3 "Go"` draws them."""
    model = load("tiny-gemma3")
    masks = trace(model, "Go", max_new_tokens=1).steps[0].passes[0].masks
    assert [mask.layers for mask in masks] == ["sliding", "full"]
    lines = [["".join("·█"[cell != "0"] * 2 for cell in line) for line in mask.cells] for mask in masks]
    return [f"  {one:<53}{other}" for one, other in zip(*lines, strict=True)]


def test_masks_are_those_of_the_trace():
    assert "\n".join(drawn()) + "\n```" in PAGE.read_text(encoding="utf-8")


def test_pictures_are_there():
    for name in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", PAGE.read_text(encoding="utf-8")):
        assert (PAGE.parent / name).is_file(), name
