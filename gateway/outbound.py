"""Encoded frames of one loop turn as the bytes of WebSocket messages, made once however many connections they go to. Pure.

A server's WebSocket frames carry no mask, so that what is the same for many readers is the same down to the socket.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from gateway.codec import Codec
from gateway.frames import MAX_BATCH

JOIN_BYTES: Final = 1024 * 1024
"""Frames are joined into one message up to about this size."""
_TEXT, _BINARY = 0x81, 0x82
"""First byte of a whole message (RFC 6455, section 5.2)."""


class Wire:
    """`data`: the messages as they go over the socket; `messages`, `frames`: how many there are in it; `payload_bytes`: without WebSocket's own heads."""

    __slots__ = ("data", "frames", "messages", "payload_bytes")

    def __init__(self, data: bytes, frames: int, messages: int, payload_bytes: int) -> None:
        self.data = data
        self.frames = frames
        self.messages = messages
        self.payload_bytes = payload_bytes


def wire_of(frames: Sequence[bytes], codec: Codec) -> Wire:
    """At least one encoded frame, in order, in as few messages as MAX_BATCH and JOIN_BYTES allow."""
    if len(frames) == 1:
        [one] = frames
        return Wire(_head(codec.text, len(one)) + one, 1, 1, len(one))
    parts: list[bytes] = []
    payload_bytes = start = size = 0
    for i in range(len(frames) + 1):
        if i == len(frames) or (i > start and (i - start >= MAX_BATCH or size + len(frames[i]) > JOIN_BYTES)):
            message = codec.join(frames[start:i])
            parts += (_head(codec.text, len(message)), message)
            payload_bytes += len(message)
            start, size = i, 0
        if i < len(frames):
            size += len(frames[i])
    return Wire(b"".join(parts), len(frames), len(parts) // 2, payload_bytes)


_SHORT: Final = {text: tuple(bytes([first, n]) for n in range(126)) for text, first in ((True, _TEXT), (False, _BINARY))}
"""Heads of payloads below 126 bytes."""


def _head(text: bool, n: int) -> bytes:
    if n < 126:
        return _SHORT[text][n]
    first = _TEXT if text else _BINARY
    return struct.pack(">BBH", first, 126, n) if n < 2**16 else struct.pack(">BBQ", first, 127, n)
