"""What is kept of an episode, each in a file that appears whole: an evaluation that was killed goes on where it was."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vertebra.errors import DataError
from vertebra.folders import write_file


@dataclass(frozen=True, kw_only=True)
class EpisodeRecord:
    """One episode of one arm."""

    arm: str
    task: str
    number: int
    seed: int
    instruction: str
    """What was asked, whatever the task is."""
    success: bool
    steps: int
    decisions: int
    broken: str | None = None
    """What the simulator failed by: such an episode says nothing of the policy."""
    refused: str | None = None
    """Why the policy gave no action (NaN, beyond its data …): such an episode is lost."""
    outside: int = 0
    """Numbers of actions beyond everything that the policy's data had: passed on or cut, by settings."""
    not_a_number: int = 0
    milliseconds: Sequence[float] = field(default=())
    """Of each decision."""
    actions: str = ""
    """What was carried out, [steps, dims] 32-bit floats in base64: a film needs nothing else."""

    @property
    def same(self) -> dict[str, Any]:
        """All of it that is the same on every machine: without times."""
        return {name: value for name, value in vars(self).items() if name != "milliseconds"}

    def carried_out(self) -> np.ndarray:
        """[steps, dims]"""
        flat = np.frombuffer(base64.b64decode(self.actions), "<f4")
        return flat.reshape(self.steps, -1) if self.steps else flat.reshape(0, 0)

    def changes(self) -> np.ndarray:
        """[steps - 1]: how far each action lies from the one before, in the mean of its numbers."""
        done = self.carried_out()
        return np.abs(np.diff(done, axis=0)).mean(1) if len(done) > 1 else np.zeros(0, np.float32)


def packed(actions: Sequence[np.ndarray]) -> str:
    """Actions as a record holds them."""
    return base64.b64encode(np.asarray(actions, "<f4").tobytes()).decode()


def place(folder: Path, arm: str, task: str, number: int) -> Path:
    """Where a record lies."""
    return folder / "episodes" / arm / task / f"{number:05d}.json"


def write_record(folder: Path, record: EpisodeRecord) -> None:
    """Keep a record; its file is there whole, or not at all."""
    path = place(folder, record.arm, record.task, record.number)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, json.dumps({**vars(record), "milliseconds": list(record.milliseconds)}))


def read_record(folder: Path, arm: str, task: str, number: int, *, seed: int) -> EpisodeRecord | None:
    """The record that is kept, or None; that of another episode is refused."""
    path = place(folder, arm, task, number)
    if not path.is_file():
        return None
    try:
        record = EpisodeRecord(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, OSError) as error:
        raise DataError(f"`{path}` is no record of an episode: {error}. Delete it, and it is run again") from error
    if (record.arm, record.task, record.number, record.seed) != (arm, task, number, seed):
        raise DataError(
            f"`{path}` is the record of another episode: of {record.arm}, {record.task} {record.number} with the seed "
            f"{record.seed}; expected the seed {seed}. Delete it, and it is run again"
        )
    return record
