"""The library's logger: quiet by default, silent on every rank but the first, and able to say a thing once.

It configures nothing at import; a program decides where messages go (`show()` is what the command line calls).
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys

logger = logging.getLogger("vertebra")
logger.addHandler(logging.NullHandler())

_warned: set[str] = set()


def rank() -> int:
    """This process's rank under torchrun, 0 outside of it; read from the environment, so torch stays unimported."""
    return int(os.environ.get("RANK", "0") or 0)


def info(message: str) -> None:
    if rank() == 0:
        logger.info(message)


def warn(message: str) -> None:
    if rank() == 0:
        logger.warning(message)


def warn_once(message: str) -> None:
    """Say a message the first time only, in this process."""
    if message not in _warned:
        _warned.add(message)
        warn(message)


def forget_warned() -> None:
    """Let every message of `warn_once` appear again (tests begin with this)."""
    _warned.clear()


def show(level: int = logging.INFO) -> None:
    """Print messages to standard error, plain: for programs, never called at import."""
    if any(isinstance(handler, _StderrHandler) for handler in logger.handlers):
        return
    handler = _StderrHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(level)


class _StderrHandler(logging.Handler):
    """Looks `sys.stderr` up at each message, so that it also works where the stream is replaced."""

    def emit(self, record: logging.LogRecord) -> None:
        if sys.stderr is None:  # closed, as for a daemon
            return
        # a full disk or a lost terminal behind it: nobody can be warned, and a run of days does not end for that
        with contextlib.suppress(OSError):
            sys.stderr.write(self.format(record) + "\n")
