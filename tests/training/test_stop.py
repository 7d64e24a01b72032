"""Signals that ask for a stop, at the worst moments; real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from vertebra.training.stop import Stopper, exit_code

BUSY = """
import sys
from vertebra.training.stop import Stopper
with Stopper() as stopper:
    while {going}:
        sys.stderr.write("x" * 5000)
        sys.stderr.flush()
print(stopper.asked)
"""


def pressed(going: str, *numbers: int) -> tuple[int, str, str]:
    """A process that never stops writing to its standard error, signaled when what it writes no longer fits."""
    command = [sys.executable, "-c", BUSY.format(going=going)]
    # with Python's own buffer, as users have it: that is what a second write would find in use
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stderr is not None
        process.stderr.read(5000)
        time.sleep(0.2)  # the pipe is full, and the process in the middle of a write
        seen = b""
        for number in numbers:
            process.send_signal(number)
            word = signal.Signals(number).name.encode()
            while process.poll() is None and word + b": saving" not in seen:
                seen += process.stderr.read1(500)
        out, more = process.communicate()
    return process.returncode, out.decode(), (seen + more).decode()


def test_a_signal_in_the_middle_of_a_write_raises_nothing():
    code, out, shown = pressed("stopper.asked is None", signal.SIGINT)
    assert (code, out) == (0, "SIGINT\n"), shown[-2000:]
    assert shown.count("SIGINT: saving after this step (Ctrl-C again: stop at once)\n") == 1


def test_a_second_ctrl_c_in_the_middle_of_a_write_ends_with_130():
    code, out, shown = pressed("True", signal.SIGINT, signal.SIGINT)
    assert (code, out) == (130, ""), shown[-2000:]
    assert "Traceback" not in shown


def test_sigterm_twice_is_no_hurry():
    """A launcher hands on what a batch system has sent to every process already."""
    code, out, shown = pressed("True", signal.SIGTERM, signal.SIGTERM, signal.SIGINT)
    assert (code, out) == (130, ""), shown[-2000:]
    assert shown.count("SIGTERM: saving") == 1
    assert "stopped at once" in shown


def test_the_former_handlers_come_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Stopper():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize(("asked", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_exit_codes_are_those_of_a_shell(asked: str, code: int):
    assert exit_code(asked) == code
