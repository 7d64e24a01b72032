"""Several processes of one command on this machine, with the environment that torchrun gives them.

Rank 0 has the terminal. The first process that fails ends all, and its message is the only one that is shown: the others
fail too, a moment later, of the connection that broke. A launcher that is killed takes them all along. It knows no torch.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vertebra.cli import parent
from vertebra.cli.machine import cores
from vertebra.errors import VertebraError

ERRORS = "VERTEBRA_ERRORS"
"""The folder where a process of ours leaves why it failed."""
_CHILD = "from vertebra.cli.launch import child; child()"
_PATIENCE = 10.0
"""Seconds that processes get to end by themselves once they are asked to."""
_ENDING = (signal.SIGINT, signal.SIGTERM)
"""The signals that ask a command to end."""


def launch(count: int, arguments: Sequence[str]) -> int:
    """Run `vertebra ARGUMENTS` in `count` processes; the exit code of the first that failed, or 0."""
    with tempfile.TemporaryDirectory(prefix="vertebra-") as folder:
        errors = Path(folder)
        port = _free_port()
        theirs, ours = os.pipe()  # nothing is written: our end closes with this process, and theirs tells
        try:
            with _recorded_signals() as asked:
                processes: list[_Process] = []
                for rank in range(count):
                    if not asked:  # one that is asked to end before all have started starts no more of them
                        processes.append(_start(rank, count, arguments, errors, port, theirs))
                return _watched(processes, errors, asked)
        finally:
            os.close(theirs)
            os.close(ours)


@contextmanager
def _recorded_signals() -> Iterator[list[int]]:
    """The signals that ask this process to end, recorded in place of ending it: whoever waits hands each of them on once.

    A handler that sent them itself would miss the process that is being started just then.
    """
    asked: list[int] = []
    before = {number: signal.signal(number, lambda it, frame: asked.append(it)) for number in _ENDING}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Process:
    """One rank."""

    def __init__(self, rank: int, process: subprocess.Popen[bytes], output: Any) -> None:
        self.rank, self.process, self.output = rank, process, output

    @property
    def code(self) -> int | None:
        return self.process.poll()


def _start(rank: int, count: int, arguments: Sequence[str], errors: Path, port: int, pipe: int) -> _Process:
    environment = {
        "OMP_NUM_THREADS": str(max(1, cores() // count)),
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        ERRORS: str(errors),
        parent.PARENT: str(os.getpid()),
        parent.PIPE: str(pipe),
    }
    # what the others print says what rank 0 says; it is kept for the case that one dies without a word
    output = None if rank == 0 else (errors / f"output-{rank}").open("wb")
    # a group of its own, so that Ctrl-C reaches the processes once, from here
    process = subprocess.Popen(
        [sys.executable, "-c", _CHILD, *arguments],
        env=environment,
        stdout=output,
        stderr=output,
        process_group=0,
        pass_fds=(pipe,),
    )
    return _Process(rank, process, output)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _watched(processes: list[_Process], errors: Path, asked: list[int]) -> int:
    """Wait for all; hand on what `asked` collects; on the first failure end the others and say why.

    A process that ends as it was asked to has not failed: the others end as well.
    """
    handed_on = 0
    try:
        while any(one.code is None for one in processes):
            for number in asked[handed_on:]:
                handed_on += 1
                _send(processes, number)
            failed = _first_failure(processes, errors, asked)
            if failed is not None:
                _end(processes)
                return _report(failed, processes, errors)
            time.sleep(0.05)
        failed = _first_failure(processes, errors, asked)
        if failed is not None:
            return _report(failed, processes, errors)
        return max((_shells(one.code or 0) for one in processes), default=_shells(-asked[0]) if asked else 0)
    finally:
        _end(processes, patience=0)
        for one in processes:
            if one.output is not None:
                one.output.close()


def _send(processes: Sequence[_Process], number: int) -> None:
    for one in processes:
        if one.code is None:
            one.process.send_signal(number)


def _first_failure(processes: list[_Process], errors: Path, asked: Sequence[int]) -> int | None:
    """The rank that failed first: of those that reported why, the earliest; else one that ended without a word."""
    reports = [json.loads(path.read_text()) for path in errors.glob("error-*.json")]
    if reports:
        return int(min(reports, key=lambda one: one["time"])["rank"])
    good = {None, 0, *(128 + number for number in asked), *(-number for number in asked)}
    return next((one.rank for one in processes if one.code not in good), None)


def _report(rank: int, processes: list[_Process], errors: Path) -> int:
    """Print why a rank failed, and return its exit code."""
    path = errors / f"error-{rank}.json"
    who = f"rank {rank} of {len(processes)}"
    if path.is_file():
        error = json.loads(path.read_text())
        text = error["text"] if rank == 0 else f"{who}: {error['text']}"
        print(text, file=sys.stderr)
        return int(error["code"])
    code = processes[rank].code or 1
    output = errors / f"output-{rank}"
    if output.is_file():
        sys.stderr.write("".join(output.read_text(errors="replace").splitlines(keepends=True)[-20:]))
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    if code < 0 and signal.Signals(-code) == signal.SIGKILL:
        how += " (is there enough memory?)"
    if code != 2:  # a usage error has been reported by itself
        print(f"error: {who} {how}; the others were ended", file=sys.stderr)
    return _shells(code)


def _shells(code: int) -> int:
    """An exit code as a shell says it: of a process that a signal killed, 128 and the signal's number."""
    return code if code >= 0 else 128 - code


def _end(processes: list[_Process], patience: float = _PATIENCE) -> None:
    """End what still runs: politely, then not."""
    for number, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, 1.0)):
        running = [one for one in processes if one.code is None]
        if number == signal.SIGTERM and not patience:
            continue
        _send(running, number)
        limit = time.monotonic() + seconds
        while time.monotonic() < limit and any(one.code is None for one in running):
            time.sleep(0.02)


def child() -> None:
    """One process of a launch: the command itself; a failure is left for the launcher, which ends all and says it."""
    from vertebra.cli.main import DEBUG, run

    parent.die_with_launcher()
    plain = os.environ.get(DEBUG) != "1"
    os.environ[DEBUG] = "1"  # errors come out of the command instead of being printed by each rank
    try:
        run()
    except VertebraError as error:
        _leave(f"error: {error}" if plain else _traceback(), 1)
    except Exception:  # whatever it is, the first of them is what the user must see, and the others are not
        _leave(_traceback(), 1)


def _traceback() -> str:
    import traceback

    return traceback.format_exc().rstrip()


def _leave(text: str, code: int) -> None:
    """Say why, and wait to be ended: who left now would break the connections of the others first."""
    rank = os.environ["RANK"]
    folder = Path(os.environ[ERRORS])
    part = folder / f"part-{rank}"
    part.write_text(json.dumps({"rank": int(rank), "time": time.time(), "text": text, "code": code}))
    part.rename(folder / f"error-{rank}.json")
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    time.sleep(2 * _PATIENCE)
    os._exit(code)
