"""A process that runs `vertebra train` in processes beside each other: `python -m tests.training.beside FOLDER`.

It imports everything once and forks a child, in a process group of its own, for every run, as a shell or a batch system
starts it. What each of them printed, how it ended and what it left is printed as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.training.terminal import LONG, RECIPE, steps_in
from vertebra.cli.main import run as vertebra
from vertebra.training import checkpoint
from vertebra.training.trainer import ExactTrainer

WORKERS = ("--set", "data.workers=2")


class Run:
    """One `vertebra train`."""

    def __init__(self, folder: Path, *arguments: str, before: Callable[[], object] = lambda: None) -> None:
        self.folder = folder
        self.output = folder.with_name(f"output-{time.monotonic_ns()}")
        self.child = os.fork()
        if self.child == 0:
            os.setpgid(0, 0)
            with open(self.output, "wb") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            before()
            sys.argv = ["vertebra", "train", str(RECIPE), "--out", str(folder), *arguments]
            _work()

    def until_step(self, step: int) -> Run:
        while steps_in(self.folder) < step:
            if os.waitpid(self.child, os.WNOHANG)[0]:
                raise SystemExit(f"a run ended before its step {step}: {self.output.read_text()[-3000:]}")
            time.sleep(0.05)
        return self

    def ended(self) -> dict[str, Any]:
        _, status = os.waitpid(self.child, 0)
        good = checkpoint.newest_good(self.folder / "checkpoints")
        return {
            "code": os.waitstatus_to_exitcode(status),
            "output": self.output.read_text(errors="replace")[-4000:],
            "pid": self.child,
            "last": steps_in(self.folder),
            "good": good and checkpoint.step_of(good),
            "left": sorted(path.name for path in self.folder.iterdir()) if self.folder.is_dir() else None,
        }


def _work() -> None:
    try:
        vertebra()
    except SystemExit as ended:
        sys.stdout.flush()
        os._exit(int(ended.code or 0))
    except BaseException:
        traceback.print_exc()
        os._exit(70)
    os._exit(0)


def slowly() -> None:
    """Steps that take long enough for others to look at a run between two of them."""
    real = ExactTrainer.compute_loss

    def slow(self: Any, *arguments: Any, **options: Any) -> Any:
        time.sleep(0.2)
        return real(self, *arguments, **options)

    ExactTrainer.compute_loss = slow  # type: ignore[method-assign]


def group_signaled(folder: Path) -> list[dict[str, Any]]:
    """SIGTERM to a run and its workers at once, as `timeout` and batch systems send it: at three different steps."""
    found = []
    for step in (1, 2, 5):
        run = Run(folder / f"group-{step}", *LONG, *WORKERS, before=slowly).until_step(step)
        os.killpg(run.child, signal.SIGTERM)
        found.append(run.ended())
    return found


def seconds(folder: Path) -> dict[str, Any]:
    """A run that goes on while others want its folder, that is then killed, and whose folder is free at once."""
    place = folder / "held"
    first = Run(place, *LONG, *WORKERS, before=slowly).until_step(5)
    others = [Run(place, *LONG, *options).ended() for options in ((), ("--resume",), ("--overwrite",))]
    going = os.waitpid(first.child, os.WNOHANG)[0] == 0
    os.kill(first.child, signal.SIGKILL)
    killed = first.ended()
    resumed = Run(place, "--resume", "--set", f"steps={killed['last'] + 2}", *LONG[2:]).ended()
    return {"first": killed, "others": others, "going": going, "resumed": resumed}


def together(folder: Path) -> list[dict[str, Any]]:
    """Two runs that begin in one folder at the same moment."""
    both = [Run(folder / "both", "--set", "steps=3", "--set", "watch.every=1") for _ in range(2)]
    return [run.ended() for run in both]


def main(folder: Path) -> None:
    import peft  # noqa: F401
    import torch  # noqa: F401

    from vertebra.training.run import train  # noqa: F401

    found = {"group": group_signaled(folder), "seconds": seconds(folder), "together": together(folder)}
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
