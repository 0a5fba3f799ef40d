"""Frames to bytes and back, in the two formats. Messages hold one frame or an array of frames.

`Codec.decode` never raises: what cannot be read comes back as `Unreadable`, with the seq of the request where that can be told.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec

from gateway.frames import MAX_BATCH, ClientFrame, ServerFrame

Format = Literal["msgpack", "json"]
FORMATS: Final[dict[str, Format]] = {"esplanade.v1.msgpack": "msgpack", "esplanade.v1.json": "json"}


class Unreadable(msgspec.Struct, frozen=True):
    """What came is no frame: `reason` says what and how; `seq` where it could be told."""

    reason: str
    seq: int | None = None


class _Head(msgspec.Struct):
    op: Any = None
    seq: Any = None


_ERRORS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError, OverflowError)
_ENCODE_MSGPACK: Final = msgspec.msgpack.Encoder()
_ENCODE_JSON: Final = msgspec.json.Encoder()
_Batch = Annotated[list[ClientFrame], msgspec.Meta(min_length=1, max_length=MAX_BATCH)]
_WHOLE_MSGPACK: Final = msgspec.msgpack.Decoder(ClientFrame | _Batch)
_WHOLE_JSON: Final = msgspec.json.Decoder(ClientFrame | _Batch)
_APART_MSGPACK: Final = msgspec.msgpack.Decoder(ClientFrame | list[msgspec.Raw])
_APART_JSON: Final = msgspec.json.Decoder(ClientFrame | list[msgspec.Raw])
_ONE_MSGPACK: Final = msgspec.msgpack.Decoder(ClientFrame)
_ONE_JSON: Final = msgspec.json.Decoder(ClientFrame)
_HEAD_MSGPACK: Final = msgspec.msgpack.Decoder(_Head)
_HEAD_JSON: Final = msgspec.json.Decoder(_Head)


class Codec:
    """One of the two formats."""

    def __init__(self, format: Format) -> None:
        self.format: Format = format
        self.text = format == "json"
        self._encoder: msgspec.msgpack.Encoder | msgspec.json.Encoder
        if format == "json":
            self._encoder, self._whole, self._apart, self._one, self._head = _ENCODE_JSON, _WHOLE_JSON, _APART_JSON, _ONE_JSON, _HEAD_JSON
        else:
            self._encoder, self._whole, self._apart = _ENCODE_MSGPACK, _WHOLE_MSGPACK, _APART_MSGPACK  # type: ignore[assignment]
            self._one, self._head = _ONE_MSGPACK, _HEAD_MSGPACK  # type: ignore[assignment]
        self.encode: Callable[[ServerFrame | ClientFrame], bytes] = self._encoder.encode
        """A frame's bytes."""

    def join(self, encoded: Sequence[bytes]) -> bytes:
        """One message of 1 to MAX_BATCH encoded frames: a frame alone stands by itself, several as an array."""
        n = len(encoded)
        if not 1 <= n <= MAX_BATCH:
            raise ValueError(f"{n} frames in one message: 1 to {MAX_BATCH}")
        if n == 1:
            return encoded[0]
        if self.text:
            return b"[" + b",".join(encoded) + b"]"
        head = bytes([0x90 | n]) if n < 16 else struct.pack(">BH", 0xDC, n)
        return head + b"".join(encoded)

    def decode(self, message: bytes | str) -> list[ClientFrame | Unreadable]:
        """The frames of a message, in order; a frame that cannot be read stands as Unreadable and spoils no other."""
        if isinstance(message, str) is not self.text:
            kind = "text" if self.text else "binary"
            return [
                Unreadable(f"a {'text' if isinstance(message, str) else 'binary'} message: subprotocol esplanade.v1.{self.format} carries {kind}")
            ]
        try:
            whole = self._whole.decode(message)
        except _ERRORS:
            return self._decode_apart(message)
        return whole if type(whole) is list else [whole]

    def _decode_apart(self, message: bytes | str) -> list[ClientFrame | Unreadable]:
        """A message that cannot be read as a whole: which of its frames can."""
        try:
            decoded = self._apart.decode(message)
        except _ERRORS as error:
            return [self._unreadable(message, error)]
        if not isinstance(decoded, list):
            return [decoded]
        if len(decoded) > MAX_BATCH:
            return [Unreadable(f"{len(decoded)} frames in one message: at most {MAX_BATCH}, send several messages")]
        if not decoded:
            return [Unreadable("an empty array: a message holds at least one frame")]
        out: list[ClientFrame | Unreadable] = []
        for raw in decoded:
            try:
                out.append(self._one.decode(raw))
            except _ERRORS as error:
                out.append(self._unreadable(raw, error))
        return out

    def _unreadable(self, data: Any, error: Exception) -> Unreadable:
        if isinstance(error, RecursionError):
            return Unreadable("nested too deeply: a frame is a flat map")
        if isinstance(error, UnicodeDecodeError):
            return Unreadable(f"text that is not UTF-8 ({error.reason} at byte {error.start})")
        try:
            head = self._head.decode(data)
        except _ERRORS:
            return Unreadable(f"not a frame: {error}")
        seq = head.seq if isinstance(head.seq, int) and not isinstance(head.seq, bool) and 1 <= head.seq < 2**53 else None
        if not isinstance(head.op, str):
            return Unreadable(f"not a frame: {error}; a frame is a map with a string 'op'", seq)
        return Unreadable(f"{head.op[:40]}: {error}", seq)


MSGPACK: Final = Codec("msgpack")
JSON: Final = Codec("json")
CODECS: Final[dict[Format, Codec]] = {"msgpack": MSGPACK, "json": JSON}


def to_json_text(frame: ServerFrame | ClientFrame) -> str:
    """A frame as indented JSON, for documents and golden files."""
    return json.dumps(json.loads(_ENCODE_JSON.encode(frame)), indent=2, ensure_ascii=False)
