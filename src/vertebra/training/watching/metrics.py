"""`metrics.jsonl`: one row a line, written whatever else is watching, and cut back exactly when a run resumes.

    {"step": 20, "epoch": 0.5, "loss": 2.31, "lr": 2e-05, "grad_norm": 0.8, "tokens": 20480, "clock": {…}}
    {"step": 20, "eval": {"loss": 2.4, "tokens": 4096}, "clock": {…}}

Everything that a clock says stands under `clock`; the rest is the same in every run of the same config.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from vertebra.errors import CheckpointError
from vertebra.folders import write_file
from vertebra.reading import json_of

METRICS = "metrics.jsonl"


class MetricsFile:
    """The metrics file of a run, open for appending."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / METRICS

    def add(self, row: dict[str, Any]) -> None:
        line = json.dumps(row, ensure_ascii=False)
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise self._lost(error) from error

    def _lost(self, error: OSError) -> CheckpointError:
        return CheckpointError(f"`{self.path}` cannot be written: {error}. Make room, then go on with --resume")

    def flush(self) -> None:
        """On the disk, before a checkpoint that counts on it."""
        if self.path.exists():
            handle = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(handle)
            except OSError as error:  # some disks notice only now that they are full
                raise self._lost(error) from error
            finally:
                os.close(handle)

    def cut_back(self, step: int) -> None:
        """Drop rows after a step, and a line that a kill left half-written."""
        kept = [row for row in read(self.path) if row["step"] <= step]
        write_file(self.path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics file; a last line without an end is none."""
    if not path.is_file():
        return []
    rows = []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines[:-1], 1):
        try:
            row = json_of(line)
        except ValueError:
            break  # what follows a torn line was never confirmed by a checkpoint
        wrong = _wrong(row)
        if wrong:
            raise CheckpointError(f"`{path}`, line {number}: {wrong}. Take the line out, or the file")
        rows.append(row)
    return rows


def _wrong(row: Any) -> str:
    """Why this is no row of metrics; empty where it is one."""
    if not isinstance(row, dict):
        return f"a row is an object, not a {type(row).__name__}"
    if type(row.get("step")) is not int or not 0 <= row["step"] < 2**63:
        return f"its step is {row.get('step')!r:.40}; expected a whole number"
    wrong = [name for name in ("clock", "eval") if not isinstance(row.get(name, {}), dict)]
    return f"`{wrong[0]}` is {row[wrong[0]]!r:.40}; expected names with numbers" if wrong else ""


def without_clock(row: dict[str, Any]) -> dict[str, Any]:
    """A row as it is in every run."""
    return {name: value for name, value in row.items() if name != "clock"}
