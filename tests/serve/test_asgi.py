"""`Application` under another's server: uvicorn's, with its lifespan and without; sent to another process before it loads."""

from __future__ import annotations

import asyncio
import pickle
import threading
import time
from functools import partial

import numpy as np
import pytest
import uvicorn

from tests.policies.models import image
from tests.serve.serving import TASK, asked, policy
from vertebra.serve import Application


@pytest.mark.parametrize("lifespan", ["on", "off"])
def test_it_answers_under_another_server(lifespan):
    app = pickle.loads(pickle.dumps(Application(partial(policy, chunk=2), name="made")))
    config = uvicorn.Config(app, port=0, lifespan=lifespan, log_config=None, ws="websockets-sansio")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        body = {"images": {"image": image(0)}, "instruction": TASK}
        status, answer, _ = asked(f"http://127.0.0.1:{port}/act", body)
        assert status == 200
        assert np.allclose(answer["actions"], policy(chunk=2).act(image(0), TASK), atol=1e-5)
        assert asked(f"http://127.0.0.1:{port}/info")[1]["model"] == "made"
    finally:
        server.should_exit = True
        thread.join()
    assert app._service.draining.is_set() == (lifespan == "on")
    app._service.stop()


def test_what_cannot_be_loaded_is_an_error_of_whoever_starts_it():
    def broken() -> None:
        raise ValueError("no such folder")

    sent = []

    async def receive():
        return {"type": "lifespan.startup"}

    async def send(message):
        sent.append(message)

    with pytest.raises(ValueError, match="no such folder"):
        asyncio.run(Application(broken)({"type": "lifespan"}, receive, send))
    assert sent == [{"type": "lifespan.startup.failed", "message": "no such folder"}]
