"""The HTTP request that opens a WebSocket, where it is as every client writes it; answers to it as bytes. Pure.

What is in any way unusual is not judged here: the library reads that. Whatever is accepted here the library accepts too, with the same answer; a property test compares.
"""

from __future__ import annotations

import base64
import hashlib
import http
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MAX_BYTES: Final = 4096
"""A longer request is none of every day's."""
MAX_FIELDS: Final = 64
_REQUEST: Final = re.compile(rb"GET ([\x21-\x7e]+) HTTP/1\.1\r\n((?:[-!#$%&'*+.^_`|~0-9a-zA-Z]+:[\x20-\x7e]*\r\n)+)\r\n")
_TOKENS: Final = re.compile(r"[-!#$%&'*+.^_`|~0-9a-zA-Z]+(?:, ?[-!#$%&'*+.^_`|~0-9a-zA-Z]+)*")
_KEY: Final = re.compile(r"[A-Za-z0-9+/]{22}==")
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455, section 1.3."""
_BODIES: Final = ("transfer-encoding", "content-length")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client wants. `key` and `subprotocol` are empty where the library answers."""

    path: str
    origin: str | None
    host: str
    key: str = ""
    subprotocol: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """`reason`: the label of a metric. `retry_after_s`: where there is use in coming again."""

    status: http.HTTPStatus
    reason: str
    text: str
    retry_after_s: int | None = None


def asked_in(data: bytes, subprotocols: Sequence[str]) -> Asked | None:
    """The request, if these bytes are all of it and there is nothing unusual about it. `subprotocols`: those we speak, the preferred one first."""
    if len(data) > MAX_BYTES:
        return None
    found = _REQUEST.fullmatch(data)
    if found is None:
        return None
    lines = found[2].decode("ascii").split("\r\n")
    lines.pop()
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields[name.lower()] = value.strip(" ")
    if len(fields) != len(lines) or len(fields) > MAX_FIELDS or any(name in fields for name in _BODIES):
        return None
    key, connection, offered = fields.get("sec-websocket-key", ""), fields.get("connection", ""), fields.get("sec-websocket-protocol", "")
    if (
        fields.get("upgrade", "").lower() != "websocket"
        or fields.get("sec-websocket-version") != "13"
        or not _KEY.fullmatch(key)
        or not _TOKENS.fullmatch(connection)
        or "upgrade" not in connection.lower().replace(" ", "").split(",")
        or not _TOKENS.fullmatch(offered)
    ):
        return None
    known = offered.replace(" ", "").split(",")
    for subprotocol in subprotocols:
        if subprotocol in known:
            return Asked(found[1].decode("ascii"), fields.get("origin"), fields.get("host", ""), key, subprotocol)
    return None


def switching(asked: Asked) -> bytes:
    """101, after which the connection speaks WebSocket."""
    accept = base64.b64encode(hashlib.sha1(asked.key.encode() + _GUID, usedforsecurity=False).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\nSec-WebSocket-Protocol: %b\r\n\r\n"
        % (
            accept,
            asked.subprotocol.encode(),
        )
    )


def refused(refusal: Refusal) -> bytes:
    """The whole answer, after which the connection is closed."""
    text = refusal.text.encode()
    retry = "" if refusal.retry_after_s is None else f"Retry-After: {refusal.retry_after_s}\r\n"
    head = (
        f"HTTP/1.1 {refusal.status.value} {refusal.status.phrase}\r\nConnection: close\r\n{retry}"
        f"Content-Type: text/plain; charset=utf-8\r\nContent-Length: {len(text)}\r\n\r\n"
    )
    return head.encode() + text
