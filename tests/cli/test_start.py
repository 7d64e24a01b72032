"""What needs no weights needs no torch: helps, tables, facts that were read before, and every message about a wrong name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vertebra.backbone.registry import load_backbone
from vertebra.backbone.tiny import tiny_checkpoint
from vertebra.cli.info import info_of
from vertebra.cli.main import COMMANDS

HEAVY = ("torch", "transformers", "accelerate", "peft", "datasets", "matplotlib")
LONG = "a" * 5000
# command line -> what its message says
WRONG_NAMES = {
    "models --family llama": "unknown family",
    "info tiny-lama2": "Did you mean `tiny-llama2`",
    "info /none/such": "there is no folder",
    "info ./none": "there is no folder",
    f"info {LONG}": "File name too long",
    f"info a/{LONG}": "File name too long",
    "check tiny-lama2": "Did you mean `tiny-llama2`",
    "check /none": "there is no folder",
    "tiny --family lama2 x": "Did you mean `llama2`",
    "prompt tiny-lama2 --user a": "Did you mean `tiny-llama2`",
    "prompt /none --user a": "there is no folder",
    "generate tiny-lama2 hi": "Did you mean `tiny-llama2`",
    "generate /none hi --regex a": "there is no folder",
    "trace tiny-lama2 hi": "Did you mean `tiny-llama2`",
    "score tiny-lama2 hi a": "Did you mean `tiny-llama2`",
    "plan chat-ful": "Did you mean `chat-full`",
    f"plan {LONG}": "File name too long",
    "plan chat-full --set optim.lrr=1 --set data.blok=2": "unknown setting `data.blok`",
    "plan chat-full --set model.backbone=tiny-lama2": "Did you mean `tiny-llama2`",
    "train chat-ful": "Did you mean `chat-full`",
    "train chat-full --set optim.lr=nan --set optim.bach=2": "unknown setting `optim.bach`",
    "train chat-lora --tiny --nproc 0": "--nproc is 0; expected 1 or more",
    "train chat-lora --tiny --nproc 999999": "on this machine at most",
    "sim collect --tasks a --out b --workers 999999": "--workers is 999999; expected 1 or more, and on this machine at most",
    "sim eval a --tasks b --out c --workers 999999": "on this machine at most",
    "merge tiny-lama2 a b": "Did you mean `tiny-llama2`",
    "merge tiny-llama2 /none b": "there is no folder",
    "export /none b": "holds no run",
    "report /none": "is no run",
    "act tiny-lama2 -i a": "Did you mean `tiny-llama2`",
    "act /none -i a": "there is no folder",
    "statistics /none": "there is no folder",
    "serve tiny-lama2": "Did you mean `tiny-llama2`",
    "serve /none": "there is no folder",
    "serve tiny-llama2 --port 70000": "at most 65535",
    "serve tiny-llama2 --host=": "host is empty",
}


def loaded(lines: list[str]) -> dict[str, dict[str, object]]:
    """Commands one after the other in one new process: exit code, output, and what heavy was imported by then."""
    code = (
        "import contextlib, io, json, sys\n"
        "from vertebra.cli.main import run\n"
        "found = {}\n"
        "for line in sys.argv[1:]:\n"
        "    sys.argv, code, out, err = ['vertebra', *line.split()], 0, io.StringIO(), io.StringIO()\n"
        "    try:\n"
        "        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err): run()\n"
        "    except SystemExit as left: code = left.code or 0\n"
        f"    heavy = [m for m in {HEAVY!r} if m in sys.modules]\n"
        "    said = ' '.join(err.getvalue().split())\n"
        "    found[line] = {'code': code, 'heavy': heavy, 'out': out.getvalue(), 'err': said}\n"
        "print(json.dumps(found))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *lines], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_wrong_names_import_no_torch():
    for line, ran in loaded(list(WRONG_NAMES)).items():
        assert ran["code"] == 1, (line[:80], ran["err"])
        assert WRONG_NAMES[line] in str(ran["err"]), (line[:80], ran["err"])
        assert ran["heavy"] == [], line[:80]


def test_helps_and_tables_import_no_torch():
    lines = ["--help", "--version", "models", "models --json", "tiny --list", *(f"{name} --help" for name in COMMANDS)]
    for line, ran in loaded(lines).items():
        assert (ran["code"], ran["heavy"]) == (0, []), line


def test_facts_are_read_off_a_model_once(vertebra, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Told again they are the same, and need no torch; a model that changed is read anew."""
    source = tiny_checkpoint("tiny-gemma3")
    folder = tmp_path / "model"
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    monkeypatch.setenv("VERTEBRA_CACHE", str(tmp_path / "cache"))
    plain = json.loads(json.dumps(info_of(load_backbone(folder, inference_mode=True))))
    first = json.loads(vertebra("info", str(folder), "--json").out)
    again = loaded([f"info {folder} --json"])[f"info {folder} --json"]
    assert again["heavy"] == []
    assert first == plain == json.loads(str(again["out"]))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "sliding_window": 4}))
    assert json.loads(vertebra("info", str(folder), "--json").out)["config"]["window"] == 4
    assert len(list((tmp_path / "cache" / "info").iterdir())) == 2


@pytest.mark.parametrize("damage", ["{", "", "[]", "null"])
def test_a_damaged_or_unwritable_memory_costs_time_alone(
    vertebra, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, damage: str
):
    folder = str(tiny_checkpoint("tiny-llama2"))
    monkeypatch.setenv("VERTEBRA_CACHE", str(tmp_path))
    first = vertebra("info", folder, "--json").out
    (kept,) = (tmp_path / "info").iterdir()
    kept.write_text(damage)
    assert vertebra("info", folder, "--json").out == first
    assert kept.read_text() != damage
    monkeypatch.setenv("VERTEBRA_CACHE", os.devnull)
    assert vertebra("info", folder, "--json").out == first
