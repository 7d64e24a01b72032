"""What serving adds to a policy: one client over HTTP and a websocket beside a direct call, and batches.

    python benchmarks/bench_serve.py [--rounds 60] [--seconds 4]

Beside ours runs openpi's serving loop around the same policy, where its client is installed: `websockets`, its codec, one
observation at a time in the event loop. Random weights; wall time, for waiting is what is measured, and beside it processor
time of both ends, which other work on the machine does not move. No time is asserted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch

from bench_policy import SHORT, image, made
from timing import in_turn
from vertebra.client import connect
from vertebra.policies import Policy
from vertebra.serve import Server, ServeSettings


def openpis_loop(policy: Policy) -> Any:
    """As openpi's `websocket_policy_server.py` serves; None where its client is not installed."""
    try:
        from openpi_client import msgpack_numpy
        from websockets.sync.server import serve
    except ImportError:
        return None
    alone = threading.Lock()

    def handler(connection: Any) -> None:
        connection.send(msgpack_numpy.packb({}))
        for data in connection:
            given = msgpack_numpy.unpackb(data)
            with alone:
                actions = policy.act(given["observation/image"].copy(), given["prompt"])
            connection.send(msgpack_numpy.packb({"actions": actions}))

    server = serve(handler, "127.0.0.1", 0, compression=None, max_size=None)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def overhead(policy: Policy, server: Server, rounds: int) -> None:
    seen = image(0)
    ways = {"HTTP": connect(server.url), "websocket": connect(server.url.replace("http", "ws"))}
    theirs = openpis_loop(policy)
    if theirs is not None:
        ways["openpi's loop"] = connect(f"ws://127.0.0.1:{theirs.socket.getsockname()[1]}")
    works: dict[str, Any] = {"direct": lambda: policy.act(seen, SHORT)}
    works |= {name: lambda client=client: client.act(seen, SHORT) for name, client in ways.items()}
    for work in works.values():
        work()
    wall, cpu = in_turn(works, rounds=rounds), in_turn(works, rounds=rounds, clock=time.process_time)
    for name, seconds in wall.items():
        more = [
            f"+ {1e3 * (taken[name] - taken['direct']):.2f} ms {of}"
            for taken, of in ((wall, ""), (cpu, "of processor"))
        ]
        print(f"    {name:<16} {1e3 * seconds:7.2f} ms   {', '.join(more) if name != 'direct' else ''}", flush=True)
    for client in ways.values():
        client.close()
    if theirs is not None:
        theirs.shutdown()


def throughput(policy: Policy, server: Server, seconds: float, clients: int = 8, rounds: int = 3) -> None:
    """One client and several, at ours and at openpi's loop, in turn; the clients are another process."""
    ours = server.url.replace("http", "ws")
    theirs = openpis_loop(policy)
    ways = {"one client": (ours, 1), f"{clients} at once": (ours, clients)}
    if theirs is not None:
        address = f"ws://127.0.0.1:{theirs.socket.getsockname()[1]}"
        ways |= {"openpi's loop, one": (address, 1), f"openpi's loop, {clients}": (address, clients)}
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (url, count) in ways.items():
            command = [sys.executable, str(Path(__file__).with_name("asking.py")), url, str(count), str(seconds)]
            found[name].append(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    middle = {name: statistics.median(rates) for name, rates in found.items()}
    for name, rate in middle.items():
        print(f"    {name:<20} {rate:7.1f} answers/s, {rate / middle['one client']:.2f} ×", flush=True)
    if theirs is not None:
        theirs.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=4.0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        policy = Policy(made("tiny", images="before", slots=16, folder=folder))
        with Server(policy, ServeSettings(port=0, body_time=2.0)) as server:
            print("  one client")
            overhead(policy, server, given.rounds)
            print("  batches")
            throughput(policy, server, given.seconds)


if __name__ == "__main__":
    main()
