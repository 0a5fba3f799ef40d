"""Requests that are read without the library, against the library."""

from __future__ import annotations

import http

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from gateway.frames import SUBPROTOCOLS
from gateway.handshake import Refusal, asked_in, refused, switching

MSGPACK = SUBPROTOCOLS[0]
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
FIELDS = {
    "Host": ["example.test", "[::1]:8080", ""],
    "Upgrade": ["websocket", "WebSocket", "websocket, h2c", "h2c"],
    "Connection": ["Upgrade", "keep-alive, Upgrade", "keep-alive,upgrade", "close", "Upgrade,", ", Upgrade", "up grade"],
    "Sec-WebSocket-Key": [KEY, "AAAAAAAAAAAAAAAAAAAAAB==", "c2hvcnQ=", "dGhlIHNhbXBsZSBub25jZQ", "d Ghl"],
    "Sec-WebSocket-Version": ["13", "8", "013"],
    "Sec-WebSocket-Protocol": [MSGPACK, f"{SUBPROTOCOLS[1]}, {MSGPACK}", f"mqtt,{SUBPROTOCOLS[1]}", "mqtt", "", '"quoted"'],
    "Origin": ["https://shop.example", "null"],
    "Content-Length": ["0", "5"],
    "Transfer-Encoding": ["chunked"],
    "User-Agent": ["x" * 10, "tab\there", "caf\u00e9"],
}
BROWSER = (
    "GET /v1/ws?x=1 HTTP/1.1\r\nHost: shop.example:8443\r\nConnection: keep-alive, Upgrade\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nUpgrade: websocket\r\nOrigin: https://shop.example:8443\r\nSec-WebSocket-Version: 13\r\n"
    f"Accept-Encoding: gzip, deflate, br\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    f"Sec-WebSocket-Protocol: {MSGPACK}\r\n\r\n"
)

lines = st.sampled_from(list(FIELDS)).flatmap(
    lambda name: st.tuples(st.sampled_from([name, name.lower(), name.upper()]), st.sampled_from(FIELDS[name]))
)
wanted = st.permutations(
    [
        ("Host", "example.test"), ("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Key", KEY), ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Protocol", MSGPACK),
    ]
)  # fmt: skip


def by_the_library(data: bytes) -> tuple[Request | None, Response | None]:
    protocol = ServerProtocol(subprotocols=[Subprotocol(name) for name in SUBPROTOCOLS])
    protocol.receive_data(data)
    events = protocol.events_received()
    if not events:
        return None, None
    assert isinstance(events[0], Request)
    return events[0], protocol.accept(events[0])


@given(
    wanted=wanted,
    replaced=st.dictionaries(st.integers(0, 5), lines, max_size=2),
    more=st.lists(lines, max_size=2),
    colon=st.sampled_from([": ", ":", ":  ", " : "]),
    start=st.sampled_from(["GET /v1/ws HTTP/1.1", "GET /v1/ws HTTP/1.0", "POST /v1/ws HTTP/1.1", "GET /a b HTTP/1.1", "GET  /v1/ws HTTP/1.1"]),
    end=st.sampled_from(["\r\n\r\n", "\r\n\r\nmore", "\r\n", "\n\n"]),
)
def test_what_is_accepted_the_library_accepts_with_the_same_answer(
    wanted: list[tuple[str, str]], replaced: dict[int, tuple[str, str]], more: list[tuple[str, str]], colon: str, start: str, end: str
) -> None:
    fields = [replaced.get(i, one) for i, one in enumerate(wanted)] + more
    data = (start + "".join(f"\r\n{name}{colon}{value}" for name, value in fields) + end).encode("latin-1")
    asked = asked_in(data, SUBPROTOCOLS)
    if asked is None:
        return
    request, response = by_the_library(data)
    assert request is not None
    assert response is not None
    assert response.status_code == http.HTTPStatus.SWITCHING_PROTOCOLS
    assert (asked.path, asked.origin, asked.host) == (request.path, request.headers.get("Origin"), request.headers.get("Host", ""))
    answer = switching(asked).decode().split("\r\n")
    for name in ("Sec-WebSocket-Accept", "Sec-WebSocket-Protocol"):
        assert f"{name}: {response.headers[name]}" in answer


@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
def test_what_browsers_and_phones_send_is_read_here(subprotocol: str) -> None:
    asked = asked_in(BROWSER.replace(MSGPACK, subprotocol).encode(), SUBPROTOCOLS)
    assert asked is not None
    assert (asked.path, asked.origin, asked.host, asked.subprotocol) == ("/v1/ws?x=1", "https://shop.example:8443", "shop.example:8443", subprotocol)


@pytest.mark.parametrize("retry_after_s", [None, 7])
def test_a_refusal_is_a_whole_answer(retry_after_s: int | None) -> None:
    refusal = Refusal(http.HTTPStatus.SERVICE_UNAVAILABLE, "full", "come later\n", retry_after_s)
    head, _, body = refused(refusal).decode().partition("\r\n\r\n")
    assert body == refusal.text
    assert head.startswith("HTTP/1.1 503 Service Unavailable\r\n")
    assert f"Content-Length: {len(body)}" in head
    assert ("Retry-After: 7" in head) is (retry_after_s is not None)
