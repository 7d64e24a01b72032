"""What serving adds to a policy: one client over HTTP and a websocket beside a direct call, batches, and load with faults.

    python benchmarks/bench_serve.py [--rounds 60] [--seconds 20] [--clients 16]

Beside ours runs openpi's serving loop around the same policy, where its client is installed: `websockets`, its codec, one
observation at a time in the event loop. Random weights; wall time, for waiting is what is measured. No time is asserted.
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import threading
import time
from collections import Counter
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch

from bench_policy import SHORT, image, made
from timing import in_turn
from vertebra.client import connect
from vertebra.errors import VertebraError
from vertebra.policies import Policy
from vertebra.serve import Server, ServeSettings
from vertebra.serve.pages import resident


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
    taken = in_turn(works, rounds=rounds)
    for name, seconds in taken.items():
        added = f"   + {1e3 * (seconds - taken['direct']):.2f} ms" if name != "direct" else ""
        print(f"    {name:<16} {1e3 * seconds:7.2f} ms{added}", flush=True)
    for client in ways.values():
        client.close()
    if theirs is not None:
        theirs.shutdown()


def throughput(policy: Policy, server: Server, seconds: float, clients: int = 8) -> None:
    def answers(count: int) -> float:
        done, until = Counter[int](), time.monotonic() + seconds

        def work(number: int) -> None:
            with connect(server.url.replace("http", "ws")) as client:
                while time.monotonic() < until:
                    client.act(image(number), SHORT)
                    done[number] += 1

        threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(done.values()) / seconds

    one, many = answers(1), answers(clients)
    print(f"    one client {one:.1f} answers/s, {clients} at once {many:.1f}: {many / one:.2f} ×", flush=True)


def torture(policy: Policy, server: Server, seconds: float, clients: int) -> None:
    """A tenth of what comes is malformed; every answer is compared with that of the policy alone."""
    expected = [policy.act(image(number), SHORT) for number in range(8)]
    outcome, latencies, until = Counter[str](), list[float](), time.monotonic() + seconds
    faults = (b"{", b'{"instruction": 3}', b"[" * 9999, b'{"images": {"image": "AAAA"}}')

    def malformed(luck: random.Random) -> None:
        body = luck.choice(faults)
        length = len(body) + luck.choice((0, 0, 100))  # cut off midway
        with socket.create_connection(("127.0.0.1", server.port), 20) as raw:
            raw.sendall(f"POST /act HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode() + body)
            if length == len(body):
                outcome["refused" if b" 400 " in raw.recv(200) else "wrong"] += 1
            else:
                outcome["cut off"] += 1

    def work(number: int) -> None:
        luck = random.Random(number)
        with connect(server.url.replace("http", luck.choice(("http", "ws")))) as client:
            while time.monotonic() < until:
                if luck.random() < 0.1:
                    malformed(luck)
                    continue
                which, begun = luck.randrange(8), time.monotonic()
                try:
                    found = client.act(image(which), SHORT)
                except VertebraError:
                    outcome["lost"] += 1
                    continue
                latencies.append(time.monotonic() - begun)
                outcome["right" if np.allclose(found, expected[which], atol=1e-5) else "wrong"] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    time.sleep(seconds / 4)
    before = resident()
    for thread in threads:
        thread.join()
    p50, p99 = (1e3 * float(np.percentile(latencies, q)) for q in (50, 99))
    print(f"    {clients} clients, {seconds:.0f} s: {dict(outcome)}, {outcome['wrong']} wrong, {outcome['lost']} lost")
    print(f"    p50 {p50:.1f} ms, p99 {p99:.1f} ms, memory × {resident() / before:.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--clients", type=int, default=16)
    given = parser.parse_args()
    torch.set_num_threads(1)
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        policy = Policy(made("tiny", images="before", slots=16, folder=folder))
        with Server(policy, ServeSettings(port=0, body_time=2.0)) as server:
            print("  one client")
            overhead(policy, server, given.rounds)
            print("  batches")
            throughput(policy, server, given.seconds / 4)
            print("  load and faults")
            torture(policy, server, given.seconds, given.clients)


if __name__ == "__main__":
    main()
