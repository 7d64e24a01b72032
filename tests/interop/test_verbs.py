"""The verbs of `import vertebra as vt`: one call from a name to an answer, a report, a run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import vertebra as vt
from vertebra.backbone.tiny import tiny_checkpoint
from vertebra.errors import ConfigError, UnknownNameError
from vertebra.interop import verbs

ASKED = "Where is the red block?"
FOUR = {"max_new_tokens": 4, "eos_token_id": ()}


@pytest.fixture(autouse=True)
def nothing_loaded(monkeypatch):
    monkeypatch.setattr(verbs, "_loaded", {})


def test_a_name_is_as_good_as_a_model():
    name, model = "tiny-llama2", vt.load("tiny-llama2")
    expected = vt.generate(model, ASKED, **FOUR).tokens
    assert vt.generate(name, ASKED, **FOUR).tokens == expected
    folder = tiny_checkpoint(name)
    assert vt.generate(folder, ASKED, **FOUR).tokens == vt.generate(vt.load(folder), ASKED, **FOUR).tokens
    assert [step.tokens[0] for step in vt.stream(name, ASKED, **FOUR)] == expected[0]
    assert vt.trace(name, ASKED, **FOUR).tokens == expected[0]
    assert vt.score(name, ASKED, ["left", "right"]).best == vt.score(model, ASKED, ["left", "right"]).best
    row = vt.TokenSequence.join([model.render([{"role": "user", "content": ASKED}]), vt.TokenSequence.of([9] * 3)])
    assert vt.fill(name, row, at=9).tokens == vt.fill(model, row, at=9).tokens


def test_a_name_is_loaded_once_and_anew_when_its_folder_changes(tmp_path: Path, monkeypatch):
    calls = []
    monkeypatch.setattr(verbs, "load", lambda name: calls.append(name) or vt.load(name))
    folder = tmp_path / "model"
    shutil.copytree(tiny_checkpoint("tiny-llama2"), folder)
    monkeypatch.chdir(tmp_path)
    one = verbs.named(folder)
    assert verbs.named("model") is one is verbs.named(str(folder / ".." / "model"))
    assert len(calls) == 1
    os.utime(folder / "model.safetensors", (1, 1))
    assert verbs.named(folder) is not one
    assert len(calls) == 2
    assert verbs.named(one) is one
    with pytest.raises(UnknownNameError, match="`tiny-llama2`"):
        vt.generate("tiny-lama2", ASKED)


def test_check_takes_a_name_and_a_model():
    report = vt.check("tiny-llama2", only=["bos"])
    assert report.passed
    assert [one.name for one in report.results] == ["bos"]
    model = vt.load("tiny-llama2")
    assert vt.check(model, only=["bos"]).passed
    with pytest.raises(ConfigError, match="dtype: the model is loaded already"):
        vt.check(model, only=["bos"], dtype="float32")
    with pytest.raises(UnknownNameError, match="`bos`"):
        vt.check("nothing/at-all", only=["boss"])


def test_a_run_and_what_it_leaves(tmp_path: Path):
    outcome = vt.train("chat-lora", ["seed=3"], out=tmp_path / "run", tiny=True)
    assert outcome.done
    assert (tmp_path / "run" / "run.yaml").is_file()
    assert vt.generate(tmp_path / "run", ASKED, **FOUR).lengths == [4]
    planned = vt.plan("chat-lora", gpus=2, memory=24)
    assert (planned.gpus, planned.memory) == (2, 24e9)
