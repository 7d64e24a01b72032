"""Folders and data files, mutated by the hundred (by the thousand with `make fuzz`): refused in our words, and soon.

The seed is fixed and the time is a box: on a slow machine fewer cases run, and none of them may be foreign, hung, or
read outside its folder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

CASES = int(os.environ.get("VERTEBRA_FUZZ_CASES", "600"))
SECONDS = float(os.environ.get("VERTEBRA_FUZZ_SECONDS", "40"))
FIRST = int(os.environ.get("VERTEBRA_FUZZ_FIRST", "0"))


@pytest.mark.timeout(SECONDS + 1800)
@pytest.mark.parametrize("what", ["models", "data"])
def test_nothing_that_a_file_holds_ends_in_a_foreign_traceback(what: str):
    """In a process of its own: a crash of the whole process is a fault like others."""
    command = [sys.executable, "-m", f"tests.fuzz.{what}", "--first", FIRST, "--cases", CASES, "--seconds", SECONDS]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    last = lines[-1] if lines else done.stderr[-2000:]
    assert done.returncode == 0, f"the process ended with {done.returncode} in {last}"
    faults = [line for line in lines[:-1] if line["end"] not in ("begun", "loaded", "refused")]
    assert not faults, "\n".join(f"{line['case']}: {line['end']}: {line['what']}: {line['error']}" for line in faults)
    # that every sound folder loads is what makes a refusal tell something
    assert last["sound"]["loaded"] == sum(last["sound"].values())
    assert last["ends"].get("loaded")
    assert last["ends"].get("refused")
