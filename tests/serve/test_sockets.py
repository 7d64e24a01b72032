"""The websocket with the clients that people have: openpi's own package, vla-eval's connection, starVLA's messages."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

from tests.policies.models import image
from tests.serve.serving import TASK, policy
from vertebra.client.websocket import Closed, Denied, WebSocket
from vertebra.serve import Server, ServeSettings
from vertebra.wire import pack, unpack

STATE = np.array([0.1, 0.2, -0.3, 0.4])
# their client opens a connection in a way that its library is about to give up
OLD = pytest.mark.filterwarnings("ignore:connect.. must be used as a context manager:DeprecationWarning")


@pytest.fixture(scope="module")
def direct(served):
    seen = {"images": {"image": image(0), "wrist": image(1)}, "proprio": STATE}
    return served.service.policy.act(seen, TASK)


def opened(server, query: str = "", **headers: str) -> WebSocket:
    return WebSocket(f"ws://127.0.0.1:{server.port}/{query}", headers=headers, timeout=30)


def openpis(**changes):
    given = {"observation/image": image(0), "observation/wrist_image": image(1), "observation/state": STATE}
    return {**given, "prompt": TASK, **changes}


@OLD
def test_openpis_own_client(served, direct):
    client_of = pytest.importorskip("openpi_client.websocket_client_policy").WebsocketClientPolicy
    client = client_of("127.0.0.1", served.port)
    about = client.get_server_metadata()
    assert (about["chunk_size"], about["dims"], about["cameras"], about["keys"]) == (
        2,
        3,
        ["image", "wrist"],
        ["bridge"],
    )
    for _ in range(2):
        reply = client.infer(openpis())
        assert np.array_equal(reply["actions"], direct)
        assert reply["policy_timing"]["infer_ms"] > 0
    assert reply["server_timing"]["prev_total_ms"] > 0
    with pytest.raises(RuntimeError, match="expected 4 numbers"):
        client.infer(openpis(**{"observation/state": STATE[:2]}))
    client._ws.close()


@OLD
def test_openpis_chunk_broker(served, direct):
    theirs = pytest.importorskip("openpi_client.action_chunk_broker").ActionChunkBroker
    client = pytest.importorskip("openpi_client.websocket_client_policy").WebsocketClientPolicy(
        "127.0.0.1", served.port
    )
    broker = theirs(client, action_horizon=2)
    for step in range(4):
        assert np.array_equal(broker.infer(openpis())["actions"], direct[step % 2])
    client._ws.close()


@OLD
def test_a_token_in_openpis_words():
    client_of = pytest.importorskip("openpi_client.websocket_client_policy").WebsocketClientPolicy
    with Server(policy(), ServeSettings(port=0, token="secret")) as server:
        client = client_of("127.0.0.1", server.port, api_key="secret")
        assert client.infer({"observation/image": image(0), "prompt": TASK})["actions"].shape == (1, 3)
        client._ws.close()
        with pytest.raises(Denied, match="401"):
            opened(server)
        with pytest.raises(Denied, match="403"):
            opened(server, Authorization="Bearer secret", Origin="http://evil.example")


def test_a_socket_where_nothing_is(served):
    with pytest.raises(Denied, match="404"):
        opened(served, "nothing")


def test_vla_evals_own_connection(served, direct):
    connection_of = pytest.importorskip("vla_eval.connection").Connection
    seen = {"images": {"agentview": image(0), "eye_in_hand_wrist": image(1)}, "states": STATE, "task_description": TASK}

    async def episode() -> list[np.ndarray]:
        async with connection_of(f"ws://127.0.0.1:{served.port}") as connection:
            assert connection.server_info["model_server"] == "vertebra"
            await connection.start_episode({"task": {"name": "made"}})
            made = [(await connection.act(seen))["actions"] for _ in range(3)]
            with pytest.raises(RuntimeError, match="expected 4 numbers"):
                await connection.act({**seen, "states": STATE[:1]} if await _restart(connection) else None)
            made.append((await connection.act(seen))["actions"])
            await connection.end_episode({"metrics": {"success": True}})
        return made

    async def _restart(connection) -> bool:
        await connection.start_episode({"task": {"name": "made"}})  # what is left of the chunk is dropped
        return True

    made = asyncio.run(episode())
    assert np.array_equal(np.stack(made), direct[[0, 1, 0, 0]])


@pytest.mark.parametrize("state", [STATE, STATE[None], STATE[None, None], STATE.astype(np.float32)[None]])
@pytest.mark.parametrize("name", ["state", "states", "proprio"])
def test_a_state_of_several_axes_is_no_image(served, direct, name, state):
    """starVLA's clients send [1, D]."""
    connection = opened(served)
    connection.receive()
    example = {"image": [image(0), image(1)], "lang": TASK, name: state}
    connection.send(pack({"type": "infer", "payload": {"examples": [example]}}))
    answer = unpack(connection.receive())
    assert answer["ok"], answer
    assert np.allclose(answer["data"]["actions"][0], direct, atol=1e-5)
    connection.close()


def test_starvlas_messages(served, direct):
    connection = opened(served)
    connection.receive()
    connection.send(pack({"type": "ping", "request_id": "a"}))
    assert unpack(connection.receive())["request_id"] == "a"
    example = {"image": [image(0), image(1)], "lang": TASK, "state": STATE}
    connection.send(pack({"type": "infer", "request_id": "b", "payload": {"examples": [example, example]}}))
    answer = unpack(connection.receive())
    assert (answer["status"], answer["request_id"], answer["data"]["actions"].shape) == ("ok", "b", (2, 2, 3))
    assert np.allclose(answer["data"]["actions"], direct, atol=1e-5)
    connection.send(pack({"type": "infer", "request_id": "c", "payload": {"examples": []}}))
    answer = unpack(connection.receive())
    assert (answer["ok"], answer["request_id"], "examples" in answer["error"]["message"]) == (False, "c", True)
    connection.close()


@pytest.mark.parametrize("data", [b"", b"\xc1", b"{}", pack([1]), pack({"prompt": TASK})])
def test_a_fault_is_text_and_then_1011(served, data):
    connection = opened(served)
    connection.receive()
    connection.send(data)
    assert connection.receive().startswith("bad request: ")
    with pytest.raises(Closed, match="1011"):
        connection.receive()
    connection.close()


def test_a_message_beyond_the_limit_closes_with_1009():
    with Server(policy(), ServeSettings(port=0, body=1000, connections=1)) as server:
        connection = opened(server)
        connection.receive()
        with pytest.raises(Denied, match="503"):
            opened(server)
        connection.send(bytes(2000))
        with pytest.raises(Closed, match="1009"):
            connection.receive()
        connection.close()


def test_each_connection_remembers_its_own_and_a_reset_forgets():
    one, alone = policy(history=1), policy(history=1)
    frames = [image(seed) for seed in range(3)]
    expected = [alone.act(frame, TASK) for frame in frames]
    assert not np.array_equal(expected[1], policy(history=1).act(frames[1], TASK))
    with Server(one, ServeSettings(port=0)) as server:
        connections = [opened(server) for _ in range(2)]
        for connection in connections:
            connection.receive()

        def reported(connection: WebSocket, given: dict) -> dict:
            connection.send(pack(given))
            return unpack(connection.receive())

        for frame, actions in zip(frames, expected, strict=True):
            for connection in connections:
                reply = reported(connection, {"observation/image": frame, "prompt": TASK})
                assert np.allclose(reply["actions"], actions, atol=1e-5)
        assert reported(connections[0], {"type": "reset"}) == {"type": "reset"}
        reply = reported(connections[0], {"observation/image": frames[0], "prompt": TASK})
        assert np.allclose(reply["actions"], expected[0], atol=1e-5)
        for connection in connections:
            connection.close()
        while server.service.sockets:
            time.sleep(0.01)
        reported(again := opened(server, "?session=arm"), {"type": "reset"})  # metadata comes first
        again.close()
        assert not [name for name in one._robots if str(name).startswith("websocket")]


def test_an_ending_server_answers_what_it_took_and_closes_with_1012():
    server = Server(policy(), ServeSettings(port=0)).__enter__()
    busy, idle = opened(server), opened(server)
    for connection in (busy, idle):
        connection.receive()
    scheduler = server.service.scheduler
    import threading

    inside, go, real = threading.Event(), threading.Event(), scheduler.policy.decide_many

    def slow(*given, **more):
        inside.set()
        go.wait(30)
        return real(*given, **more)

    scheduler.policy.decide_many = slow
    busy.send(pack({"observation/image": image(0), "prompt": TASK}))
    assert inside.wait(30)
    ending = threading.Thread(target=server.end)
    ending.start()
    with pytest.raises(Closed, match="1012"):
        idle.receive()
    with pytest.raises(Denied, match="503"):
        opened(server)
    go.set()
    assert unpack(busy.receive())["actions"].shape == (1, 3)
    with pytest.raises(Closed, match="1012"):
        busy.receive()
    for connection in (busy, idle):
        connection.close()
    ending.join(30)
    assert not ending.is_alive()
