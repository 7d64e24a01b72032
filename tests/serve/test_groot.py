"""GR00T's protocol over a real ZMQ socket, with a client of `msgpack` and `numpy` alone, as GR00T's own is."""

from __future__ import annotations

import io
import threading
from typing import Any

import numpy as np
import pytest

from tests.policies.models import image
from tests.serve.serving import TASK, policy
from vertebra import load
from vertebra.errors import ConfigError, DataError
from vertebra.serve import Server, ServeSettings
from vertebra.wire import unpack

msgpack = pytest.importorskip("msgpack")
zmq = pytest.importorskip("zmq")
STATE = np.array([0.1, 0.2, -0.3, 0.4], np.float32)


def packed(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        file = io.BytesIO()
        np.save(file, value, allow_pickle=False)
        return {"__ndarray_class__": True, "as_npy": file.getvalue()}
    return value


def read(value: dict) -> Any:
    return np.load(io.BytesIO(value["as_npy"])) if "__ndarray_class__" in value else value


class Client:
    """One REQ socket."""

    def __init__(self, port: int, token: str | None = None) -> None:
        self.socket = zmq.Context.instance().socket(zmq.REQ)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVTIMEO, 60_000)
        self.socket.connect(f"tcp://127.0.0.1:{port}")
        self.token = {} if token is None else {"api_token": token}

    def __call__(self, endpoint: str, data: Any = None) -> Any:
        self.socket.send(msgpack.packb({"endpoint": endpoint, "data": data, **self.token}, default=packed))
        return msgpack.unpackb(self.socket.recv(), object_hook=read)

    def act(self, *seeds: int) -> Any:
        """The chunks of as many robots as there are seeds."""
        video = {
            "image": np.stack([image(s) for s in seeds])[:, None],
            "wrist": np.stack([image(s + 1) for s in seeds])[:, None],
        }
        parts = {"arm": STATE[:3], "hand": STATE[3:]}
        state = {name: np.tile(one, (len(seeds), 1, 1)) for name, one in parts.items()}
        seen = {"video": video, "state": state, "language": {"task": [[TASK]] * len(seeds)}}
        return self("get_action", {"observation": seen, "options": None})

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *what: object) -> None:
        self.socket.close()


def both(**changes: Any) -> Any:
    return policy(chunk=2, cameras=("image", "wrist"), proprio=True, **changes)


@pytest.fixture(scope="module")
def served():
    with Server(both(), ServeSettings(port=0, groot=0)) as server:
        yield server


def test_its_client_is_answered(served):
    with Client(served.groot_port) as client:
        assert client("ping")["status"] == "ok"
        known = client("get_modality_config")
        assert known["video"]["as_json"] == {"delta_indices": [0], "modality_keys": ["image", "wrist"]}
        assert known["action"]["as_json"]["delta_indices"] == [0, 1]
        actions, about = client.act(0, 5)
        assert (actions["action"].shape, actions["action"].dtype, about) == ((2, 2, 3), np.float32, {})
        for row, seed in enumerate((0, 5)):
            seen = {"images": {"image": image(seed), "wrist": image(seed + 1)}, "proprio": STATE}
            assert np.allclose(actions["action"][row], served.service.policy.act(seen, TASK), atol=1e-5)
        assert client("reset", {"options": None}) == {}


def test_clients_side_by_side(served):
    with Client(served.groot_port) as one:
        expected = [one.act(seed)[0]["action"] for seed in range(3)]
    wrong = []

    def work(seed: int) -> None:
        with Client(served.groot_port) as client:
            wrong.extend(
                n for n in range(5) if not np.allclose(client.act(seed)[0]["action"], expected[seed], atol=1e-5)
            )

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


FLAT, THREE = np.zeros((1, 28, 28, 3), np.uint8), np.zeros((1, 1, 4))


@pytest.mark.parametrize(
    ("endpoint", "seen", "words"),
    [
        ("kill", None, "unknown endpoint"),
        ("get_action", None, "expected {video"),
        ("get_action", {"video": {"image": FLAT}, "language": {"a": [["b"]]}}, "expected BTHWC"),
        ("get_action", {"state": {"arm": THREE}, "language": {"a": [["b"], ["c"]]}}, "are of [1, 2] robots"),
        ("get_action", {"language": {"a": [["b"]]}}, "camera `image` is missing"),
    ],
)
def test_what_is_wrong_is_an_error_with_words(served, endpoint, seen, words):
    with Client(served.groot_port) as client:
        assert words in client(endpoint, {"observation": seen})["error"]
        assert client("ping")["status"] == "ok"


def test_what_is_remembered_is_each_clients_own_and_reset_forgets():
    frames = [0, 3, 8]
    alone = both(history=1)
    expected = [
        alone.act({"images": {"image": image(s), "wrist": image(s + 1)}, "proprio": STATE}, TASK) for s in frames
    ]
    with Server(both(history=1), ServeSettings(port=0, groot=0, token="secret")) as server:
        with Client(server.groot_port) as stranger:
            assert "api_token" in stranger("ping")["error"]
        with Client(server.groot_port, "secret") as one, Client(server.groot_port, "secret") as other:
            for _ in range(2):
                for seed, actions in zip(frames, expected, strict=True):
                    for client in (one, other):
                        assert np.allclose(client.act(seed)[0]["action"][0], actions, atol=1e-5)
                for client in (one, other):
                    client("reset", {"options": None})


def test_it_is_about_policies_and_ports():
    with (
        pytest.raises(ConfigError, match="is a language model"),
        Server(load("tiny-llama2"), ServeSettings(port=0, groot=0)),
    ):
        pass
    with (
        Server(both(), ServeSettings(port=0, groot=0)) as first,
        pytest.raises(ConfigError, match="take another port"),
        Server(both(), ServeSettings(port=0, groot=first.groot_port)),
    ):
        pass


@pytest.mark.parametrize(
    "array",
    [np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)), np.array(True)],
    ids=str,
)
def test_a_npy_file_is_read_as_numpy_reads_it(array):
    found = unpack(msgpack.packb({"a": array}, default=packed))["a"]
    assert np.array_equal(found, array)
    assert (found.dtype, found.shape) == (array.dtype, array.shape)


def test_a_npy_file_that_lies_is_refused_before_memory_is_taken():
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (1 << 30, 1 << 20)})
    objects = io.BytesIO()
    np.save(objects, np.array([{}], object), allow_pickle=True)
    for data in (file.getvalue(), objects.getvalue(), b"\x93NUMPY", b"", packed(np.zeros(3))["as_npy"][:-1]):
        with pytest.raises(DataError):
            unpack(msgpack.packb({"__ndarray_class__": True, "as_npy": data}))
