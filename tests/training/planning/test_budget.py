"""The memory plan of a dry run: of the layout that the config asks for, against what this machine has."""

from __future__ import annotations

import logging

import pytest

from tests.training.models import config
from vertebra.training.planning import budget
from vertebra.training.planning.plan import plan


def test_it_says_what_a_step_takes(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, "vertebra"):
        budget.log_budget(config(data__block=32), 1)
    assert "memory plan:" in caplog.text
    assert "optimizer" in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_run_that_does_not_fit(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(budget, "memory_here", lambda: 1e5)
    budget.log_budget(config(data__block=32), 1)
    assert "optim.checkpointing=true" in caplog.text


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize(("kind", "name"), [("ddp", "ddp"), ("fsdp", "fsdp")])
def test_the_layout_is_the_configs_own(kind: str, name: str, again: bool):
    run = config(data__block=32, parallel__kind=kind, optim__checkpointing=again)
    found = budget.own_layout(plan(run, gpus=2).layouts, run, 2)
    assert found.name == (f"{name}, checkpointing" if again else name)
