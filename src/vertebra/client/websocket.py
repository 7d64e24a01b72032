"""A websocket's client, by the standard library: messages out, messages in. Masked, unfragmented and without extensions."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import ssl
import struct
from urllib.parse import urlsplit

import numpy as np

from vertebra.errors import ConfigError, DataError, NetworkError

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TEXT, _BINARY, _CLOSE, _PING, _PONG = 1, 2, 8, 9, 10
_HEAD = 64 << 10


class Closed(NetworkError):
    """The other end closed, with a code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"the server closed the connection ({code}{f': {reason}' if reason else ''})")
        self.code = code


class Denied(NetworkError):
    """The server did not open a websocket, and answered with a status."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"the server opened no websocket: status {status}. {body}".rstrip())
        self.status = status


class WebSocket:
    """One connection."""

    def __init__(self, url: str, *, headers: dict[str, str], timeout: float, largest: int = 64 << 20) -> None:
        parts = urlsplit(url)
        secure = parts.scheme == "wss"
        port = parts.port or (443 if secure else 80)
        self._rest, self._largest = b"", largest
        try:
            self._socket = socket.create_connection((parts.hostname or "", port), timeout)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if secure:
                self._socket = ssl.create_default_context().wrap_socket(self._socket, server_hostname=parts.hostname)
        except OSError as error:
            raise NetworkError(f"{url} cannot be reached ({error})") from None
        try:
            self._open(parts.path or "/", parts.query, parts.netloc, headers)
        except BaseException:
            self._socket.close()
            raise

    def _open(self, path: str, query: str, host: str, headers: dict[str, str]) -> None:
        key = base64.b64encode(os.urandom(16))
        lines = [
            f"GET {path}{f'?{query}' if query else ''} HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key.decode()}", "Sec-WebSocket-Version: 13",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]  # fmt: skip
        if any("\r" in line or "\n" in line for line in lines):
            raise ConfigError("an address or a token holds the end of a line")
        self._write("\r\n".join(lines).encode() + b"\r\n\r\n")
        while b"\r\n\r\n" not in self._rest:
            if len(self._rest) > _HEAD:
                raise NetworkError("the server answered the handshake with too much")
            self._rest += self._read()
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        first, *others = head.decode("latin-1").split("\r\n")
        found = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in others)}
        status = first.split(" ")[1] if first.count(" ") else ""
        if status != "101":
            body = self._rest[:500].decode("utf-8", "replace")
            raise Denied(int(status) if status.isdigit() else 0, body)
        expected = base64.b64encode(hashlib.sha1(key + _GUID).digest()).decode()
        if found.get("sec-websocket-accept") != expected:
            raise NetworkError("what answered is no websocket server")

    def send(self, data: bytes) -> None:
        """One message of bytes."""
        self._frame(_BINARY, data)

    def receive(self) -> bytes | str:
        """The next message; pings are answered on the way."""
        kind, got = 0, 0
        parts: list[bytes] = []
        while True:
            first, second = self._take(2)
            size = second & 0x7F
            if size >= 126:
                size = struct.unpack(">H", self._take(2))[0] if size == 126 else struct.unpack(">Q", self._take(8))[0]
            if second & 0x80 or first & 0x70 or size + got > self._largest:
                raise NetworkError("the server sent a frame that no server sends, or more than a message may hold")
            data, code = self._take(size), first & 0x0F
            if code == _CLOSE:
                number = struct.unpack(">H", data[:2])[0] if len(data) >= 2 else 1005
                raise Closed(number, data[2:].decode("utf-8", "replace"))
            if code == _PING:
                self._frame(_PONG, data)
            if code >= _CLOSE:
                continue
            kind = code or kind
            parts.append(data)
            got += len(data)
            if first & 0x80:
                whole = b"".join(parts)
                if kind != _TEXT:
                    return whole
                try:
                    return whole.decode()
                except UnicodeDecodeError:
                    raise DataError("the server sent text that is no UTF-8") from None

    def close(self) -> None:
        """Say goodbye, whatever the other end does."""
        try:
            self._frame(_CLOSE, struct.pack(">H", 1000))
        except NetworkError:
            pass
        finally:
            self._socket.close()

    def _frame(self, code: int, data: bytes) -> None:
        size = len(data)
        if size < 126:
            head = struct.pack(">BB", 0x80 | code, 0x80 | size)
        elif size < 1 << 16:
            head = struct.pack(">BBH", 0x80 | code, 0xFE, size)
        else:
            head = struct.pack(">BBQ", 0x80 | code, 0xFF, size)
        mask = os.urandom(4)
        padded = np.frombuffer(data + bytes(-size % 4), np.uint32) ^ np.frombuffer(mask, np.uint32)
        self._write(head + mask + padded.tobytes()[:size])

    def _write(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise NetworkError(f"the connection broke while sending ({error})") from None

    def _take(self, count: int) -> bytes:
        if len(self._rest) < count:
            parts, size = [self._rest], len(self._rest)
            while size < count:
                parts.append(self._read())
                size += len(parts[-1])
            self._rest = b"".join(parts)
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken

    def _read(self) -> bytes:
        try:
            data = self._socket.recv(1 << 18)
        except TimeoutError:
            raise NetworkError("the server did not answer in time; give more `timeout`") from None
        except OSError as error:
            raise NetworkError(f"the connection broke ({error})") from None
        if not data:
            raise NetworkError("the server went away")
        return data
