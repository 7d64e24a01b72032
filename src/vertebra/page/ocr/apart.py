"""Engines in a process of their own: one that hangs or crashes is ended there, and takes nobody with it.

A process is started for an engine when its first picture comes, and serves until this one ends; after a hang or a crash the
next picture starts another.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from typing import Any

from vertebra.errors import DataError
from vertebra.page.formats import own
from vertebra.page.formats.source import PageSource
from vertebra.page.page import Page
from vertebra.page.pictures import turned_image

Apart = tuple[str, str, dict[str, Any]]
"""How a process makes an engine: its module, its class, its settings (plain data)."""
_workers: dict[str, Worker] = {}
_one_at_a_time = threading.Lock()


class Worker:
    """One process with one engine."""

    def __init__(self, apart: Apart) -> None:
        module, kind, settings = apart
        # a group of its own: what the engine itself starts ends with it
        self._process = subprocess.Popen(
            [sys.executable, "-m", "vertebra.page.ocr.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        self._first = {"engine": [module, kind], "settings": settings, "path": [path for path in sys.path if path]}

    def ask(self, image: Any, seconds: float) -> dict[str, Any] | None:
        """The answer to a picture; None: there was none within the time. The process has ended then."""
        found: list[bytes] = []

        def talk() -> None:
            raw = image.tobytes()
            head = {"mode": image.mode, "size": list(image.size), "bytes": len(raw)}
            with contextlib.suppress(OSError, ValueError):  # a process that ended does not listen
                stdin, stdout = self._process.stdin, self._process.stdout
                assert stdin is not None
                assert stdout is not None
                if self._first:
                    stdin.write(json.dumps(self._first).encode() + b"\n")
                    self._first = {}
                stdin.write(json.dumps(head).encode() + b"\n" + raw)
                stdin.flush()
                found.append(stdout.readline())

        talker = threading.Thread(target=talk, daemon=True)
        talker.start()
        talker.join(seconds)
        if talker.is_alive():
            self.end()
            talker.join(5)
            return None
        line = found[0] if found else b""
        if not line.endswith(b"\n"):
            code = self.end()
            return {"error": ["a crash", f"its process ended with exit code {code}", False]}
        answer: dict[str, Any] = json.loads(line)
        return answer

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def end(self) -> int:
        """End it, and everything that it started."""
        if self.lives:
            with contextlib.suppress(OSError):
                if hasattr(os, "killpg"):
                    os.killpg(self._process.pid, signal.SIGKILL)
                else:
                    self._process.kill()
        code = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        return code


def read_apart(name: str, apart: Apart, image: Any, seconds: float) -> Page:
    """A picture read by an engine in a process of its own, within a time."""
    key = json.dumps(apart, sort_keys=True)
    with _one_at_a_time:
        worker = _workers.get(key)
        if worker is None or not worker.lives:
            worker = _workers[key] = Worker(apart)
        answer = worker.ask(image, seconds)
    if answer is None:
        raise too_long(name, image, seconds)
    if "error" in answer:
        kind, text, ours = answer["error"]
        if ours:
            raise DataError(text)
        raise DataError(f"{name} failed ({kind}: {text}); try another engine (--ocr), or another picture")
    (page,) = own.read(PageSource(answer["page"], f"{name}'s answer", on_bad="repair"))
    turned = int(page.facts.get("turned", 0))
    notes = (*answer["page"].get("notes", ()), *page.notes)
    return replace(page, image=turned_image(image, turned), notes=tuple(notes))


def too_long(name: str, image: Any, seconds: float) -> DataError:
    """The error of an engine that is over its time."""
    return DataError(
        f"{name} has not read a picture of {image.width} × {image.height} within {seconds:g} s; make it smaller, "
        "allow more time, or use another engine (--ocr)"
    )


@atexit.register
def _end_all() -> None:
    for worker in _workers.values():
        worker.end()
