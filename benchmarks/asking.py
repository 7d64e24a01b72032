"""Clients of a server, in a process of their own, as real ones are: answers per second, once all are connected.

python benchmarks/asking.py ws://127.0.0.1:8000 8 5
"""

from __future__ import annotations

import sys
import threading
import time

import numpy as np

from vertebra.client import connect


def answers(url: str, clients: int, seconds: float) -> float:
    done, ready = [0] * clients, threading.Barrier(clients)

    def work(number: int) -> None:
        seen = np.random.default_rng(number).integers(0, 256, (224, 224, 3), dtype=np.uint8)
        with connect(url) as client:
            client.act(seen, "pick up the red block")
            ready.wait()
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                client.act(seen, "pick up the red block")
                done[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / seconds


if __name__ == "__main__":
    print(answers(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
