"""Checkpoints: whole or absent, damage is found, the newest good one is found, a full disk loses nothing."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from vertebra.errors import CheckpointError
from vertebra.train import checkpoint


def snapshot(step: int = 1) -> checkpoint.Snapshot:
    return checkpoint.Snapshot(
        step=step,
        weights={"a": torch.full((3,), float(step))},
        payload={"optimizer": {"state": {0: {"step": torch.tensor(1.0)}}}, "list": [1, "x", None]},
        state={"step": step},
    )


def test_what_is_written_is_read(tmp_path: Path):
    path = checkpoint.write(tmp_path, snapshot())
    assert checkpoint.faults(path) == []
    assert torch.equal(checkpoint.read_weights(path)["a"], torch.ones(3))
    assert checkpoint.read_payload(path)["list"] == [1, "x", None]
    assert checkpoint.read_state(path) == {"step": 1}


@pytest.mark.parametrize("name", [checkpoint.WEIGHTS, checkpoint.OPTIMIZER, checkpoint.STATE, checkpoint.MANIFEST])
@pytest.mark.parametrize("how", ["missing", "truncated", "flipped"])
def test_damage_is_found_and_the_one_before_taken(name: str, how: str, tmp_path: Path):
    good, bad = checkpoint.write(tmp_path, snapshot(1)), checkpoint.write(tmp_path, snapshot(2))
    file = bad / name
    data = bytearray(file.read_bytes())
    if how == "missing":
        file.unlink()
    elif how == "truncated":
        file.write_bytes(data[:-1])
    else:
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    if not (name == checkpoint.MANIFEST and how == "flipped" and not checkpoint.faults(bad)):
        assert checkpoint.newest_good(tmp_path) == good


def test_nothing_good(tmp_path: Path):
    assert checkpoint.newest_good(tmp_path / "none") is None
    path = checkpoint.write(tmp_path, snapshot())
    (path / checkpoint.STATE).unlink()
    assert checkpoint.newest_good(tmp_path) is None


def test_a_full_disk_leaves_the_last_good_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    checkpoint.write(tmp_path, snapshot(1))

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    for asynchronous in (False, True):
        writer = checkpoint.Writer(tmp_path, keep=2, asynchronous=asynchronous)
        with pytest.raises(CheckpointError, match=r"No space left.*Earlier checkpoints are as they were"):
            _save(writer)
    assert [p.name for p in tmp_path.iterdir()] == [checkpoint.name_of(1)]


def test_a_cap_that_spares_the_best(tmp_path: Path):
    writer = checkpoint.Writer(tmp_path, keep=2, asynchronous=True)
    for step in range(1, 6):
        writer.save(snapshot(step), best=2)
    writer.wait()
    assert [checkpoint.step_of(p) for p in checkpoint.checkpoints(tmp_path)] == [2, 4, 5]


def test_what_a_kill_left_is_swept(tmp_path: Path):
    (tmp_path / ".checkpoint-00000002.abc").mkdir()
    (tmp_path / ".other").mkdir()
    checkpoint.sweep(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [".other"]


def test_a_snapshot_does_not_follow_training():
    tensor = torch.ones(2)
    kept = checkpoint.on_cpu({"a": [tensor, {"b": tensor}], "c": 1})
    tensor.zero_()
    assert torch.equal(kept["a"][1]["b"], torch.ones(2))


def _save(writer: checkpoint.Writer) -> None:
    writer.save(snapshot(2), best=None)
    writer.wait()
