"""Benchmarks take minutes, so that no test runs them whole; that they call what there is, as it is called, is checked here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def checked(*paths: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    """As `make check` does it; lambdas that bind a loop's variables have no type for it to find (`misc`)."""
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--disable-error-code",
        "misc",
        "--cache-dir",
        str(cache),
        *map(str, paths),
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_every_benchmark_calls_what_there_is(tmp_path: Path):
    made = checked(ROOT / "benchmarks", cache=tmp_path / "cache")
    assert made.returncode == 0, made.stdout
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "from vertebra.model.encoding import encode_items\n\n"
        "encode_items({}, 1)\nencode_items({}, 1, 2, 3)\nencode_items.nowhere\n"
    )
    found = checked(wrong, cache=tmp_path / "cache")
    assert found.returncode == 1
    assert all(code in found.stdout for code in ("[call-arg]", "[arg-type]", "[attr-defined]")), found.stdout
