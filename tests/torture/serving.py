"""`vertebra serve` under load with faults, as a process, and then SIGTERM. Exit code 1 where anything does not hold.

    python -m tests.torture.serving [--seconds 600] [--clients 16]

Held: no wrong answer, none lost, everything malformed answered as it should be, memory within 5 %, and at the end no accepted
request without its answer. Wall time; p50 and p99 are shown and not held, for machines differ.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import torch

from tests.policies.models import policy_model
from tests.torture.load import Outcome, expectations, hammer
from vertebra import policy as load_policy

FLAT = 0.05
SETTINGS = ("--body-time", "2", "--queue", "256")


def resident(url: str) -> float:
    """What the server says of its memory."""
    with urllib.request.urlopen(url + "/metrics", timeout=60) as answer:
        found = re.search(rb"^vertebra_resident_bytes (\S+)", answer.read(), re.MULTILINE)
    assert found
    return float(found[1])


def served(folder: Path, log: Path) -> tuple[subprocess.Popen[str], str]:
    """(process, address) of a server that is ready."""
    command = [sys.executable, "-c", "from vertebra.cli.main import run; run()", "serve", str(folder), "--port", "0"]
    with open(log, "wb") as file:
        process = subprocess.Popen([*command, *SETTINGS], stdout=subprocess.PIPE, stderr=file, text=True)
    assert process.stdout is not None
    found = re.search(r"on (http://[\d.:]+)", process.stdout.readline())
    if found is None:
        raise SystemExit(log.read_text())
    for _ in range(1200):
        try:
            urllib.request.urlopen(found[1] + "/ready", timeout=60).close()
            return process, found[1]
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"the server is not ready:\n{log.read_text()}")


def ended(process: subprocess.Popen[str], url: str, expected: dict, log: Path) -> list[str]:
    """SIGTERM while clients ask: what does not hold."""
    timer = threading.Timer(2.0, lambda: process.send_signal(signal.SIGTERM))
    timer.start()
    outcome = hammer(
        url, expected, seconds=3.0, clients=8, memory=lambda: 1.0, share=0.0
    )  # what comes later is refused
    code = process.wait(60)
    entries = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    left = [one["unanswered"] for one in entries if one["event"] == "drained"]
    found = [f"it ended with {code}, unanswered {left}"] if (code, left) != (0, [0]) else []
    return found + ([f"{outcome.wrong} wrong answers at the end"] if outcome.wrong else [])


def faults(outcome: Outcome) -> list[str]:
    found = []
    if outcome.wrong or outcome.lost or outcome.mistaken:
        found.append(f"{outcome.wrong} wrong, {outcome.lost} lost, {sum(outcome.mistaken.values())} mistaken")
    if abs(outcome.growth - 1) > FLAT:
        found.append(f"memory × {outcome.growth:.3f}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--clients", type=int, default=16)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder, log = Path(place) / "policy", Path(place) / "log"
        policy_model(chunk=2, history=1).save(folder)
        alone = load_policy(folder)
        expected = expectations(lambda seen: alone.act(seen, "Pick up the cup", "bridge"), alone.reset)
        process, url = served(folder, log)
        try:
            outcome = hammer(url, expected, seconds=given.seconds, clients=given.clients, memory=lambda: resident(url))
            print(f"{given.clients} clients, {given.seconds:g} s: {outcome}", flush=True)
            found = faults(outcome) + ended(process, url, expected, log)
        finally:
            process.kill()
            process.wait()
        entries = log.read_text().splitlines()
        broken = [line for line in entries if "Traceback" in line or "internal error" in line]
    found += [f"in the server's log: {line}" for line in broken[:5]]
    print("\n".join(found) or "all of it holds; SIGTERM under load: nothing accepted was left unanswered", flush=True)
    os._exit(1 if found else 0)


if __name__ == "__main__":
    main()
