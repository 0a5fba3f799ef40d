"""The bytes of segments and snapshots as they lie in the database: a format byte, msgpack of the events, a checksum that also covers the place.

A body that was damaged, or that stands where it does not belong, is a Fault naming the place; it is never skipped.
Owns the index of a segment too: which versions of which entities it holds; and the form in which events wait for their flush, which is the stored one already.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, overload

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


_HEADING_BYTES: Final = 6
"""At most: the format, and msgpack's heading of an array. It is known only at the end how many events there are."""

pack_event: Final[Callable[[Any, bytearray, int], None]] = _ENCODER.encode_into
"""Puts a stored event, an `Event` or a tuple of its fields, at the end (-1) of the body of `PackedEvents`; who calls it puts its entity and version into the lists."""


class PackedEvents(Sequence[Event]):
    """Events of a segment to be, in order: their bytes as they will be stored, and what the index needs. No object an event is kept; reading one decodes all."""

    __slots__ = ("body", "entities", "versions")

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.body = bytearray(_HEADING_BYTES)
        self.entities: list[str] = []
        self.versions: list[int] = []
        for event in events:
            self.add(event)

    def add(self, event: Event) -> None:
        pack_event(event, self.body, -1)
        self.entities.append(event.entity)
        self.versions.append(event.version)

    def stored(self) -> bytes:
        """The body of the segment."""
        heading = _FORMATS[1] + _array_heading(len(self.versions))
        begin = _HEADING_BYTES - len(heading)
        self.body[begin:_HEADING_BYTES] = heading
        return bytes(memoryview(self.body)[begin:])

    def __len__(self) -> int:
        return len(self.versions)

    def __iter__(self) -> Iterator[Event]:
        return iter(_DECODER.decode(memoryview(self.stored())[1:]))

    @overload
    def __getitem__(self, index: int) -> Event: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Event]: ...

    def __getitem__(self, index: int | slice) -> Event | Sequence[Event]:
        return tuple(self)[index]


def _array_heading(count: int) -> bytes:
    """Of a msgpack array, the shortest."""
    return bytes((0x90 | count,)) if count < 16 else struct.pack(">BH", 0xDC, count) if count < 2**16 else struct.pack(">BI", 0xDD, count)


class EntityVersions(NamedTuple):
    """The index of a segment: entity i has the events with versions first[i] to last[i]; entities in order of first appearance. `names`: the entities as one text."""

    entities: list[str]
    first: list[int]
    last: list[int]
    names: str


def index_of(events: Sequence[Event]) -> EntityVersions:
    """Index a segment's events. Raises InvalidInput where an entity's versions do not count up by one."""
    if isinstance(events, PackedEvents):
        entities, versions = events.entities, events.versions
    else:
        entities, versions = [event.entity for event in events], [event.version for event in events]
    if len({*entities}) == len(entities):  # one of each: nothing to compare
        return EntityVersions(entities, versions, versions, check_entities(entities, versions))
    last: dict[str, int] = {}
    first = []
    for entity, version in zip(entities, versions, strict=True):
        before = last.get(entity)
        if before is None:
            first.append(version)
        elif version != before + 1:
            raise InvalidInput(f"{entity}: version {version} follows {before}; an entity's versions count up by one")
        last[entity] = version
    entities = list(last)
    return EntityVersions(entities, first, list(last.values()), check_entities(entities, first))


def check_entities(entities: Sequence[str], first: Sequence[int]) -> str:
    """The entities as one text. Raises InvalidInput where they cannot be an index."""
    if first and min(first) < 1:
        entity, version = min(zip(entities, first, strict=True), key=lambda found: found[1])
        raise InvalidInput(f"{entity}: version {version}; versions count an entity's events from 1")
    names = SEPARATOR.join(entities)
    if entities and ("" in entities or names.count(SEPARATOR) != len(entities) - 1):
        raise InvalidInput(f"entities {list(entities)[:5]}: each must have a name, without a line end, by which the index of a segment parts names")
    return names


def checksum(tenant: str, partition: int, position: int, body: bytes) -> int:
    """CRC-32 of the place and the body, 0 to 2**32 - 1."""
    return zlib.crc32(body, zlib.crc32(f"{tenant}/{partition}/{position}/".encode()))


def encode_events(events: Sequence[Event]) -> bytes:
    """The body of a segment."""
    return (events if isinstance(events, PackedEvents) else PackedEvents(events)).stored()


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
