"""A process that starts runs and kills them: `python -m tests.training.killed FOLDER SEED COUNT`.

It builds the model and the data once and forks a child for every run. A child tells each file operation and each
micro-batch before it does it, and waits for leave; the parent counts, and at the chosen count sends SIGKILL instead.
Or, from there on, no file may grow beyond a chosen byte, and the kernel ends the child in the write that would: in the
middle of a checkpoint's file. After some kills the last lines of the metrics are cut short too, as a power cut does.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import random
import resource
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

from vertebra.config import build, read_mapping
from vertebra.training import checkpoint
from vertebra.training import run as runs
from vertebra.training.config import RunConfig
from vertebra.training.lock import LOCK
from vertebra.training.trainer import ExactTrainer
from vertebra.training.watching import plots
from vertebra.training.watching.metrics import METRICS, read, without_clock

WATCHED = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "test.micro")


def config(folder: Path, data: Path) -> RunConfig:
    tree = {
        "name": "killed",
        "model": {"backbone": "tiny-gpt2", "max_length": 64},
        "data": {"kind": "chat", "path": str(data), "workers": 1, "held_out": 0.1},
        "tune": {"stage": "lora", "lora": {"r": 2, "dropout": 0.1}},
        "optim": {"lr": 1e-2, "batch": 2, "accumulate": 2, "warmup": 0},
        "eval": {"every": 3},
        "save": {"every": 2, "keep": 2},
        "watch": {"every": 1, "bar": False},
        "steps": 5,
        "out": str(folder),
    }
    return build(RunConfig, tree)


def run_child(
    prepared: Any, folder: Path, *, resume: bool, kill_at: int | None, byte: int | None = None
) -> tuple[bool, int]:
    """(finished, events seen). The child is killed before its event number `kill_at`, or in a write to `byte` after it."""
    heard, tell = os.pipe()
    waiting, leave = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(heard)
        os.close(leave)
        _work(prepared, folder, resume, tell, waiting, byte or 0)
    os.close(tell)
    os.close(waiting)
    events = 0
    gone, status = 0, 0
    # workers hold the pipe open for some seconds longer than the run: its end is told, or seen
    while True:
        if not select.select([heard], [], [], 0.2)[0]:
            gone, status = os.waitpid(child, os.WNOHANG)
            if gone:
                break
            continue
        if os.read(heard, 1) != b".":
            break
        if events == kill_at and byte is None:
            os.kill(child, signal.SIGKILL)
            break
        os.write(leave, b"!" if events == kill_at else b".")
        events += 1
    os.close(heard)
    os.close(leave)
    if not gone:
        _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status)
    if not killed and os.WEXITSTATUS(status):
        raise SystemExit(f"the run failed with {os.WEXITSTATUS(status)}, kill_at={kill_at}")
    return not killed, events


def _work(prepared: Any, folder: Path, resume: bool, tell: int, waiting: int, byte: int) -> None:
    own = os.getpid()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python has it ignored

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in WATCHED or os.getpid() != own:
            return
        if event == "test.micro" or str(folder) in str(arguments[0]):
            os.write(tell, b".")
            if os.read(waiting, 1) == b"!":
                resource.setrlimit(resource.RLIMIT_FSIZE, (byte, byte))

    before = ExactTrainer.compute_loss

    def reported(self: Any, *arguments: Any, **options: Any) -> Any:
        sys.audit("test.micro")
        return before(self, *arguments, **options)

    ExactTrainer.compute_loss = reported  # type: ignore[method-assign]
    sys.addaudithook(hook)
    try:
        runs.train(prepared.config, resume=resume)
    except BaseException:
        import traceback

        traceback.print_exc()
        os.write(tell, b"e")
        os._exit(1)
    os.write(tell, b"e")
    os._exit(0)


def result(folder: Path) -> str:
    """A hash of the final weights and of the metrics, clocks apart."""
    digest = hashlib.sha256()
    for path in sorted((folder / "adapter").glob("lora_adapter*/*.safetensors")):
        digest.update(path.read_bytes())
    rows = [without_clock(row) for row in read(folder / METRICS)]
    digest.update(json.dumps(rows).encode())
    return f"{len(rows)} rows {digest.hexdigest()[:24]}"


def damaged(folder: Path) -> list[str]:
    """Records that a kill left half-written under their names."""
    wrong = []
    for name, reads in (("run.yaml", read_mapping), ("samples.json", lambda path: json.loads(path.read_text()))):
        if (folder / name).is_file():
            try:
                whole = bool(reads(folder / name))
            except ValueError:
                whole = False
            wrong += [] if whole else [name]
    return wrong


def left(folder: Path) -> list[str]:
    """What a finished run has no use for: parts that a kill left behind, and the lock."""
    return sorted(p.name for p in folder.rglob("*") if p.name.startswith(".") or p.name == LOCK)


def half_written(folder: Path) -> int:
    """Checkpoints that a kill left unfinished."""
    return len(list((folder / "checkpoints").glob(".checkpoint-*")))


def tear(folder: Path, rng: random.Random) -> bool:
    """Cut the metrics at a seeded byte among those that no checkpoint counts on."""
    found = checkpoint.newest_good(folder / "checkpoints")
    path = folder / METRICS
    if not path.is_file():
        return False
    step = checkpoint.step_of(found) if found else 0
    lines = path.read_bytes().splitlines(keepends=True)
    sure = sum(len(line) for line in lines if line.endswith(b"\n") and json.loads(line)["step"] <= step)
    size = path.stat().st_size
    os.truncate(path, rng.randrange(sure, size + 1))
    return sure < size


def main(folder: Path, seed: int, count: int) -> None:
    data = folder / "chat.jsonl"
    lines = [{"prompt": f"What is {n} plus {n}?", "completion": f"It is {n + n}."} for n in range(24)]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    at = folder / "run"
    prepared = runs.PreparedRun.of(config(at, data))
    runs.PreparedRun.of = classmethod(lambda cls, given: prepared)  # type: ignore[method-assign,assignment]
    # what every child would load anew, or look through for garbage
    plots.draw([{"step": 1, "loss": 1.0}], folder)
    gc.freeze()
    finished, events = run_child(prepared, at, resume=False, kill_at=None)
    expected = result(at)
    largest = max(p.stat().st_size for p in (at / "checkpoints").rglob("*") if p.is_file())
    done, torn, twice, inside, wrong = [], 0, 0, 0, []
    rng = random.Random(seed)
    start = time.perf_counter()
    for number in range(count):
        at.rename(folder / f"before-{number}")
        # one position in every stretch of the run, so that training and saving are both hit
        kill_at = rng.randrange(events * number // count, events * (number + 1) // count)
        # every second one at a byte, of a file that is written from there on
        byte = rng.randrange(largest if number % 4 == 1 else 2000) if number % 2 else None
        finished, _ = run_child(prepared, at, resume=False, kill_at=kill_at, byte=byte)
        inside += half_written(at)
        wrong += damaged(at)
        torn += tear(at, rng) if not finished and number % 4 < 2 else 0
        if number % 3 == 0 and not finished:
            again = rng.randrange(events)
            finished, _ = run_child(
                prepared, at, resume=at.is_dir(), kill_at=again, byte=byte and rng.randrange(largest)
            )
            twice += 1
        if not finished:
            run_child(prepared, at, resume=at.is_dir(), kill_at=None)
        done.append([kill_at, byte, result(at) == expected and not left(at)])
    seconds = time.perf_counter() - start
    found = {"done": done, "inside": inside, "torn": torn, "twice": twice, "damaged": wrong}
    print(json.dumps({"events": events, "s": seconds, **found}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
