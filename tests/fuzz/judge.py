"""Runs numbered cases and judges how each ends: well, refused by an error of ours, by a foreign error, or not at all."""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

CPU_SECONDS = 20
"""What a case may take of the processor. None takes a second."""
MEMORY = 6 * 2**30
"""Address space that cases may take beyond what the libraries have; a folder that asks for more is refused, not fed."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is mutated and used: folders by name, made sound first. Those called `broken-…` are not."""

    make: Callable[[Path], None]
    damage: Callable[[Path, random.Random, Path], str]
    """(folder, generator, the folder that none may read) → what was damaged."""
    use: Callable[[Path, str, random.Random], None]
    """(folder, its kind, generator): all that the library does with it; raises what the library raises."""


class Hung(BaseException):
    """No `Exception`: whoever catches too much must not catch this."""


def main(subject: Subject) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--only", type=int, nargs="*")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGPROF, _hung)
    report = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no report
    with tempfile.TemporaryDirectory() as root:
        sound, work = Path(root, "sound"), Path(root, "work")
        sound.mkdir()
        subject.make(sound)
        _run(subject, sound, work, asked, report)


def _hung(*_: Any) -> None:
    raise Hung


def _run(subject: Subject, sound: Path, work: Path, asked: argparse.Namespace, report: TextIO) -> None:
    def say(number: int, end: str, what: str = "", error: str = "") -> None:
        print(json.dumps({"case": number, "end": end, "what": what, "error": error}), file=report, flush=True)

    outside = sound / "outside"
    opened = _watch(outside)
    kinds = sorted(path.name for path in sound.iterdir() if path != outside)
    whole: Counter[str] = Counter()
    for kind in kinds if asked.only is None else ():
        if not kind.startswith("broken-"):
            end, error = _judged(partial(subject.use, _copied(sound / kind, work), kind, random.Random(0)))
            say(-1, end, f"sound {kind}", error)
            whole[end] += 1
    _bound_memory()
    ends: Counter[str] = Counter()
    start = time.monotonic()
    for number in asked.only if asked.only is not None else range(asked.first, asked.first + asked.cases):
        if time.monotonic() - start > asked.seconds:
            break
        say(number, "begun")  # a crash of the whole process leaves this line as the last
        draw = random.Random(number)
        kind = draw.choice(kinds)
        folder = _copied(sound / kind, work)
        what = "; ".join(subject.damage(folder, draw, outside) for _ in range(draw.choice((1, 1, 1, 2))))
        opened.clear()
        end, error = _judged(partial(subject.use, folder, kind, draw))
        if opened:
            end, error = "outside", f"opened {opened[0]}"
        ends[end] += 1
        say(number, end, f"{kind}: {what}", error)
        if asked.only is not None:
            print(_traceback, file=sys.stderr)
    print(json.dumps({"ends": dict(ends), "sound": dict(whole)}), file=report, flush=True)


def _copied(sound: Path, work: Path) -> Path:
    """A folder of links: whoever damages a file writes it anew."""
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(sound, work, copy_function=os.link)
    return work


def _watch(outside: Path) -> list[str]:
    """The files below `outside` that Python opens, from now on."""
    opened: list[str] = []

    def watch(event: str, args: Any) -> None:
        if event == "open" and isinstance(args[0], (str, bytes)) and os.fspath(outside) in str(args[0]):
            opened.append(str(args[0]))

    sys.addaudithook(watch)
    return opened


_traceback = ""


def _judged(use: Callable[[], None]) -> tuple[str, str]:
    global _traceback
    from vertebra.errors import VertebraError

    end, error = "loaded", ""
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        try:
            use()
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except VertebraError as refused:
        end, error = "refused", f"{type(refused).__name__}: {refused}"
        _traceback = traceback.format_exc()
    except Hung:
        end, error = "hung", "".join(traceback.format_exc().splitlines(keepends=True)[-8:])
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as foreign:  # a panic of a library in Rust is no Exception
        frames = traceback.extract_tb(foreign.__traceback__)
        ours = next((frame for frame in reversed(frames) if "/vertebra/" in frame.filename), frames[-1])
        at = f"{Path(ours.filename).name}:{ours.lineno}"
        end, error = "foreign", f"{type(foreign).__name__} through {at}: {foreign!s:.300}"
        _traceback = traceback.format_exc()
    return end, error


def _bound_memory() -> None:
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
