"""Many WebSocket clients in one process, cheap enough to leave the server the bottleneck: raw sockets, epoll, and counting. Used by `fanout` and `connections`.

A client's frames are masked with zeros, which the protocol allows and which spares the masking. What arrives is not decoded: publications carry the mark
`STAMP` and the microsecond they were made at (as a frame `parking` does, of which `total` is that number), and those are counted.
"""

from __future__ import annotations

import base64
import os
import select
import socket
import ssl
import struct
import time
from collections import Counter
from collections.abc import Callable, Sequence

STAMP = b"total\xcf"
"""The key `total` of a msgpack map, and that a u8 follows."""
LATER = 2**40
CHUNK = 64
"""Connections opened at once, where nothing else is said."""
SLOW_S = 1.0
"""Between two looks of a slow reader at what has come."""


def now_us() -> int:
    """Microseconds of the monotonic clock, which all processes of a machine share; large enough for a u8 in msgpack."""
    return LATER + time.monotonic_ns() // 1000


def stamped(n_bytes: int) -> bytes:
    """So many bytes with the mark and the time."""
    return (STAMP + now_us().to_bytes(8, "big")).ljust(n_bytes, b"x")


def masked(payload: bytes, *, text: bool = False) -> bytes:
    """A client's WebSocket frame, under a mask of zeros."""
    head = 0x81 if text else 0x82
    n = len(payload)
    if n < 126:
        return struct.pack(">BB", head, 0x80 | n) + bytes(4) + payload
    if n < 2**16:
        return struct.pack(">BBH", head, 0xFE, n) + bytes(4) + payload
    return struct.pack(">BBQ", head, 0xFF, n) + bytes(4) + payload


class Readers:
    """`n` connections to one server, under TLS where there is a `context`. `first`: what client i says once connected; `reply`: bytes that end the server's answer to it."""

    def __init__(
        self,
        port: int,
        n: int,
        *,
        first: Callable[[int], bytes | None],
        reply: bytes,
        subprotocol: str | None,
        hosts: Sequence[str] = ("127.0.0.1",),
        chunk: int = CHUNK,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.sockets: list[socket.socket] = []
        self._epoll = select.epoll()
        self._by_fd: dict[int, socket.socket] = {}
        self._tail: dict[int, bytes] = {}
        for start in range(0, n, chunk):
            self.sockets += _opened(port, range(start, min(n, start + chunk)), first, reply, subprotocol, hosts, context)
        for one in self.sockets:
            one.setblocking(False)
            self._by_fd[one.fileno()] = one
            self._tail[one.fileno()] = b""
            self._epoll.register(one.fileno(), select.EPOLLIN)

    def say(self, payload: bytes, first: int = 0) -> None:
        """One frame from everybody, or from the `first`th client on."""
        frame = masked(payload)
        for one in self.sockets[first:]:
            one.send(frame)

    def forget(self) -> None:
        """Read whatever has come, and count none of it."""
        while self._epoll.poll(0.2):
            for fd, _ in self._epoll.poll(0):
                _arrived(self._by_fd[fd])
                self._tail[fd] = b""

    def read(self, publications: int, *, timeout_s: float, slow_every: int = 0) -> tuple[int, Counter[int]]:
        """Read until so many publications have come in all; returns how many did, and how many of them after so many whole milliseconds. Each `slow_every`th client
        reads every SLOW_S only, and is in no milliseconds."""
        deadline = time.monotonic() + timeout_s
        found = 0
        after_ms: Counter[int] = Counter()
        slow = self.sockets[::slow_every] if slow_every else []
        for one in slow:
            self._epoll.unregister(one.fileno())
        due = time.monotonic() + SLOW_S
        while found < publications and time.monotonic() < deadline:
            for fd, _ in self._epoll.poll(0.05):
                found += self._take(fd, after_ms)
            if slow and time.monotonic() >= due:
                due = time.monotonic() + SLOW_S
                found += sum(self._take(one.fileno(), None) for one in slow)
        for one in slow:
            self._epoll.register(one.fileno(), select.EPOLLIN)
        return found, after_ms

    def _take(self, fd: int, after_ms: Counter[int] | None) -> int:
        data = self._tail[fd] + _arrived(self._by_fd[fd])
        count = data.count(STAMP)
        if count and after_ms is not None:
            at = data.rfind(STAMP) + len(STAMP)
            if at + 8 <= len(data):
                after_ms[(now_us() - int.from_bytes(data[at : at + 8], "big")) // 1000] += count
        self._tail[fd] = data[-(len(STAMP) - 1) :]
        return count

    def close(self) -> None:
        for one in self.sockets:
            one.close()
        self._epoll.close()


def _opened(
    port: int, indices: range, first: Callable[[int], bytes | None], reply: bytes, subprotocol: str | None, hosts: Sequence[str],
    context: ssl.SSLContext | None,
) -> list[socket.socket]:  # fmt: skip
    sockets = []
    for i in indices:
        one = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one.settimeout(60)
        one.bind((hosts[i % len(hosts)], 0))
        one.connect(("127.0.0.1", port))
        if context is not None:
            one = context.wrap_socket(one, server_hostname="127.0.0.1")
        key = base64.b64encode(os.urandom(16)).decode()
        wanted = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol else ""
        one.sendall(
            f"GET /v1/ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{wanted}\r\n".encode()
        )
        sockets.append(one)
    for i, one in zip(indices, sockets, strict=True):
        head = _until(one, b"\r\n\r\n")
        if b" 101 " not in head.split(b"\r\n", 1)[0]:
            raise AssertionError(f"handshake {i}: {head[:200]!r}")
        said = first(i)
        if said is not None:
            one.sendall(masked(said))
    if reply:
        for one in sockets:
            _until(one, reply)
    return sockets


def _arrived(one: socket.socket) -> bytes:
    """What has come, of a socket that does not block."""
    if not isinstance(one, ssl.SSLSocket):
        try:
            return one.recv(65_536)
        except BlockingIOError:
            return b""
    data = b""
    while True:  # what is decrypted already wakes nobody
        try:
            more = one.recv(65_536)
        except ssl.SSLWantReadError:
            return data
        if not more:
            return data
        data += more


def _until(one: socket.socket, end: bytes) -> bytes:
    data = b""
    while end not in data:
        more = one.recv(65_536)
        if not more:
            raise AssertionError(f"closed while waiting for {end!r}: {data[-300:]!r}")
        data += more
    return data
