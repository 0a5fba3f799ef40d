"""Whether the journal is whole: every log's positions without a gap, every body's checksum, every index what the events say, versions without a gap.

Reads with the owner's rights, over all tenants, in the caller's transaction: the table, and before it the archive's files where their folder is given. Changes nothing, mends nothing:
what it finds is a Fault that names the place.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import psycopg

from esplanade.core.errors import Fault
from esplanade.storage.archive import ArchivedRange, StoredSegment, archived_ranges, read_archive
from esplanade.storage.segment_codec import check_body, decode_events, index_of

_AT_ONCE: Final = 4
"""Segments fetched at once; one may hold as much as a flush."""

_SEGMENTS: Final = """
    SELECT tenant, partition, position, epoch, written_ms, entities, first_versions, last_versions, body, crc
    FROM esplanade.segment ORDER BY tenant COLLATE "C", partition, position
"""
_SNAPSHOTS: Final = """
    SELECT s.tenant, s.partition, s.position, s.body, s.crc,
        (SELECT max(g.position) FROM esplanade.segment g WHERE g.tenant = s.tenant AND g.partition = s.partition) AS head,
        (SELECT min(g.position) FROM esplanade.segment g WHERE g.tenant = s.tenant AND g.partition = s.partition) AS first
    FROM esplanade.snapshot s
"""


class JournalCheck(msgspec.Struct):
    """What was read and found whole. `archived`: segments read from the archive's files; `unread`: archived ones whose files were not read."""

    logs: int = 0
    segments: int = 0
    events: int = 0
    bytes: int = 0
    snapshots: int = 0
    archived: int = 0
    unread: int = 0


class _Log:
    """A log as far as it was read."""

    def __init__(self, tenant: str, partition: int) -> None:
        self.tenant, self.partition = tenant, partition
        self.last = self.last_epoch = 0
        self.versions: dict[str, int] = {}
        self.from_the_beginning = True

    def take(self, row: StoredSegment) -> int:
        """Check the next segment; the number of its events. Raises Fault."""
        place = f"log ({self.tenant}, {self.partition})"
        if row.position != self.last + 1:
            raise Fault(f"{place}: position {row.position} follows {self.last}; segments are missing: restore them from a backup")
        if row.epoch < self.last_epoch:
            raise Fault(
                f"{place}: epoch {row.epoch} at position {row.position} follows {self.last_epoch}; a former owner has appended: restore from a backup"
            )
        events = decode_events(self.tenant, self.partition, row.position, row.body, row.crc)
        index = index_of(events)
        if (index.entities, index.first, index.last) != (row.entities, row.first_versions, row.last_versions):
            raise Fault(f"{place}: the index at position {row.position} is not what its events say; restore it from a backup")
        for entity, version in zip(row.entities, row.first_versions, strict=True):
            before = self.versions.get(entity, 0 if self.from_the_beginning else version - 1)
            if version != before + 1:
                raise Fault(
                    f"{place}: {entity} has version {version} at position {row.position} after {before}; events are missing: restore from a backup"
                )
        self.versions.update(zip(row.entities, row.last_versions, strict=True))
        self.last, self.last_epoch = row.position, row.epoch
        return len(events)

    def skip_to(self, last: int) -> None:
        """Take positions up to `last` for read: their file is elsewhere."""
        self.last, self.from_the_beginning = last, False


def check_journal(connection: psycopg.Connection[Any], archive: Path | None = None, key: bytes | None = None) -> JournalCheck:
    """Read every segment and snapshot, and the files of `archive` (`key`: where some are encrypted). Raises Fault at the first that is not right, NotFound or InvalidInput for a file that is not."""
    found = JournalCheck()
    log: _Log | None = None
    ranges = archived_ranges(connection)
    for tenant, partition, *stored in _rows(connection, _SEGMENTS):
        if log is None or (log.tenant, log.partition) != (tenant, partition):
            log = _Log(tenant, partition)
            found.logs += 1
            _take_archived(log, ranges.pop((tenant, partition), []), archive, key, found)
        row = StoredSegment(*stored)
        found.events += log.take(row)
        found.segments += 1
        found.bytes += len(row.body)
    for tenant, partition in ranges:
        raise Fault(f"log ({tenant}, {partition}): is archived, and its newest segment is missing: restore it from a backup")
    for tenant, partition, position, body, crc, head, first in _rows(connection, _SNAPSHOTS):
        place = f"snapshot of ({tenant}, {partition}) at position {position}"
        check_body(place, tenant, partition, position, body, crc)
        if head is None or position > head:
            raise Fault(f"{place}: the log ends at {head or 0}; segments are missing: restore them from a backup")
        if position < first - 1:
            raise Fault(f"{place}: the segments after it, up to {first - 1}, are archived; put them back, or restore from a backup")
        found.snapshots += 1
    return found


def last_versions(connection: psycopg.Connection[Any], tenant: str, partition: int, position: int) -> dict[str, int]:
    """By entity, the last version in the index of the segments still in the table, up to a position."""
    rows = connection.execute(
        "SELECT i.entity, max(i.last) FROM esplanade.segment s, unnest(s.entities, s.last_versions) AS i (entity, last) "
        "WHERE s.tenant = %s AND s.partition = %s AND s.position <= %s GROUP BY i.entity",
        (tenant, partition, position),
    ).fetchall()
    return {str(entity): int(last) for entity, last in rows}


def _take_archived(log: _Log, ranges: list[ArchivedRange], archive: Path | None, key: bytes | None, found: JournalCheck) -> None:
    for part in ranges:
        if part.first != log.last + 1:
            raise Fault(f"log ({log.tenant}, {log.partition}): the archive goes on at {part.first} after {log.last}; a range of it is missing")
        if archive is None:
            log.skip_to(part.last)
            found.unread += part.last - part.first + 1
            continue
        for row in read_archive(archive / part.file, part, key):
            found.events += log.take(row)
            found.archived += 1
            found.bytes += len(row.body)


def _rows(connection: psycopg.Connection[Any], query: str) -> Iterator[tuple[Any, ...]]:
    with psycopg.ServerCursor(connection, "esplanade_check") as cursor:
        cursor.itersize = _AT_ONCE
        yield from cursor.execute(query.encode(), binary=True)
