"""The bytes of segments and snapshots as they lie in the database: a format byte, msgpack of the events, a checksum that also covers the place.

A body that was damaged, or that stands where it does not belong, is a Fault naming the place; it is never skipped.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final

import msgspec

from esplanade.core.errors import Fault
from esplanade.storage.journal import Event

FORMAT_1: Final = 1
"""msgpack array of events, each an array (entity, version, type, body)."""

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(tuple[Event, ...])


def checksum(tenant: str, partition: int, position: int, body: bytes) -> int:
    """CRC-32 of the place and the body, 0 to 2**32 - 1."""
    return zlib.crc32(body, zlib.crc32(f"{tenant}/{partition}/{position}/".encode()))


def encode_events(events: Sequence[Event]) -> bytes:
    body = bytearray((FORMAT_1,))
    _ENCODER.encode_into(events, body, 1)
    return bytes(body)


def decode_events(tenant: str, partition: int, position: int, body: bytes, crc: int) -> tuple[Event, ...]:
    """The events of a segment. Raises Fault where checksum, format or encoding are not right."""
    place = f"segment ({tenant}, {partition}) at position {position}"
    check_body(place, tenant, partition, position, body, crc)
    if body[:1] != bytes((FORMAT_1,)):
        raise Fault(f"{place}: format {body[:1].hex() or 'none'}, this code reads 01; upgrade Esplanade")
    try:
        return _DECODER.decode(memoryview(body)[1:])
    except msgspec.DecodeError as error:
        raise Fault(f"{place}: the checksum holds but the events cannot be read: {error}") from error


def check_body(place: str, tenant: str, partition: int, position: int, body: bytes, crc: int) -> None:
    found = checksum(tenant, partition, position, body)
    if found != crc:
        raise Fault(f"{place}: checksum {found:08x} is not the recorded {crc:08x}; the stored body is damaged: restore it from a backup")
