"""Several replicas of one policy or model behind Ray Serve, on one machine or a cluster: one address, any replica may answer.

    pip install 'vertebra[serve,ray]'
    python examples/serve_with_ray.py FOLDER --replicas 2 --port 8000

A replica that dies is replaced, and its clients ask again (`vertebra.client` does so by itself). What a policy remembers of a
robot lives in one replica: robots with a memory come by websocket, which stays with its replica.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from typing import Any

from ray import serve

from vertebra.serve import Application


def served(name: str) -> Any:
    """What a replica loads, in its own process."""
    import vertebra as vt

    model = vt.load(name)
    return vt.policy(model) if "policy" in model.record else model


def deployed(name: str, replicas: int, port: int) -> None:
    """On this machine, or on the cluster that RAY_ADDRESS names."""
    serve.start(http_options={"host": "127.0.0.1", "port": port})

    @serve.deployment(num_replicas=replicas, max_ongoing_requests=64, health_check_period_s=2)
    @serve.ingress(Application(partial(served, name), name=name))
    class Replica:
        pass

    serve.run(Replica.bind(), name="vertebra", route_prefix="/")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a policy's folder, or any model's name")
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args()
    deployed(given.model, given.replicas, given.port)
    print(f"{given.replicas} replicas of {given.model} on http://127.0.0.1:{given.port}; Ctrl-C ends them")
    try:
        while True:
            time.sleep(1)
    except KeyboardInterrupt:
        serve.shutdown()


if __name__ == "__main__":
    main()
