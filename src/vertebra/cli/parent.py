"""A process that ends when its launcher is gone, however that went: SIGKILL lets nobody say goodbye.

On Linux the kernel sees to it. Elsewhere a thread waits at a pipe whose other end the launcher alone has open: it comes to
its end with the launcher.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

PARENT, PIPE = "VERTEBRA_LAUNCHER", "VERTEBRA_LAUNCHER_PIPE"
"""Where the launcher leaves its process id, and the number of the pipe's end."""
_PR_SET_PDEATHSIG = 1


def die_with_launcher() -> None:
    """Be killed with the process that launched this one."""
    if not _by_kernel():
        threading.Thread(target=_wait, args=(int(os.environ[PIPE]),), name="launcher", daemon=True).start()
    elif os.getppid() != int(os.environ[PARENT]):  # it was gone before the kernel knew
        os.kill(os.getpid(), signal.SIGKILL)


def _by_kernel() -> bool:
    if sys.platform != "linux":
        return False
    import ctypes

    try:
        return ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0
    except (OSError, AttributeError):
        return False


def _wait(pipe: int) -> None:
    os.read(pipe, 1)  # nothing is ever written: this returns at the end
    os.kill(os.getpid(), signal.SIGKILL)
