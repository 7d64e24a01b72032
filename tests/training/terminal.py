"""A process that runs `vertebra train` on terminals of its own: `python -m tests.training.terminal FOLDER`.

It imports everything once and forks a child with a pseudo-terminal for every run, as a shell would start it; keys are
pressed by writing to the terminal. What was seen, how the child ended and what it left is printed as JSON.
"""

from __future__ import annotations

import json
import os
import pty
import re
import resource
import select
import signal
import struct
import sys
import termios
import time
import traceback
from collections.abc import Callable
from fcntl import ioctl
from pathlib import Path
from typing import Any

from vertebra.cli.main import run as vertebra
from vertebra.training import checkpoint
from vertebra.training.checkpoint import step_of
from vertebra.training.lock import LOCK
from vertebra.training.trainer import ExactTrainer
from vertebra.training.watching.metrics import METRICS, read

RECIPE = Path(__file__).parents[2] / "recipes" / "chat-full.yaml"
LONG = ("--set", "steps=100000", "--set", "watch.every=1", "--set", "eval.every=0", "--set", "save.every=4")


def start(*arguments: str, before: Callable[[], object] | None = None) -> tuple[int, int]:
    """A child with a terminal of 120 columns; its id, and the other end of the terminal."""
    child, terminal = pty.fork()
    if child:
        ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        return child, terminal
    time.sleep(0.1)  # the size is set by then
    # as a shell does it for what it starts in front: whoever runs these tests behind `nohup … &` has Ctrl-C ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["TERM"] = "xterm-256color"
    sys.argv = ["vertebra", "train", str(RECIPE), *arguments]
    try:
        if before is not None:
            before()
        vertebra()
    except SystemExit as ended:
        sys.stdout.flush()
        os._exit(int(ended.code or 0))
    except BaseException:
        traceback.print_exc()
        os._exit(70)
    os._exit(0)


def watch(child: int, terminal: int, act: Callable[[str], object]) -> tuple[str, int]:
    """Read the terminal until the child is gone, letting `act` see all that was shown so far."""
    shown = b""
    while True:
        if select.select([terminal], [], [], 0.05)[0]:
            try:
                part = os.read(terminal, 65536)
            except OSError:
                break
            if not part:
                break
            shown += part
        act(shown.decode("utf-8", "replace"))
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    return shown.decode("utf-8", "replace"), os.waitstatus_to_exitcode(status)


def steps_in(folder: Path) -> int:
    rows = [row["step"] for row in read(folder / METRICS)]
    return max(rows, default=0)


def once(when: Callable[[str], bool], do: Callable[[], object]) -> Callable[[str], object]:
    """`do` the first time that `when` holds."""
    done: list[bool] = []

    def act(shown: str) -> None:
        if not done and when(shown):
            done.append(True)
            do()

    return act


def reported(folder: Path, shown: str, code: int) -> dict[str, Any]:
    """What a run left."""
    made = checkpoint.checkpoints(folder / "checkpoints")
    good = checkpoint.newest_good(folder / "checkpoints")
    last = steps_in(folder)
    return {
        "shown": plain(shown),
        "code": code,
        "last": last,
        "checkpoints": [step_of(path) for path in made],
        "good": good and step_of(good),
    }


def plain(shown: str) -> str:
    """Without the codes that move and color."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)


def interrupted(folder: Path) -> dict[str, Any]:
    """Ctrl-C once, by its key."""
    child, terminal = start("--out", str(folder), *LONG)
    act = once(lambda shown: steps_in(folder) >= 5, lambda: os.write(terminal, b"\x03"))
    return reported(folder, *watch(child, terminal, act))


def terminated(folder: Path) -> dict[str, Any]:
    """The same run resumed, and SIGTERM."""
    before = steps_in(folder)
    child, terminal = start("--out", str(folder), "--resume", *LONG)
    act = once(lambda shown: steps_in(folder) >= before + 3, lambda: os.kill(child, signal.SIGTERM))
    return reported(folder, *watch(child, terminal, act))


def interrupted_twice(folder: Path) -> dict[str, Any]:
    """Resumed again; Ctrl-C while a step takes long, and again before it ends."""
    before = steps_in(folder)

    def slow_from() -> None:
        real = ExactTrainer.compute_loss

        def slow(self: Any, *arguments: Any, **options: Any) -> Any:
            if self.state.global_step >= before + 2:
                for _ in range(600):
                    time.sleep(0.1)
            return real(self, *arguments, **options)

        ExactTrainer.compute_loss = slow  # type: ignore[method-assign]

    child, terminal = start("--out", str(folder), "--resume", *LONG, before=slow_from)
    first = once(lambda shown: steps_in(folder) >= before + 2, lambda: os.write(terminal, b"\x03"))
    second = once(lambda shown: "SIGINT" in shown, lambda: os.write(terminal, b"\x03"))
    return reported(folder, *watch(child, terminal, lambda shown: (first(shown), second(shown))))


def before_the_first_step(folder: Path) -> dict[str, Any]:
    """Ctrl-C while the model is loaded."""

    def slow_start() -> None:
        from vertebra.training import run

        def load(cls: type, given: Any) -> None:
            # in pieces: a signal that comes just before a sleep begins does not end it
            for _ in range(6000):
                time.sleep(0.1)

        run.PreparedRun.of = classmethod(load)  # type: ignore[method-assign,assignment]

    child, terminal = start("--out", str(folder), *LONG, before=slow_start)
    act = once(lambda shown: (folder / LOCK).is_file(), lambda: os.write(terminal, b"\x03"))
    return reported(folder, *watch(child, terminal, act)) | {"left": folder.exists()}


def full_disk(folder: Path) -> dict[str, Any]:
    """Files may grow no further from step 6 on: what the kernel says to a write on a full disk, but for the number."""

    def full_from() -> None:
        real = ExactTrainer.compute_loss

        def limited(self: Any, *arguments: Any, **options: Any) -> Any:
            if self.state.global_step == 6:
                self.writer.wait()
                resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, resource.RLIM_INFINITY))
            return real(self, *arguments, **options)

        ExactTrainer.compute_loss = limited  # type: ignore[method-assign]

    child, terminal = start("--out", str(folder), *LONG, before=full_from)
    return reported(folder, *watch(child, terminal, lambda shown: None))


def main(folder: Path) -> None:
    import peft  # noqa: F401
    import torch  # noqa: F401

    from vertebra.training.run import train  # noqa: F401

    found = {
        "interrupted": interrupted(folder / "run"),
        "terminated": terminated(folder / "run"),
        "twice": interrupted_twice(folder / "run"),
        "early": before_the_first_step(folder / "early"),
        "full": full_disk(folder / "full"),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
