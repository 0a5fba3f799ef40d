"""Whether the journal in a database is whole: every log's positions without a gap, every body's checksum, every index what the events say, versions without a gap.

Reads with the owner's rights, over all tenants, in the caller's transaction. Changes nothing, mends nothing: what it finds is a Fault that names the place.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec
import psycopg

from esplanade.core.errors import Fault
from esplanade.storage.flush_rules import index_of
from esplanade.storage.journal import Append
from esplanade.storage.segment_codec import check_body, decode_events

_AT_ONCE: Final = 4
"""Segments fetched at once; one may hold as much as a flush."""

_SEGMENTS: Final = """
    SELECT tenant, partition, position, epoch, entities, first_versions, last_versions, body, crc
    FROM esplanade.segment ORDER BY tenant COLLATE "C", partition, position
"""
_SNAPSHOTS: Final = """
    SELECT s.tenant, s.partition, s.position, s.body, s.crc,
        (SELECT max(g.position) FROM esplanade.segment g WHERE g.tenant = s.tenant AND g.partition = s.partition) AS head
    FROM esplanade.snapshot s
"""


class JournalCheck(msgspec.Struct):
    """What was read and found whole."""

    logs: int = 0
    segments: int = 0
    events: int = 0
    bytes: int = 0
    snapshots: int = 0


def check_journal(connection: psycopg.Connection[Any]) -> JournalCheck:
    """Read every segment and snapshot. Raises Fault at the first that is not right."""
    found = JournalCheck()
    log: tuple[str, int] | None = None
    last = last_epoch = 0
    versions: dict[str, int] = {}
    for tenant, partition, position, epoch, entities, first, until, body, crc in _rows(connection, _SEGMENTS):
        if log != (tenant, partition):
            log, last, last_epoch, versions = (tenant, partition), 0, 0, {}
            found.logs += 1
        place = f"log ({tenant}, {partition})"
        if position != last + 1:
            raise Fault(f"{place}: position {position} follows {last}; segments are missing: restore them from a backup")
        if epoch < last_epoch:
            raise Fault(f"{place}: epoch {epoch} at position {position} follows {last_epoch}; a former owner has appended: restore from a backup")
        events = decode_events(tenant, partition, position, body, crc)
        index = index_of(Append(tenant, partition, epoch, position, events))
        if (index.entities, index.first, index.last) != (entities, first, until):
            raise Fault(f"{place}: the index at position {position} is not what its events say; restore it from a backup")
        for entity, version in zip(entities, first, strict=True):
            before = versions.get(entity, 0)
            if version != before + 1:
                raise Fault(
                    f"{place}: {entity} has version {version} at position {position} after {before}; events are missing: restore from a backup"
                )
        versions.update(zip(entities, until, strict=True))
        last, last_epoch = position, epoch
        found.segments += 1
        found.events += len(events)
        found.bytes += len(body)
    for tenant, partition, position, body, crc, head in _rows(connection, _SNAPSHOTS):
        place = f"snapshot of ({tenant}, {partition}) at position {position}"
        check_body(place, tenant, partition, position, body, crc)
        if head is None or position > head:
            raise Fault(f"{place}: the log ends at {head or 0}; segments are missing: restore them from a backup")
        found.snapshots += 1
    return found


def _rows(connection: psycopg.Connection[Any], query: str) -> Iterator[tuple[Any, ...]]:
    with psycopg.ServerCursor(connection, "esplanade_check") as cursor:
        cursor.itersize = _AT_ONCE
        yield from cursor.execute(query.encode(), binary=True)
