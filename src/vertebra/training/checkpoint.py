"""Checkpoints that are whole or absent: written aside, flushed, renamed; verified by size and hash before use.

    checkpoint-00000120/
      weights.safetensors   what training changes (a shard a rank where training is sharded)
      optimizer.pt          optimizer, schedule, scaler, random generators of every rank
      optimizer.safetensors their tensors
      state.json            step, position in the data, counters, best value, the config
      trainer_state.json    what the Trainer itself restores
      manifest.json         size and SHA-256 of every file

A kill at any byte leaves the earlier ones as they were. It knows files and tensors, no model.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from vertebra import log
from vertebra.backbone.tensorfile import save_tensors
from vertebra.errors import CheckpointError
from vertebra.folders import write_whole
from vertebra.reading import json_of

FORMAT = 1
MANIFEST, WEIGHTS, OPTIMIZER, STATE = "manifest.json", "weights.safetensors", "optimizer.pt", "state.json"
# apart, for it is read by mapping, and written without the interpreter's lock, so that training goes on meanwhile
TENSORS = "optimizer.safetensors"
_TENSOR = "tensor of"  # stands in a tree in place of one
_PREFIX = "checkpoint-"


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Everything of one checkpoint, in memory and no longer changed by training."""

    step: int
    weights: Mapping[str, torch.Tensor]
    """Tensors on the CPU."""
    payload: Mapping[str, Any]
    """Optimizer, schedule, scaler, generators."""
    state: Mapping[str, Any]
    """Plain values."""
    trainer_state: str = "{}"


def name_of(step: int) -> str:
    return f"{_PREFIX}{step:08d}"


def step_of(folder: Path) -> int:
    return int(folder.name.removeprefix(_PREFIX))


def write(folder: Path, snapshot: Snapshot) -> Path:
    """Write one checkpoint into a folder of checkpoints."""

    def fill(part: Path) -> None:
        known = {WEIGHTS: save_tensors(snapshot.weights, part / WEIGHTS)}
        write_beside(part, snapshot.step, snapshot.payload, snapshot.state, snapshot.trainer_state, known=known)

    return write_with(folder, snapshot.step, fill)


def write_beside(
    part: Path,
    step: int,
    payload: Any,
    state: Mapping[str, Any],
    trainer_state: str,
    *,
    known: Mapping[str, str] | None = None,
) -> None:
    """Everything of a checkpoint but its weights, and the manifest of all; hashes that are `known` are not made again."""
    tensors: dict[str, torch.Tensor] = {}

    def taken(tensor: torch.Tensor, place: str) -> dict[str, str]:
        tensors[place] = tensor
        return {_TENSOR: place}

    tree = _mapped(payload, "", taken)
    marks = {**(known or {}), TENSORS: save_tensors(tensors, part / TENSORS)}
    torch.save(tree, part / OPTIMIZER)
    (part / STATE).write_text(json.dumps(state, ensure_ascii=False), encoding="utf-8")
    (part / "trainer_state.json").write_text(trainer_state, encoding="utf-8")
    write_manifest(part, step, marks)


def write_with(folder: Path, step: int, fill: Callable[[Path], None]) -> Path:
    """One checkpoint whose files `fill` writes, whole or not at all."""
    try:
        return write_whole(folder / name_of(step), fill, replace=True)
    except OSError as error:
        raise CheckpointError(
            f"the checkpoint of step {step} cannot be written to `{folder}`: {error}. Earlier checkpoints are as they "
            "were; make room, then go on with --resume"
        ) from error


def write_manifest(part: Path, step: int, known: Mapping[str, str]) -> None:
    names = [str(p.relative_to(part)) for p in sorted(part.rglob("*")) if p.is_file()]
    files = {name: _mark(part / name, known.get(name)) for name in names}
    manifest = {"format": FORMAT, "step": step, "files": files}
    (part / MANIFEST).write_text(json.dumps(manifest | {"sha256": _digest(manifest)}, indent=1))


def _digest(manifest: Mapping[str, Any]) -> str:
    """Of the manifest itself: the one file that no other marks."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _mark(path: Path, known: str | None = None) -> dict[str, Any]:
    return {"size": path.stat().st_size, "sha256": known or _hash(path)}


def _hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def faults(folder: Path) -> list[str]:
    """What is wrong with a checkpoint; empty where it is good."""
    try:
        manifest = json_of((folder / MANIFEST).read_bytes())
    except (OSError, ValueError) as error:
        return [f"its manifest cannot be read ({error})"]
    if not isinstance(manifest, dict) or manifest.pop("sha256", None) != _digest(manifest):
        return ["its manifest has other content than was written"]
    if manifest["format"] != FORMAT:
        return [f"it has format {manifest.get('format')}; this version reads {FORMAT}"]
    found = []
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            found.append(f"{name} is missing")
        elif path.stat().st_size != expected["size"]:
            found.append(f"{name} has {path.stat().st_size} bytes, expected {expected['size']}")
        elif _hash(path) != expected["sha256"]:
            found.append(f"{name} has other content than was written")
    return found


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a folder, oldest first, good or not."""
    if not folder.is_dir():
        return []
    names = [p for p in folder.iterdir() if p.is_dir() and p.name.startswith(_PREFIX)]
    return sorted((p for p in names if p.name.removeprefix(_PREFIX).isdigit()), key=step_of)


def newest_good(folder: Path) -> Path | None:
    """The newest checkpoint that is whole; damaged ones are named and passed over."""
    for path in reversed(checkpoints(folder)):
        wrong = faults(path)
        if not wrong:
            return path
        log.warn(f"`{path}` is damaged and passed over: {'; '.join(wrong)}")
    return None


def sweep(folder: Path) -> None:
    """Remove what a kill left half-written."""
    if folder.is_dir():
        for path in folder.iterdir():
            if path.is_dir() and path.name.startswith(f".{_PREFIX}"):
                shutil.rmtree(path, ignore_errors=True)


def prune(folder: Path, *, keep: int, best: int | None) -> None:
    """Remove the oldest beyond `keep`, never the best. Each vanishes at once, never half."""
    old = [path for path in checkpoints(folder)[:-keep] if step_of(path) != best]
    for path in old:
        gone = path.with_name(f".{path.name}.gone")
        path.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def read_state(folder: Path) -> dict[str, Any]:
    return json.loads((folder / STATE).read_text(encoding="utf-8"))


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / WEIGHTS)


def read_payload(folder: Path) -> dict[str, Any]:
    tree = torch.load(folder / OPTIMIZER, weights_only=True, map_location="cpu")
    return _with_tensors(tree, load_file(folder / TENSORS))


def _with_tensors(tree: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """A tree with its tensors in their places again. They are copied: a mapped file may be removed or cut."""
    if isinstance(tree, dict):
        if tree.keys() == {_TENSOR}:
            return tensors[tree[_TENSOR]].clone()
        return {key: _with_tensors(item, tensors) for key, item in tree.items()}
    return [_with_tensors(item, tensors) for item in tree] if isinstance(tree, list) else tree


class SnapshotWriter:
    """Writes snapshots one after the other, in the background where asked; a failure surfaces at the next call."""

    def __init__(self, folder: Path, *, keep: int, asynchronous: bool, first: Callable[[], None] | None = None) -> None:
        self.folder, self.keep, self.asynchronous = folder, keep, asynchronous
        self.first = first
        """What must have reached the disk before a checkpoint that counts on it."""
        self._memory = SnapshotMemory()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def held(self, value: Any, name: str) -> Any:
        """A value as it is now, until it is written: a copy where training goes on meanwhile."""
        if not self.asynchronous:
            return on_cpu(value, copy=False)
        self.wait()  # the former snapshot lies in the same memory
        return self._memory.held(value, name)

    def save(self, snapshot: Snapshot, *, best: int | None) -> None:
        self.wait()
        if not self.asynchronous:
            self._write(snapshot, best)
            return

        def work() -> None:
            _step_back()
            try:
                self._write(snapshot, best)
            except BaseException as error:  # handed to the training thread, which raises it
                self._error = error

        # no daemon: a clean exit waits for a checkpoint that is being written
        self._thread = threading.Thread(target=work, name="checkpoint")
        self._thread.start()

    def check(self) -> None:
        """Raise what a write in the background failed with, without waiting for one that goes on."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def wait(self) -> None:
        self.join()
        self.check()

    def join(self) -> None:
        """Until nothing is being written; a failure is left to whoever checks."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _write(self, snapshot: Snapshot, best: int | None) -> None:
        if self.first is not None:
            self.first()
        write(self.folder, snapshot)
        prune(self.folder, keep=self.keep, best=best)


def _step_back() -> None:
    """Let the training have the processor where both want it: on Linux a thread has a priority of its own."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


class SnapshotMemory:
    """Room on the CPU for one snapshot, used again by the next: new pages would cost more than the copy itself."""

    def __init__(self) -> None:
        self._rooms: dict[str, torch.Tensor] = {}

    def held(self, value: Any, name: str) -> Any:
        """Nested state, every tensor copied into the room of its place."""

        def copy(tensor: torch.Tensor, place: str) -> torch.Tensor:
            room = self._rooms.get(place)
            if room is None or room.shape != tensor.shape or room.dtype != tensor.dtype:
                room = self._rooms[place] = torch.empty(tensor.shape, dtype=tensor.dtype)
            return room.copy_(tensor.detach())

        return _mapped(value, name, copy)


def on_cpu(value: Any, *, copy: bool = True) -> Any:
    """Nested state with every tensor on the CPU; copied, training may go on changing its own."""
    return _mapped(value, "", lambda tensor, _: tensor.detach().to("cpu", copy=copy).contiguous())


def _mapped(value: Any, name: str, work: Callable[[torch.Tensor, str], Any]) -> Any:
    if isinstance(value, torch.Tensor):
        return work(value, name)
    if isinstance(value, Mapping):
        return {key: _mapped(item, f"{name}/{key}", work) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_mapped(item, f"{name}/{number}", work) for number, item in enumerate(value)]
    return value
