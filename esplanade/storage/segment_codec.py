"""The bytes of segments and snapshots as they lie in the database: a format byte, msgpack of the events, a checksum that also covers the place.

A body that was damaged, or that stands where it does not belong, is a Fault naming the place; it is never skipped.
Owns the index of a segment too: which versions of which entities it holds.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from esplanade.core.errors import Fault, InvalidInput
from esplanade.storage.journal import Event

FORMAT_1: Final = 1
"""msgpack array of events, each an array (entity, version, type, body). Read, no longer written."""
FORMAT_2: Final = 2
"""As format 1; each event is an array (entity, version, type, body, client, sequence, reply)."""

SEPARATOR: Final = "\n"
"""Parts the names of entities where they travel as one text; no name has it."""

_FORMATS: Final = (bytes((FORMAT_1,)), bytes((FORMAT_2,)))
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(tuple[Event, ...])


class EntityVersions(NamedTuple):
    """The index of a segment: entity i has the events with versions first[i] to last[i]; entities in order of first appearance."""

    entities: list[str]
    first: list[int]
    last: list[int]


def index_of(events: Sequence[Event]) -> EntityVersions:
    """Index a segment's events. Raises InvalidInput where an entity's versions do not count up by one."""
    entities = [event.entity for event in events]
    versions = [event.version for event in events]
    last = dict(zip(entities, versions, strict=True))
    if len(last) == len(events):  # one of each: nothing to compare
        first, entities = versions, list(last)
    else:
        last.clear()
        first = []
        for entity, version in zip(entities, versions, strict=True):
            before = last.get(entity)
            if before is None:
                first.append(version)
            elif version != before + 1:
                raise InvalidInput(f"{entity}: version {version} follows {before}; an entity's versions count up by one")
            last[entity] = version
        entities = list(last)
    check_entities(entities, first)
    return EntityVersions(entities, first, list(last.values()))


def indexes_of(segments: Sequence[Sequence[Event]]) -> list[EntityVersions]:
    """`index_of` each segment of a flush; at once where no entity has two events."""
    entities = [event.entity for events in segments for event in events]
    if len({*entities}) != len(entities):
        return [index_of(events) for events in segments]
    versions = [event.version for events in segments for event in events]
    check_entities(entities, versions)
    indexes, at = [], 0
    for events in segments:
        until = at + len(events)
        first = versions[at:until]
        indexes.append(EntityVersions(entities[at:until], first, first))
        at = until
    return indexes


def check_entities(entities: Sequence[str], first: Sequence[int]) -> None:
    if first and min(first) < 1:
        entity, version = min(zip(entities, first, strict=True), key=lambda found: found[1])
        raise InvalidInput(f"{entity}: version {version}; versions count an entity's events from 1")
    names = SEPARATOR.join(entities)
    if entities and ("" in entities or names.count(SEPARATOR) != len(entities) - 1):
        raise InvalidInput(f"entities {list(entities)[:5]}: each must have a name, without a line end, by which the index of a segment parts names")


def checksum(tenant: str, partition: int, position: int, body: bytes) -> int:
    """CRC-32 of the place and the body, 0 to 2**32 - 1."""
    return zlib.crc32(body, zlib.crc32(f"{tenant}/{partition}/{position}/".encode()))


def encode_events(events: Sequence[Event]) -> bytes:
    body = bytearray((FORMAT_2,))
    _ENCODER.encode_into(events, body, 1)
    return bytes(body)


def decode_events(tenant: str, partition: int, position: int, body: bytes, crc: int) -> tuple[Event, ...]:
    """The events of a segment. Raises Fault where checksum, format or encoding are not right."""
    place = f"segment ({tenant}, {partition}) at position {position}"
    check_body(place, tenant, partition, position, body, crc)
    if body[:1] not in _FORMATS:
        raise Fault(f"{place}: format {body[:1].hex() or 'none'}, this code reads 01 and 02; upgrade Esplanade")
    try:
        return _DECODER.decode(memoryview(body)[1:])
    except msgspec.DecodeError as error:
        raise Fault(f"{place}: the checksum holds but the events cannot be read: {error}") from error


def check_body(place: str, tenant: str, partition: int, position: int, body: bytes, crc: int) -> None:
    found = checksum(tenant, partition, position, body)
    if found != crc:
        raise Fault(f"{place}: checksum {found:08x} is not the recorded {crc:08x}; the stored body is damaged: restore it from a backup")
