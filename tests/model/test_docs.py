"""The pages' code runs, and what they name exists."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from tests.model import test_hook
from vertebra.model.encoders.kinds import ENCODERS
from vertebra.model.encoders.part import PLACES

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), flags=re.DOTALL)


def test_the_multimodal_page_runs():
    (code,) = blocks("multimodal.md")
    space: dict[str, object] = {}
    exec(code, space)
    assert space["logits"].shape[:2] == (2, 1)
    assert space["step"].logits.shape[:2] == (2, 1)


def test_the_multimodal_page_names_what_there_is():
    page = (DOCS / "multimodal.md").read_text()
    for encoder in ENCODERS.values():
        assert encoder.__name__ in page
    for place in PLACES:
        assert f"| `{place}` |" in page


def test_the_hook_of_the_cache_page_runs():
    """Its block, on the model of the story test."""
    code = blocks("cache.md")[1]
    model, given = test_hook.model_of(), test_hook.pages()
    expected = test_hook.without_cache(model, given, count=64)
    space = {
        "model": model, "BOX": test_hook.BOX, "PATCH": test_hook.PATCH, "torch": torch, "ids": given["input_ids"],
        "mask": given["attention_mask"], "bbox": given["bbox"], "pixels": given["pixel_values"],
    }  # fmt: skip
    exec(code, space)
    assert torch.equal(space["answer"], expected)
