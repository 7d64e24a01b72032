"""Every dialect of `/act` and what is refused, over a real socket."""

from __future__ import annotations

import asyncio
import base64
import http.client
import io
import json
import socket
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.policies.models import image
from tests.serve.serving import TASK, asked, policy
from vertebra.errors import ConfigError
from vertebra.serve import Server, ServeSettings
from vertebra.serve.server import bind
from vertebra.wire import pack, unpack

json_numpy = pytest.importorskip("json_numpy")
STATE = np.array([0.1, 0.2, -0.3, 0.4])


@pytest.fixture(scope="module")
def direct(served):
    seen = {"images": {"image": image(0), "wrist": image(1)}, "proprio": STATE}
    return served.service.policy.act(seen, TASK)


def test_openvla(direct):
    with Server(policy(), ServeSettings(port=0)) as server:
        one = server.service.policy
        expected = one.act(image(0), TASK)[0]
        given = {"image": image(0), "instruction": TASK, "unnorm_key": "bridge"}
        plain, encoded = json_numpy.dumps(given), json.dumps({"encoded": json_numpy.dumps(given)})
        status, answer, _ = asked(server.url + "/act", plain.encode())
        assert status == 200
        found = json_numpy.loads(json.dumps(answer))
        assert found.dtype == np.float64
        assert np.array_equal(found, expected)
        status, answer, _ = asked(server.url + "/act", encoded.encode())
        assert isinstance(answer, str)
        assert np.array_equal(json_numpy.loads(answer), expected)
        assert (
            asked(server.url + "/act", {**given, "unnorm_key": "bridges"})[1]["error"]["message"].count("bridge") >= 2
        )


def test_oft(served, direct):
    given = {"full_image": image(0), "left_wrist_image": image(1), "state": STATE, "instruction": TASK}
    for body in (json_numpy.dumps(given), json.dumps({"encoded": json_numpy.dumps(given)})):
        _, answer, _ = asked(served.url + "/act", body.encode())
        rows = json_numpy.loads(answer if isinstance(answer, str) else json.dumps(answer))
        assert isinstance(rows, list)
        assert np.array_equal(np.stack(rows), direct)


def test_x_vla(served, direct):
    given = {
        "image0": json_numpy.dumps(image(0)), "image1": json_numpy.dumps(image(1)), "proprio": STATE,
        "language_instruction": TASK, "domain_id": 0, "steps": 10,
    }  # fmt: skip
    assert np.array_equal(asked(served.url + "/act", given)[1]["action"], direct)


def test_plain_json_and_msgpack(served, direct):
    file = io.BytesIO()
    Image.fromarray(image(0)).save(file, "PNG")
    text = base64.b64encode(file.getvalue()).decode()
    for first in (text, f"data:image/png;base64,{text}", image(0).tolist()):
        given = {"images": {"image": first, "wrist": image(1)}, "proprio": STATE.tolist(), "instruction": TASK}
        status, reply, _ = asked(
            served.url + "/act", json.dumps(given | {"images": {"image": first, "wrist": image(1).tolist()}}).encode()
        )
        assert status == 200, reply
        assert np.array_equal(reply["actions"], direct)
        assert reply["key"] == "bridge"
    body = pack({"images": {"image": file.getvalue(), "wrist": image(1)}, "proprio": STATE, "instruction": TASK})
    answer = http.client.HTTPConnection("127.0.0.1", served.port)
    answer.request("POST", "/act", body, {"Content-Type": "application/msgpack"})
    assert np.array_equal(unpack(answer.getresponse().read())["actions"], direct)
    answer.close()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 5000, "JSON|nested"),
        (b"3", "expected a mapping"),
        (b'{"proprio": ' + b"9" * 5000 + b"}", "holds a number of thousands of digits$"),
        ({"images": ["AAAA"], "instruction": TASK}, "`images` is a list; expected a mapping of cameras"),
        ({"images": "AAAA", "instruction": TASK}, "`images` is a str; expected a mapping of cameras"),
        ({"observation": [1], "instruction": TASK}, "`observation` is a list; expected a mapping of images"),
        ({"instruction": TASK, "prompt": "stop"}, "the instruction came as `instruction`, `prompt`; send one"),
        ({"instruction": TASK}, "camera `image` is missing"),
        ({"images": {"image": "/etc/passwd"}, "instruction": TASK}, "paths and addresses are not read"),
        ({"images": {"image": "AAAA"}, "instruction": TASK}, "are no PNG"),
        ({"images": {"image": [[1, 2], [3]]}, "instruction": TASK}, "different lengths"),
        ({"images": {"image": image(0)}, "instruction": TASK}, "`proprio` is missing"),
        ({"images": {"image": image(0)}, "proprio": [1, 2], "instruction": TASK}, "expected 4 numbers"),
        ({"images": {"image": image(0)}, "proprio": [1, 2, 3, float("nan")], "instruction": TASK}, "NaN"),
        ({"images": {"image": image(0)}, "proprio": "AAAA", "instruction": TASK}, "expected a list of numbers"),
        ({"images": {"image": image(0)}, "proprio": [0] * 4, "instruction": 7}, "expected text"),
        ({"images": {"image": image(0)}, "proprio": [0] * 4, "instruktion": TASK}, "Did you mean `instruction`"),
        ({"images": {"image": image(0)}, "proprio": [0] * 4, "instruction": TASK, "unnorm_key": "no"}, "bridge"),
        ({"images": {"image": image(0)}, "proprio": [0] * 4, "instruction": TASK, "done": 1}, "real-time"),
        ({"images": {"a": image(0), "b": image(1)}, "proprio": [0] * 4, "instruction": TASK}, "--camera a=image"),
        ({"images": {"image": np.zeros((5, 5), np.float32)}, "proprio": [0] * 4, "instruction": TASK}, "expected uint8"),
        ({"images": {"image": np.zeros((0, 5, 3), np.uint8)}, "proprio": [0] * 4, "instruction": TASK}, "at least one pixel"),
        ({"images": {"image": {"__numpy__": "AAAA", "dtype": "|O", "shape": [1]}}, "instruction": TASK}, "dtype"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(served, body, words):
    status, answer, _ = asked(served.url + "/act", body)
    assert status == 400, answer
    import re

    assert re.search(words, answer["error"]["message"]), answer


def test_one_wrong_request_leaves_the_others_of_its_batch_alone():
    one = policy(settings={"missing_camera": "mask"})
    broken = io.BytesIO()
    Image.fromarray(image(3, 64)).save(broken, "PNG")
    cut = broken.getvalue()[:-40]  # its head is whole: it is found out in the batch
    with Server(one, ServeSettings(port=0, batch_wait=0.5)) as server:
        server.service.scheduler._expected = 3
        from concurrent.futures import ThreadPoolExecutor

        bodies = [
            {"images": {"image": what}, "instruction": TASK}
            for what in (image(0), base64.b64encode(cut).decode(), image(1))
        ]
        with ThreadPoolExecutor(3) as pool:
            made = list(pool.map(lambda body: asked(server.url + "/act", body), bodies))
    assert [status for status, _, _ in made] == [200, 400, 200]
    assert "image" in made[1][1]["error"]["message"]
    for (_, answered, _), seed in zip(made[::2], (0, 1), strict=True):
        assert np.allclose(answered["actions"], one.act(image(seed), TASK), atol=1e-5)


def test_sizes_and_time_are_limited():
    settings = ServeSettings(port=0, body=60_000, pixels=400, body_time=0.2, time_limit=30)
    with Server(policy(), settings) as server:
        url = server.url + "/act"
        assert asked(url, b"a" * 60_001)[0] == 413
        assert asked(url, {"images": {"image": image(0)}, "instruction": TASK})[0] == 400  # 784 pixels
        bomb = io.BytesIO()
        Image.new("1", (5000, 5000)).save(bomb, "PNG")
        status, answer, _ = asked(
            url, {"images": {"image": base64.b64encode(bomb.getvalue()).decode()}, "instruction": TASK}
        )
        assert (status, "pixels" in answer["error"]["message"]) == (400, True)
        with socket.create_connection(("127.0.0.1", server.port)) as slow:
            slow.sendall(b"POST /act HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            assert b" 408 " in slow.recv(100)
        with socket.create_connection(("127.0.0.1", server.port)) as chunked:
            chunked.sendall(b"POST /act HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(20):
                chunked.sendall(b"1000\r\n" + b"a" * 4096 + b"\r\n")
            assert b" 413 " in chunked.recv(100)
        with socket.create_connection(("127.0.0.1", server.port)) as gone:
            gone.sendall(b"POST /act HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert asked(server.url + "/ready")[0] == 200
        while server.service.active:
            time.sleep(0.01)


def test_a_full_queue_and_a_time_limit_are_answered_at_once():
    one = policy()
    with Server(one, ServeSettings(port=0, queue=1, max_batch=1, time_limit=0.4)) as server:
        import threading

        go, real = threading.Event(), one.decide_many
        one.decide_many = lambda *given, **more: (go.wait(30), real(*given, **more))[1]
        from concurrent.futures import ThreadPoolExecutor

        body = {"images": {"image": image(0)}, "instruction": TASK}
        with ThreadPoolExecutor(6) as pool:
            running = [pool.submit(asked, server.url + "/act", body) for _ in range(6)]
            made = [one.result() for one in running]
            go.set()
        statuses = sorted(status for status, _, _ in made)
        assert set(statuses) == {503, 504}
        assert all(headers["Retry-After"] == "1" for status, _, headers in made if status == 503)
        one.decide_many = real
        for _ in range(50):
            if asked(server.url + "/act", body)[0] == 200:
                break
            time.sleep(0.05)
        else:
            raise AssertionError("the server did not come back")


def test_a_token_and_an_origin():
    with Server(policy(), ServeSettings(port=0, token="secret")) as server:
        body = {"images": {"image": image(0)}, "instruction": TASK}
        url = server.url + "/act"
        assert asked(url, body)[0] == 401
        assert asked(url, body, headers={"Authorization": "Bearer secreT"})[0] == 401
        assert asked(url, body, headers={"Authorization": "Bearer secret"})[0] == 200
        assert asked(url, body, headers={"Authorization": "Api-Key secret", "Origin": "http://evil.example"})[0] == 403
        assert asked(url, body, headers={"Authorization": "Api-Key secret", "Origin": server.url})[0] == 200
        assert [asked(server.url + path)[0] for path in ("/healthz", "/ready", "/", "/metrics", "/live", "/info")] == [
            200,
            200,
            200,
            401,
            401,
            401,
        ]


def test_the_server_tells_what_it_is(served):
    assert asked(served.url + "/healthz")[1] == "OK\n"
    assert asked(served.url + "/health")[1] == {"status": "ok"}
    _, about, _ = asked(served.url + "/info")
    assert about["cameras"] == ["image", "wrist"]
    assert (about["dims"], about["chunk_size"], about["proprio"], about["keys"]) == (3, 2, 4, ["bridge"])
    _, page, _ = asked(served.url + "/info", headers={"Accept": "text/html"})
    assert "<h2>Interface</h2>" in page
    _, spec, _ = asked(served.url + "/openapi.json")
    for path, methods in spec["paths"].items():
        for method in methods:
            assert asked(served.url + path, b"{}" if method == "post" else None)[0] in (200, 400), path
    status, answer, _ = asked(served.url + "/v1/chat/completion", b"{}")
    assert (status, answer["error"]["type"]) == (404, "not found")
    assert "nothing is at `/v1/chat/completion`. Did you mean `/v1/chat/completions`" in answer["error"]["message"]
    assert asked(served.url + "/v1/chat/completions", b"{}")[0] == 400


def test_metrics_are_prometheus_text(served):
    _, text, _ = asked(served.url + "/metrics")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    values = {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}
    assert values['vertebra_requests_total{route="/act",status="200"}'] >= 4
    assert values["vertebra_ready"] == 1
    assert values["vertebra_request_seconds_count"] == values['vertebra_request_seconds_bucket{le="+Inf"}'] > 0
    assert values["vertebra_resident_bytes"] > 1e6


def test_a_port_that_is_taken(served):
    with pytest.raises(ConfigError, match="another server has the port"):
        Server(served.service.policy, ServeSettings(port=served.port))


def test_cameras_of_clients_by_name():
    one = policy(cameras=("image", "wrist"))
    with Server(one, ServeSettings(port=0, rename={"left": "wrist", "right": "image"})) as server:
        body = {"images": {"left": image(1), "right": image(0), "depth": image(5)}, "instruction": TASK}
        answer = asked(server.url + "/act", body)[1]
        assert np.array_equal(answer["actions"], one.act({"images": {"image": image(0), "wrist": image(1)}}, TASK))
    with pytest.raises(ConfigError, match="no camera `no`"):
        Server(one, ServeSettings(port=0, rename={"left": "no"}))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_small_packets_are_sent_at_once(host: str):
    """Else an answer of two packets waits for the client's acknowledgement of the first: 40 ms."""

    class Asked(asyncio.Protocol):
        def connection_made(self, transport):
            nodelay.set_result(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            transport.close()

    async def once():
        nonlocal nodelay
        nodelay = asyncio.get_running_loop().create_future()
        server = await asyncio.get_running_loop().create_server(Asked, sock=bound)
        _, writer = await asyncio.open_connection(*bound.getsockname()[:2])
        assert await nodelay
        writer.close()
        server.close()

    nodelay: Any = None
    try:
        bound = bind(ServeSettings(host=host, port=0))
    except ConfigError as error:
        pytest.skip(str(error))  # a machine without IPv6
    asyncio.run(once())
