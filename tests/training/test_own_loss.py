"""A loss of one's own: found where the user stands, refused before anything loads, and never in the way of the next try."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.test_bad_input import chat, run_of
from vertebra.errors import ConfigError, TrainingError
from vertebra.training.own_loss import loss_by, loss_function, require_signature
from vertebra.training.run import train

MODULE = """
import torch
def good(outputs, batch, num_items): return outputs.logits.float().pow(2).mean()
def optional(outputs, batch, num_items=None, *, scale=2.0): return scale * outputs.logits.float().pow(2).mean()
def anything(*given): return given[0].logits.float().mean()
class Rule:
    def __call__(self, outputs, batch, num_items): return outputs.logits.float().mean()
rule = Rule()
def two(outputs, batch): return 0
def four(outputs, batch, num_items, more): return 0
def named(*, outputs, batch, num_items): return 0
def none(outputs, batch, num_items): return None
def row(outputs, batch, num_items): return outputs.logits[0]
def detached(outputs, batch, num_items): return outputs.logits.mean().detach()
def boom(outputs, batch, num_items): return outputs["nothing"]
value = 3
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a module of losses, which is on no path."""
    (tmp_path / "own_losses.py").write_text(MODULE)
    (tmp_path / "broken_losses.py").write_text("1 / 0\n")
    (tmp_path / "needy_losses.py").write_text("import surely_not_installed\n")
    chat(tmp_path / "chat.jsonl")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    for name in ("own_losses", "broken_losses", "needy_losses"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


@pytest.mark.parametrize("name", ["good", "optional", "anything", "rule"])
def test_forms_that_can_be_called(here: Path, name: str):
    function = loss_function(f"own_losses:{name}")
    outputs = type("Outputs", (), {"logits": torch.ones(2, 3, requires_grad=True)})()
    assert loss_by(function, outputs, {}, None, trains=True).requires_grad


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_losses:two", r"`own_losses:two` takes \(outputs, batch\); expected \(outputs, batch, num_items\)"),
        ("own_losses:four", r"takes \(outputs, batch, num_items, more\); expected"),
        ("own_losses:named", r"takes \(\*, outputs, batch, num_items\); expected"),
        ("own_losses:value", "is a int; expected a function"),
        ("own_losses:goood", r"own_losses\.py\) has no `goood`\. Did you mean `good`"),
        ("own_lossess:good", r"there is no module `own_lossess`, neither in the current folder"),
        ("own_losses.inner:good", r"there is no module `own_losses\.inner`|not a package"),
        ("broken_losses:good", r"ZeroDivisionError: division by zero \(.*broken_losses\.py, line 1\)"),
        ("needy_losses:good", "`needy_losses` imports `surely_not_installed`, which is not there"),
        *((name, "expected `package.module:function`") for name in ("own_losses", ":x", "..a:x", "a:", "a b:c", "")),
    ],
)
def test_names_that_are_none(here: Path, name: str, message: str):
    with pytest.raises(ConfigError, match=message):
        loss_function(name)


def test_a_refused_function_leaves_no_folder(here: Path):
    config = run_of(here, loss={"function": "own_losses:two"})
    with pytest.raises(ConfigError, match="takes"):
        train(config)
    assert not (here / "run").exists()
    with pytest.raises(ConfigError, match="takes"):
        require_signature(lambda outputs, batch: 0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none", "gives a NoneType; expected a tensor of one number"),
        ("row", r"gives \[.*\]; expected one number"),
        ("detached", "gives a number without a gradient"),
        ("boom", r"`boom` failed: KeyError: 'nothing' \(.*own_losses\.py, line \d+\)"),
    ],
)
def test_a_failed_first_step_does_not_block_the_next_try(here: Path, name: str, message: str):
    with pytest.raises(TrainingError, match=message):
        train(run_of(here, loss={"function": f"own_losses:{name}"}))
    done = train(run_of(here, loss={"function": "own_losses:good"}))
    assert (done.step, done.done) == (2, True)


def test_a_run_that_began_is_not_taken_away(here: Path):
    """One step is enough: its metrics are all that is left of a run without a checkpoint."""
    config = run_of(here, loss={"function": "own_losses:good"})
    train(config)
    for left in ("checkpoints", "model"):
        subprocess.run(["rm", "-rf", str(here / "run" / left)], check=True)
    with pytest.raises(ConfigError, match="is not empty"):
        train(config)


def test_the_console_script_looks_into_the_current_folder(here: Path):
    """A script has its own folder on the path, and not the current one."""
    script = here / "bin" / "script.py"
    script.parent.mkdir()
    script.write_text(
        "import json, sys\nfrom vertebra.training.own_loss import loss_function\n"
        "print(json.dumps([loss_function('own_losses:good').__name__]))\n"
    )
    done: Any = subprocess.run([sys.executable, str(script)], cwd=here, capture_output=True, text=True, check=False)
    assert json.loads(done.stdout) == ["good"], done.stderr
