"""How long each command takes until it says what needs no weights: helps, tables, known facts, wrong names.

Every line is a new process, as a user starts it; beside it stands what Python alone takes, and the time of the processor,
which is steady where a busy machine's clock is not.

    python benchmarks/bench_start.py [ROUNDS]
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time

COMMANDS = (
    "--help",
    "models",
    "prompt --help",
    "train --help",
    "info tiny-llama2",
    "info tiny-lama2",
    "info /none/such",
    "plan no-such-recipe",
    "plan chat-full --set optim.lrr=1",
    "generate tiny-lama2 hi",
    "check tiny-lama2",
    "tiny --list",
)
RUN = "from vertebra.cli.main import run; run()"


def taken(code: str, arguments: list[str]) -> tuple[float, float]:
    """Seconds on the clock and on the processor of one new process."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, check=False)
    clock, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return clock, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(rounds: int) -> None:
    taken(RUN, ["info", "tiny-llama2"])  # its facts are read off once, which takes torch
    works = {"python alone": ("pass", []), **{f"vertebra {line}": (RUN, line.split()) for line in COMMANDS}}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, (code, arguments) in works.items():
            times[name].append(taken(code, arguments))
    print(f"medians of {rounds} rounds                              clock  processor")
    for name, pairs in times.items():
        clock, processor = (statistics.median(one) for one in zip(*pairs, strict=True))
        print(f"  {name:<44} {clock:8.2f} s {processor:8.2f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
