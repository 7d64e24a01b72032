"""One call for a policy here, ours behind HTTP and a websocket, and servers of others; what breaks on the way."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

from tests.policies.models import image
from tests.serve.serving import TASK, policy
from vertebra.client import Chunks, connect
from vertebra.errors import ConfigError, DataError, NetworkError, UnknownNameError
from vertebra.serve import Server, ServeSettings


class Quiet(BaseHTTPRequestHandler):
    """A server of somebody else's."""

    def answered(self, status: int, body: bytes) -> None:
        self.send_response(status)
        if status == 200:  # balancers say nothing of what their words are
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *what) -> None:
        pass


@contextmanager
def running(handler: type[Quiet]) -> Iterator[str]:
    """Its address, as long as it runs."""
    server = HTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_it_imports_numpy_and_nothing_else():
    code = (
        "import sys; import vertebra.client as c; c.connect; c.Chunks\n"
        "print([m for m in ('torch', 'transformers', 'PIL', 'yaml', 'websockets', 'msgpack') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


@pytest.mark.parametrize("way", ["local", "http", "ws"])
def test_the_same_actions_by_every_way(way, tmp_path):
    made = policy(history=1, chunk=3)
    alone = policy(history=1, chunk=3)
    with Server(policy(history=1, chunk=3), ServeSettings(port=0)) as server:
        target = made if way == "local" else server.url.replace("http", way)
        with connect(target) as client:
            assert client.metadata["dims"] == 3
            for episode in range(2):
                for step in range(2):
                    seen = {"images": {"image": image(step)}}
                    expected = alone.act(seen, TASK)
                    assert np.allclose(client.act(seen, TASK, "bridge"), expected, atol=1e-5), (episode, step)
                client.reset()
                alone.reset()
            from PIL import Image

            Image.fromarray(image(0)).save(tmp_path / "a.png")
            expected = alone.act(image(0), TASK)
            assert np.allclose(client.act(tmp_path / "a.png", TASK), expected, atol=1e-5)
            with pytest.raises((DataError, ConfigError), match="bridge"):
                client.act(image(0), TASK, "bridges")
            client.reset()
            alone.reset()
            assert np.allclose(client.act(image(0), TASK), alone.act(image(0), TASK), atol=1e-5)
            broker = Chunks(client, execute=2)
            client.reset()
            alone.reset()
            chunks = [alone.act(image(0), TASK), alone.act(image(2), TASK)]
            for step in range(4):
                assert np.allclose(broker.act(image(step), TASK), chunks[step // 2][step % 2], atol=1e-5)
            broker.reset()
            alone.reset()
            assert np.allclose(broker.act(image(5), TASK), alone.act(image(5), TASK)[0], atol=1e-5)


@pytest.mark.parametrize("protocol", ["openvla", "oft"])
def test_servers_of_openvlas_and_ofts_kind(protocol):
    """As their deploy.py answers, with json_numpy itself."""
    json_numpy = pytest.importorskip("json_numpy")
    chunk = np.arange(6.0).reshape(2, 3)
    came = []

    class Handler(Quiet):
        def do_POST(self):
            came.append(json_numpy.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.answered(200, json_numpy.dumps(chunk[0] if protocol == "openvla" else list(chunk)).encode())

    with running(Handler) as address, connect(f"{address}/act", protocol=protocol) as client:
        made = client.act({"images": {"image": image(0)}, "proprio": [1.0]}, TASK, "bridge")
    assert np.array_equal(made, chunk[:1] if protocol == "openvla" else chunk)
    assert np.array_equal(came[0]["image" if protocol == "openvla" else "full_image"], image(0))
    assert came[0]["instruction"] == TASK


def test_a_balancer_whose_server_went_away_is_asked_again():
    """As Ray Serve's proxy answers for a replica that died; a fault of our own server, in JSON, is one."""
    faults = [b"Internal Server Error", b"", b'{"error": {"message": "the model failed"}}']
    came = []

    class Handler(Quiet):
        def do_GET(self):
            self.answered(200, b"{}")

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            came.append(self.path)
            self.answered(500, faults[min(len(came), 3) - 1])

    with running(Handler) as address, connect(address) as client, pytest.raises(DataError, match="model failed"):
        client.act(image(0), TASK)
    assert came == ["/act"] * 3


def test_a_server_of_openpis_kind():
    """As its websocket_policy_server answers, with its own codec and the real websockets."""
    theirs = pytest.importorskip("openpi_client.msgpack_numpy")
    serve = pytest.importorskip("websockets.sync.server").serve
    came = []

    def handler(connection):
        connection.send(theirs.packb({"robot": "made"}))
        for number, data in enumerate(connection):
            came.append(theirs.unpackb(data))
            if number:
                connection.send("Traceback: no such key")
                connection.close(1011, "Internal server error")
            else:
                connection.ping()
                connection.send(theirs.packb({"actions": np.ones((2, 3))}))

    with serve(handler, "127.0.0.1", 0, compression=None, max_size=None) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        names = {"image": "observation/exterior_image_1_left"}
        with connect(address, names=names) as client:
            assert client.metadata == {"robot": "made"}
            large = np.zeros((300, 300, 3), np.uint8)
            assert np.array_equal(client.act({"images": {"image": large}, "proprio": [1, 2]}, TASK), np.ones((2, 3)))
            client.reset()
            with pytest.raises(DataError, match="no such key"):
                client.act(image(0), TASK)
        server.shutdown()
    assert sorted(came[0]) == ["observation/exterior_image_1_left", "observation/state", "prompt"]


def test_a_server_that_comes_back_is_found_again():
    first = Server(policy(), ServeSettings(port=0)).__enter__()
    port = first.port
    expected = policy().act(image(0), TASK)
    clients = [connect(f"{scheme}://127.0.0.1:{port}", patience=60) for scheme in ("http", "ws")]
    for client in clients:
        assert np.allclose(client.act(image(0), TASK), expected)
    first.end()
    threading.Timer(0.3, lambda: again.append(Server(policy(), ServeSettings(port=port)).__enter__())).start()
    again: list[Server] = []
    for client in clients:
        assert np.allclose(client.act(image(0), TASK), expected)
        client.close()
    again[0].end()
    with pytest.raises(NetworkError):
        connect(f"ws://127.0.0.1:{port}", patience=0)
    with pytest.raises(NetworkError):
        connect(f"http://127.0.0.1:{port}", patience=0)


def test_what_cannot_be_reached_or_asked():
    with pytest.raises(ConfigError, match="no address"):
        connect("127.0.0.1:8000")
    with pytest.raises(UnknownNameError, match="openvla"):
        connect("http://x", protocol="openvlaa")
    with pytest.raises(ConfigError, match="http://"):
        connect("ws://x", protocol="oft")
    with pytest.raises(ConfigError, match="cannot act"):
        connect(3)
    with pytest.raises(ConfigError, match="execute=0"):
        Chunks(connect(policy()), execute=0)
    with Server(policy(), ServeSettings(port=0, token="secret")) as server:
        with pytest.raises(ConfigError, match="token"):
            connect(server.url, patience=0)
        with pytest.raises(NetworkError, match="401"):
            connect(server.url.replace("http", "ws"))
        with connect(server.url, token="secret") as client:
            assert client.act(image(0), TASK).shape == (1, 3)
        with connect(server.url.replace("http", "ws"), token="secret") as client:
            assert client.act(image(0), TASK).shape == (1, 3)
            with pytest.raises(DataError, match="history"):
                client.act({"images": {"image": image(0)}, "images2": 1}, TASK)
        assert json.dumps(dict(client.metadata))
