"""`examples/serve_with_ray.py`: two replicas at one address; one is killed under load and nothing is lost. `make test-ray`."""

from __future__ import annotations

import os
import runpy
import signal
import socket
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.policies.models import image, policy_model
from tests.ray_here import begun
from tests.serve.serving import TASK
from vertebra.client import connect
from vertebra.errors import VertebraError

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]
ray = pytest.importorskip("ray")
EXAMPLE = Path(__file__).parents[2] / "examples" / "serve_with_ray.py"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Two replicas of a policy."""
    folder = tmp_path_factory.mktemp("ray") / "policy"
    policy_model(chunk=2).save(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begun(ray, 4)
    runpy.run_path(str(EXAMPLE))["deployed"](str(folder), 2, port)
    yield f"http://127.0.0.1:{port}"
    from ray import serve

    serve.shutdown()
    ray.shutdown()


def replicas() -> list[int]:
    """Processes of Ray that serve."""
    found = []
    for process in os.listdir("/proc"):
        if process.isdigit():
            try:
                name = Path(f"/proc/{process}/cmdline").read_bytes()
            except OSError:
                continue
            if name.startswith(b"ray::ServeReplica"):
                found.append(int(process))
    return found


def test_a_replica_that_is_killed_under_load_loses_nothing(address):
    alone = policy_model(chunk=2)
    from vertebra.policies import Policy

    expected = [Policy(alone).act(image(seed), TASK, "bridge") for seed in range(4)]
    outcome, lock, over = Counter[str](), threading.Lock(), threading.Event()

    def work(number: int) -> None:
        url = address if number % 2 else address.replace("http", "ws")
        with connect(url, patience=120) as client:
            while not over.is_set():
                try:
                    made = client.act(image(number % 4), TASK, "bridge")
                    text = "right" if np.allclose(made, expected[number % 4], atol=1e-5) else "wrong"
                except VertebraError as error:
                    text = f"lost: {error}"[:300]
                with lock:
                    outcome[text] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    while outcome["right"] < 30:
        time.sleep(0.05)
    before = replicas()
    assert len(before) == 2
    os.kill(before[0], signal.SIGKILL)
    there = outcome["right"]
    while outcome["right"] < there + 100 and sum(outcome.values()) < there + 300:
        time.sleep(0.05)
    while len(replicas()) < 2:  # the dead one is replaced
        time.sleep(0.2)
    over.set()
    for thread in threads:
        thread.join()
    assert set(outcome) == {"right"}, outcome
