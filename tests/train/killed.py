"""A process that starts runs and kills them: `python -m tests.train.killed FOLDER SEED COUNT`.

It builds the model and the data once and forks a child for every run. A child tells each file operation and each
micro-batch before it does it, and waits for leave; the parent counts, and at the chosen count sends SIGKILL instead.
What a write that was cut in its middle leaves is then made by cutting the newest half-written file short.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from vertebra.config import build
from vertebra.train import run as runs
from vertebra.train.config import RunConfig
from vertebra.train.metrics import METRICS, read, without_clock
from vertebra.train.trainer import ExactTrainer

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


def run_child(prepared: Any, folder: Path, *, resume: bool, kill_at: int | None) -> tuple[bool, int]:
    """(finished, events seen). The child is killed before its event number `kill_at`."""
    told, tell = os.pipe()
    waiting, leave = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(told)
        os.close(leave)
        _work(prepared, folder, resume, tell, waiting)
    os.close(tell)
    os.close(waiting)
    events = 0
    # workers hold the pipe open for some seconds longer than the run: its end is told
    while os.read(told, 1) == b".":
        if events == kill_at:
            os.kill(child, signal.SIGKILL)
            break
        events += 1
        os.write(leave, b".")
    os.close(told)
    os.close(leave)
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status)
    if not killed and os.WEXITSTATUS(status):
        raise SystemExit(f"the run failed with {os.WEXITSTATUS(status)}, kill_at={kill_at}")
    return not killed, events


def _work(prepared: Any, folder: Path, resume: bool, tell: int, waiting: int) -> None:
    own = os.getpid()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in WATCHED or os.getpid() != own:
            return
        if event == "test.micro" or str(folder) in str(arguments[0]):
            os.write(tell, b".")
            os.read(waiting, 1)

    before = ExactTrainer.compute_loss

    def told(self: Any, *arguments: Any, **options: Any) -> Any:
        sys.audit("test.micro")
        return before(self, *arguments, **options)

    ExactTrainer.compute_loss = told  # type: ignore[method-assign]
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


def tear(folder: Path, rng: random.Random) -> bool:
    """Cut the newest file of a half-written checkpoint at a seeded byte, as a kill inside its write leaves it."""
    files = [p for part in (folder / "checkpoints").glob(".checkpoint-*") for p in part.rglob("*") if p.is_file()]
    if not files:
        return False
    newest = max(files, key=lambda p: p.stat().st_mtime_ns)
    os.truncate(newest, rng.randrange(newest.stat().st_size + 1))
    return True


def main(folder: Path, seed: int, count: int) -> None:
    data = folder / "chat.jsonl"
    lines = [{"prompt": f"What is {n} plus {n}?", "completion": f"It is {n + n}."} for n in range(24)]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    at = folder / "run"
    prepared = runs.Prepared.of(config(at, data))
    runs.Prepared.of = classmethod(lambda cls, given: prepared)  # type: ignore[method-assign,assignment]
    finished, events = run_child(prepared, at, resume=False, kill_at=None)
    expected = result(at)
    done, torn, twice = [], 0, 0
    rng = random.Random(seed)
    start = time.perf_counter()
    for number in range(count):
        at.rename(folder / f"before-{number}")
        # one position in every stretch of the run, so that training and saving are both hit
        kill_at = rng.randrange(events * number // count, events * (number + 1) // count)
        finished, _ = run_child(prepared, at, resume=False, kill_at=kill_at)
        torn += tear(at, rng)
        if number % 3 == 0 and not finished:
            finished, _ = run_child(prepared, at, resume=at.is_dir(), kill_at=rng.randrange(events))
            twice += 1
        if not finished:
            run_child(prepared, at, resume=at.is_dir(), kill_at=None)
        done.append([kill_at, result(at) == expected])
    seconds = time.perf_counter() - start
    print(
        json.dumps({"events": events, "expected": expected, "done": done, "torn": torn, "twice": twice, "s": seconds})
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
