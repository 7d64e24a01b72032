"""What clients do wrong, by kind: each is sent on a connection of its own, and tells whether it was answered as it should be.

bad JSON, wrong shapes, huge arrays    refused with the status that says what it is
slow bodies                            408, within the server's time for a body
disconnects midway                     nobody is there to be answered
"""

from __future__ import annotations

import json
import random
import socket
import struct
import time
from collections.abc import Callable

import numpy as np

from vertebra.client.websocket import Closed, WebSocket
from vertebra.errors import NetworkError
from vertebra.wire import pack, to_json

Malformed = Callable[[int, random.Random], bool]
"""(the server's port, luck) → as it should be."""
PATIENCE = 60.0


def _http(port: int, body: bytes, *, length: int | None = None) -> tuple[socket.socket, int]:
    """A connection on which a request was sent; what it promised is its own business."""
    raw = socket.create_connection(("127.0.0.1", port), PATIENCE)
    size = len(body) if length is None else length
    raw.sendall(f"POST /act HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode() + body)
    return raw, size


def _status(raw: socket.socket) -> int:
    """The status of an answer; 0: none came. The answer is read to its end, for the server closes behind it."""
    reply = b""
    try:
        while part := raw.recv(1 << 16):
            reply += part
    except ConnectionResetError:  # it closed while something was still being sent
        pass
    finally:
        raw.close()
    return int(reply.split(b" ", 2)[1]) if reply.startswith(b"HTTP/1.1 ") else 0


def _refused(body: bytes, *statuses: int) -> Malformed:
    return lambda port, luck: _status(_http(port, body)[0]) in statuses


def _wrong_shape(port: int, luck: random.Random) -> bool:
    shapes: list[tuple[int, ...]] = [(28, 28), (28, 28, 7), (0, 28, 3), (3,), (1, 1, 1, 1, 3), (28, 28, 3, 3)]
    image = np.zeros(luck.choice(shapes), luck.choice([np.uint8, np.float32]))
    body = to_json({"images": {"image": image}, "instruction": "a"}).encode()
    return _status(_http(port, body)[0]) == 400


def _lying_array(port: int, luck: random.Random) -> bool:
    """It says that it is a terabyte, and holds four bytes."""
    array = {"__numpy__": "AAAAAA==", "dtype": luck.choice(["<f8", "|u1", "|O"]), "shape": [1 << 20, 1 << 20]}
    body = json.dumps({"images": {"image": array}, "instruction": "a"}).encode()
    return _status(_http(port, body)[0]) == 400


def _huge_promised(port: int, luck: random.Random) -> bool:
    raw, _ = _http(port, b"{", length=1 << 40)
    return _status(raw) == 413


def _huge_sent(port: int, luck: random.Random) -> bool:
    """33 MiB in chunks, of which the server reads as much as it takes to see that it is too much."""
    raw = socket.create_connection(("127.0.0.1", port), PATIENCE)
    raw.sendall(b"POST /act HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    part = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    try:
        for _ in range(34):
            raw.sendall(part)
    except OSError:  # it answered, and closed
        pass
    # an answer may be overtaken by the end of the connection; where sending takes long, it is too slow before it is too large
    return _status(raw) in (413, 408, 0)


def _slow(port: int, luck: random.Random) -> bool:
    raw, _ = _http(port, b"{", length=100)
    return _status(raw) == 408


def _cut_off(port: int, luck: random.Random) -> bool:
    raw, _ = _http(port, b'{"images"', length=luck.choice((100, 1 << 20)))
    _drop(raw, luck)
    return True


def _gone_before_the_answer(port: int, luck: random.Random) -> bool:
    image = np.zeros((28, 28, 3), np.uint8)
    raw, _ = _http(port, to_json({"images": {"image": image}, "instruction": "a", "unnorm_key": "bridge"}).encode())
    _drop(raw, luck)
    return True


def _drop(raw: socket.socket, luck: random.Random) -> None:
    """Go away: politely, or as a cable that is pulled."""
    if luck.random() < 0.5:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    time.sleep(luck.random() * 0.01)
    raw.close()


def _opened(port: int) -> WebSocket:
    opened = WebSocket(f"ws://127.0.0.1:{port}/", headers={}, timeout=PATIENCE)
    opened.receive()
    return opened


def _closed_with(port: int, data: bytes, code: int) -> bool:
    """Sent as a message, and closed with this code, behind words where the protocol has them."""
    opened = _opened(port)
    try:
        opened.send(data)
        while True:
            opened.receive()
    except Closed as closed:
        return closed.code == code
    except NetworkError:  # the end of the connection overtook the code
        return code == 1009
    finally:
        opened.close()


def _bad_message(port: int, luck: random.Random) -> bool:
    wrong = (b"", b"\xc1", b"\xde\xff\xff", luck.randbytes(40), pack({"observation/image": 3, "prompt": "a"}))
    return _closed_with(port, luck.choice(wrong), 1011)


def _huge_message(port: int, luck: random.Random) -> bool:
    return _closed_with(port, bytes(33 << 20), 1009)


def _message_cut_off(port: int, luck: random.Random) -> bool:
    opened = _opened(port)
    opened._write(struct.pack(">BBH", 0x82, 0xFE, 60_000) + luck.randbytes(luck.randrange(2000)))
    _drop(opened._socket, luck)
    return True


KINDS: dict[str, tuple[Malformed, ...]] = {
    "bad JSON": (
        _refused(b"{", 400), _refused(b"\xff\xfe", 400), _refused(b"[" * 9999, 400), _refused(b"", 400), _bad_message,
    ),
    "wrong shapes": (_wrong_shape, _refused(b'{"instruction": 3}', 400), _refused(b'{"images": {"image": "AAAA"}}', 400)),
    "huge arrays": (_lying_array, _huge_promised, _huge_sent, _huge_message, _refused(b"[" + b"0," * 500_000 + b"0]", 400)),
    "slow bodies": (_slow,),
    "disconnects midway": (_cut_off, _gone_before_the_answer, _message_cut_off),
}  # fmt: skip
