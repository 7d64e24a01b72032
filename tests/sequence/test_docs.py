"""The page about sequences: its code runs, and its table of kernels is what the models here support."""

from __future__ import annotations

import re
from pathlib import Path

import transformers

from vertebra.backbone.families.models import FAMILIES
from vertebra.backbone.tiny import TINY

PAGE = (Path(__file__).parent.parent.parent / "docs" / "sequence.md").read_text()


def test_the_code_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    space: dict[str, object] = {}
    exec(code, space)
    assert len(space["rows"]) == 3
    assert capsys.readouterr().out.startswith("packed since several documents share a row")


def test_the_table_of_kernels():
    table = PAGE[PAGE.index("| family | window") :].split("\n\n")[0].splitlines()[2:]
    reply = {}
    for line in table:
        families, _, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        for family in families.replace("(encoder)", "").split(","):
            reply[family.strip()] = cells
    assert {spec.family for spec in TINY.values()} <= set(reply)
    for spec in TINY.values():
        model = getattr(transformers, spec.llm_cls)
        eager, sdpa, flex, flash = reply[spec.family]
        native = "causal 2d packed" if FAMILIES[spec.family].isolates_by_position else "causal 2d"
        assert eager == f"{native} 4d"
        assert "¹" in sdpa or sdpa == (f"{native} 4d" if model._supports_sdpa else "refused by the model")
        assert flex == (native if model._supports_flex_attn else "refused by the model")
        assert flash == (native if model._supports_flash_attn else "refused by the model")
