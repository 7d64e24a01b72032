"""Checkpoints: whole or absent, damage is found, the newest good one is found, a full disk loses nothing."""

from __future__ import annotations

import errno
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vertebra.errors import CheckpointError
from vertebra.training import checkpoint


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


FILES = [checkpoint.WEIGHTS, checkpoint.OPTIMIZER, checkpoint.TENSORS, checkpoint.STATE, checkpoint.MANIFEST]


@pytest.mark.parametrize("name", FILES)
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
    assert checkpoint.faults(bad)
    assert checkpoint.newest_good(tmp_path) == good


@settings(max_examples=40)
@given(data=st.data())
def test_no_byte_may_differ(data: st.DataObject):
    with tempfile.TemporaryDirectory() as folder:
        path = checkpoint.write(Path(folder), snapshot())
        file = data.draw(st.sampled_from(sorted(p for p in path.iterdir())))
        content = bytearray(file.read_bytes())
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] ^= data.draw(st.integers(1, 255))
        file.write_bytes(content)
        # nothing of its meaning changed where a byte of white space did
        same = file.name == checkpoint.MANIFEST and content.isascii() and bytes([content[at]]).isspace()
        assert same or checkpoint.faults(path)


def test_nothing_good(tmp_path: Path):
    assert checkpoint.newest_good(tmp_path / "none") is None
    path = checkpoint.write(tmp_path, snapshot())
    (path / checkpoint.STATE).unlink()
    assert checkpoint.newest_good(tmp_path) is None


def test_a_full_disk_leaves_the_last_good_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    checkpoint.write(tmp_path, snapshot(1))

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_tensors", full)
    for asynchronous in (False, True):
        writer = checkpoint.SnapshotWriter(tmp_path, keep=2, asynchronous=asynchronous)
        with pytest.raises(CheckpointError, match=r"No space left.*Earlier checkpoints are as they were"):
            _save(writer)
    assert [p.name for p in tmp_path.iterdir()] == [checkpoint.name_of(1)]


def test_a_cap_that_spares_the_best(tmp_path: Path):
    writer = checkpoint.SnapshotWriter(tmp_path, keep=2, asynchronous=True)
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


def test_the_next_snapshot_lies_where_the_former_lay(tmp_path: Path):
    writer = checkpoint.SnapshotWriter(tmp_path, keep=2, asynchronous=True)
    state = {"a": [torch.ones(2), {"b": torch.zeros(3, 2).T}], "c": 1}
    first = writer.held(state, "x")
    state["a"][0].fill_(2)
    second = writer.held(state, "x")
    assert second["a"][0].tolist() == [2, 2]
    assert second["a"][0].data_ptr() == first["a"][0].data_ptr()
    assert second["a"][1]["b"].is_contiguous()
    grown = writer.held({"a": [torch.ones(5)]}, "x")
    assert grown["a"][0].shape == (5,)


def test_memory_waits_for_the_write_that_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    begun, leave = threading.Event(), threading.Event()
    real = checkpoint.save_tensors

    def slow(tensors: Any, path: Path) -> str:
        begun.set()
        leave.wait(20)
        return real(tensors, path)

    monkeypatch.setattr(checkpoint, "save_tensors", slow)
    writer = checkpoint.SnapshotWriter(tmp_path, keep=2, asynchronous=True)
    tensor = torch.ones(4)
    weights = writer.held({"a": tensor}, "weights")
    writer.save(checkpoint.Snapshot(step=1, weights=weights, payload={}, state={}), best=None)
    begun.wait(20)
    threading.Timer(0.1, leave.set).start()
    tensor.zero_()
    writer.held({"a": tensor}, "weights")
    assert checkpoint.read_weights(tmp_path / checkpoint.name_of(1))["a"].tolist() == [1, 1, 1, 1]


def test_a_scaler_goes_there_and_back(tmp_path: Path):
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=1)
    weight = torch.ones(2, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.1)
    scaler.scale(weight.sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    path = checkpoint.write(
        tmp_path, checkpoint.Snapshot(step=1, weights={}, payload={"scaler": scaler.state_dict()}, state={})
    )
    again = torch.amp.GradScaler("cpu")
    again.load_state_dict(checkpoint.read_payload(path)["scaler"])
    again.scale(torch.ones(()))  # makes its tensors
    assert again.get_scale() == scaler.get_scale() == 128.0
    assert again.state_dict() == scaler.state_dict()


def _save(writer: checkpoint.SnapshotWriter) -> None:
    writer.save(snapshot(2), best=None)
    writer.wait()
