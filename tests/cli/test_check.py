"""`vertebra check`: the table, the JSON, the exit code, the selection; once in a process of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from vertebra.backbone.families.models import FAMILIES, MODELS, ModelRow
from vertebra.backbone.tiny import tiny_checkpoint, write_tiny
from vertebra.checks.catalog import CHECKS
from vertebra.cli import check as command


@pytest.fixture
def broken(monkeypatch):
    """An OPT whose row says that it isolates packed documents by position, which it does not."""
    monkeypatch.setitem(FAMILIES, "opd", replace(FAMILIES["opt"], name="opd", isolates_by_position=True))
    monkeypatch.setitem(MODELS, "opd-1", ModelRow("opd-1", "opd", str(tiny_checkpoint("tiny-opt"))))
    return "opd-1"


def only_progress(reply: str) -> bool:
    """A slow machine hears where the run is, and nothing else."""
    return all(re.fullmatch(rf"\d+ of {len(CHECKS)}: [a-z-]+", line) for line in reply.splitlines())


def test_a_sound_model(vertebra):
    done = vertebra("check", "tiny-gemma3")
    assert done.code == 0
    rows = {line.split()[0]: line.split()[1] for line in done.out.splitlines() if len(line.split()) > 1}
    assert {name: rows[name] for name in CHECKS} == dict.fromkeys(CHECKS, "pass")
    assert f"{len(CHECKS)} passed, 0 failed, 0 do not apply" in done.out
    assert only_progress(done.err)


def test_a_broken_model(vertebra, broken):
    done = vertebra("check", broken)
    assert done.code == 1
    lines = done.out.splitlines()
    assert [line.split()[0] for line in lines if " fail " in line] == ["packed"]
    assert f"packed: {CHECKS['packed'].mend}" in lines
    assert "1 failed" in lines[-1]


def test_json(vertebra, broken):
    done = vertebra("check", broken, "--json", "--skip", "gradients-full,gradients-lora", "--skip", "save-load")
    assert done.code == 1
    data = json.loads(done.out)
    assert data["passed"] is False
    left_out = {"gradients-full", "gradients-lora", "save-load"}
    assert [check["name"] for check in data["checks"]] == [name for name in CHECKS if name not in left_out]
    (failed,) = [check for check in data["checks"] if check["status"] == "fail"]
    assert failed["name"] == "packed"
    assert failed["number"] > 0.5
    assert failed["mend"] == CHECKS["packed"].mend


def test_only(vertebra):
    data = json.loads(vertebra("check", "tiny-gpt2", "--only", "cached,bos", "--only", "pad", "--json").out)
    assert [check["name"] for check in data["checks"]] == ["bos", "pad", "cached"]


def test_number_type_and_kernel(vertebra):
    arguments = ("--only", "batch", "--dtype", "bf16", "--attn", "eager", "--json")
    data = json.loads(vertebra("check", "tiny-llama3", *arguments).out)
    assert data["facts"]["dtype"] == "bfloat16"
    assert data["facts"]["attention"] == "eager"
    assert data["checks"][0]["bound"] == "≤ 6.0e-02"


def test_a_folder_shows_its_guesses(vertebra, tmp_path):
    folder = write_tiny("tiny-pythia", tmp_path / "mine")
    out = vertebra("check", str(folder), "--only", "prompt-ids", "--builder", "chatml").out
    assert "builder `chatml`" in out
    assert "No family describes this model" in out
    assert "GPTNeoXLayer at `gpt_neox.layers`" in out


def test_the_list(vertebra):
    out = vertebra("check", "--list").out
    assert all(name in out for name in CHECKS)
    output = json.loads(vertebra("check", "--list", "--json", "--only", "packed").out)
    assert [row["name"] for row in output] == ["packed"]
    assert "OPT" in output[0]["breaks_on"]


def test_bad_input(vertebra):
    done = vertebra("check", "tiny-llama2", "--only", "left-paded")
    assert done.code == 1
    assert "`left-padded`" in done.err
    done = vertebra("check", "tiny-lama2")
    assert done.code == 1
    assert "`tiny-llama2`" in done.err
    done = vertebra("check", "tiny-llama2", "--dtype", "fp23")
    assert done.code == 1
    assert "Did you mean" in done.err
    done = vertebra("check", "tiny-llama2", "--device", "gpu")
    assert done.code == 1
    assert "unknown device `gpu`" in done.err
    assert vertebra("check").code == 2


def test_progress_in_a_pipe_waits_for_a_while(monkeypatch, capsys):
    with command.progress() as say:
        say("bos", 1, 2)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(command, "_QUIET_FOR", -1.0)
    with command.progress() as say:
        say("pad", 2, 2)
    assert capsys.readouterr().err == "2 of 2: pad\n"


def test_as_a_process():
    code = "import sys\nfrom vertebra.cli.main import run\nsys.argv = ['vertebra', 'check', 'tiny-gpt2']\nrun()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{len(CHECKS) - 5} passed, 0 failed, 5 do not apply" in done.stdout
    assert only_progress(done.stderr)


def test_nothing_passes_for_not_being_looked_at(vertebra):
    done = vertebra("check", "tiny-llama2", "--only", "bos,pad", "--skip", "pad", "--skip", "bos")
    assert done.code == 1
    assert "leave no check" in done.err
