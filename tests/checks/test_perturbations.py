"""Each check turns red for its own fault, and no other check does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.checks.perturbations import PERTURBATIONS
from vertebra.backbone.registry import load_backbone
from vertebra.checks.catalog import CHECKS
from vertebra.checks.policies import OF_POLICIES
from vertebra.checks.run import check_backbone


def test_every_check_has_its_fault():
    assert list(PERTURBATIONS) == list(CHECKS)


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_exactly_this_check_turns_red(name, monkeypatch):
    fault = PERTURBATIONS[name]
    backbone = load_backbone(fault.model)
    fault.apply(backbone, monkeypatch)
    report = check_backbone(backbone)
    assert report.failed == (name,), [(r.name, r.message) for r in report.results if r.status == "fail"]
    (row,) = [r for r in report.results if r.name == name]
    assert row.mend == CHECKS[name].mend
    if row.bound is not None and row.bound.startswith("≤"):
        assert row.number > 5e-2, "the fault is too small to tell from rounding in half precision"


def test_the_page_has_the_same_table():
    page = (Path(__file__).parent.parent.parent / "docs" / "check.md").read_text(encoding="utf-8")
    for table in (CHECKS, OF_POLICIES):
        rows = [f"| `{check.name}` | {check.shows} | {check.breaks_on} |" for check in table.values()]
        assert "\n".join(rows) in page


def test_the_page_runs(capsys):
    page = (Path(__file__).parent.parent.parent / "docs" / "check.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile(block, "check.md", "exec"), {})
    assert "packed-beyond-window pass" in capsys.readouterr().out
