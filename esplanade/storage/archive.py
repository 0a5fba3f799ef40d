"""Segments that have left the database for files: one file a log and range of positions, checksummed, compressed, with an index of entities.

Owns the file, the record of it (table `archive`) and the one transaction in which segments change places. It never moves the newest segment of a log, from which the next
position follows, nor one that no snapshot covers: the caller has verified the snapshot (`actors.snapshot_check`). A file is written, synchronised and read back before
the first row is deleted. Blocks, but for `WithArchive`, which reads a log across both.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import psycopg

from esplanade.core.errors import Conflict, Fault, InvalidInput
from esplanade.storage.backup_file import CHUNK_BYTES, BackupWriter, read_backup
from esplanade.storage.flush_rules import MAX_FLUSH_BYTES
from esplanade.storage.journal import Segment, SegmentReader
from esplanade.storage.segment_codec import decode_events

MAGIC: Final = b"ESPLANADE ARCHIVE 1\n"
MAX_ROW_BYTES: Final = 4 * MAX_FLUSH_BYTES
_INDEX_AT_ONCE: Final = 2_000
_AT_ONCE: Final = 4
_LOCK: Final = 0x45535043  # one archiver at a time
_ENCODER: Final = msgspec.msgpack.Encoder()


class StoredSegment(msgspec.Struct, frozen=True, array_like=True):
    """A row of `segment` without the log's name, as it lies in the table and in a file."""

    position: int
    epoch: int
    written_ms: int
    entities: list[str]
    first_versions: list[int]
    last_versions: list[int]
    body: bytes
    crc: int


class ArchivedRange(msgspec.Struct, frozen=True):
    """`sha256`: hex, of the file without its last 32 bytes, which are the same."""

    tenant: str
    partition: int
    first: int
    last: int
    file: str
    sha256: str


class ArchiveManifest(msgspec.Struct, frozen=True):
    tenant: str
    partition: int
    first: int
    last: int
    events: int
    entities: int
    first_written_ms: int
    last_written_ms: int


_ROW: Final = msgspec.msgpack.Decoder(StoredSegment)


def archived_ranges(connection: psycopg.Connection[Any]) -> dict[tuple[str, int], list[ArchivedRange]]:
    """What has been archived, by log, in order."""
    found: dict[tuple[str, int], list[ArchivedRange]] = {}
    if connection.execute("SELECT to_regclass('esplanade.archive') IS NULL").fetchone() == (True,):
        return found  # an older schema, under restoration
    for row in connection.execute(
        "SELECT tenant, partition, first, last, file, sha256 FROM esplanade.archive ORDER BY tenant, partition, first"
    ).fetchall():
        part = ArchivedRange(*row)
        found.setdefault((part.tenant, part.partition), []).append(part)
    return found


def lock_archiving(connection: psycopg.Connection[Any]) -> None:
    """Until the connection ends. Raises Conflict where another archives."""
    if connection.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK,)).fetchone() != (True,):
        raise Conflict("another `esplanade journal archive` runs on this database; wait for it")


def due_until(connection: psycopg.Connection[Any], tenant: str, partition: int, *, covered: int, older_than_ms: int) -> tuple[int, int]:
    """(first, last) of the positions that may leave: covered by a snapshot, older than the age, not the newest. Empty where last < first."""
    row = connection.execute(
        "SELECT min(position), least(max(position) - 1, %s, (SELECT coalesce(min(y.position), max(s.position) + 1) - 1 FROM esplanade.segment y "
        "WHERE y.tenant = %s AND y.partition = %s AND y.written_ms > esplanade.now_ms() - %s)) "
        "FROM esplanade.segment s WHERE tenant = %s AND partition = %s",
        (covered, tenant, partition, older_than_ms, tenant, partition),
    ).fetchone()
    return (1, 0) if row is None or row[0] is None else (int(row[0]), int(row[1]))


def archive_range(
    connection: psycopg.Connection[Any],
    folder: Path,
    tenant: str,
    partition: int,
    first: int,
    last: int,
    *,
    unix_ms: int,
    key: bytes | None = None,
    salt: bytes = b"",
) -> ArchivedRange:
    """Move segments first..last of a log to a new file in `folder`. `connection`: the owner's, autocommit. `key`, `salt`: as `BackupWriter` takes them.

    Raises Conflict where the file exists, Fault where a segment is damaged (nothing is moved then).
    """
    name = f"{tenant}.{partition}.{first}-{last}.esa"
    path = folder / name
    with BackupWriter(path, taken_unix_ms=unix_ms, key=key, salt=salt, magic=MAGIC) as writer:
        manifest = _write(connection, writer, tenant, partition, first, last)
        writer.finish(msgspec.json.encode(manifest))
    part = ArchivedRange(tenant, partition, first, last, name, writer.checksum.hex())
    for row in read_archive(path, part, key):
        decode_events(tenant, partition, row.position, row.body, row.crc)
    with connection.transaction():
        connection.execute(
            "INSERT INTO esplanade.archive (tenant, partition, first, last, segments, file, sha256, archived_ms) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, esplanade.now_ms())",
            (tenant, partition, first, last, last - first + 1, name, part.sha256),
        )
        gone = connection.execute(
            "DELETE FROM esplanade.segment WHERE tenant = %s AND partition = %s AND position BETWEEN %s AND %s", (tenant, partition, first, last)
        ).rowcount
        left = connection.execute("SELECT min(position) FROM esplanade.segment WHERE tenant = %s AND partition = %s", (tenant, partition)).fetchone()
        if gone != last - first + 1 or left != (last + 1,):
            raise Fault(f"log ({tenant}, {partition}): {gone} segments of {first} to {last} were there, the next is {left}; nothing was moved")
    return part


def _write(connection: psycopg.Connection[Any], writer: BackupWriter, tenant: str, partition: int, first: int, last: int) -> ArchiveManifest:
    pending = bytearray()
    index: dict[str, tuple[int, int]] = {}
    events, written = 0, [0, 0]
    with connection.transaction(), psycopg.ServerCursor(connection, "esplanade_archive") as cursor:
        cursor.itersize = _AT_ONCE
        for expected, fields in enumerate(
            cursor.execute(
                "SELECT position, epoch, written_ms, entities, first_versions, last_versions, body, crc FROM esplanade.segment "
                "WHERE tenant = %s AND partition = %s AND position BETWEEN %s AND %s ORDER BY position",
                (tenant, partition, first, last),
                binary=True,
            ),
            first,
        ):
            row = StoredSegment(*fields)
            if row.position != expected:
                raise Fault(f"log ({tenant}, {partition}): position {expected} is missing; restore it from a backup")
            for entity, begins, ends in zip(row.entities, row.first_versions, row.last_versions, strict=True):
                index[entity] = (index[entity][0] if entity in index else begins, ends)
                events += ends - begins + 1
            written = [written[0] or row.written_ms, row.written_ms]
            encoded = _ENCODER.encode(row)
            pending += len(encoded).to_bytes(4, "big") + encoded
            while len(pending) >= CHUNK_BYTES:
                writer.chunk(b"d", bytes(pending[:CHUNK_BYTES]))
                del pending[:CHUNK_BYTES]
    if pending:
        writer.chunk(b"d", bytes(pending))
    entries = [(entity, *versions) for entity, versions in sorted(index.items())]
    for at in range(0, len(entries), _INDEX_AT_ONCE):
        writer.chunk(b"t", msgspec.json.encode(entries[at : at + _INDEX_AT_ONCE]))
    return ArchiveManifest(tenant, partition, first, last, events, len(index), *written)


def read_archive(path: Path, part: ArchivedRange, key: bytes | None = None) -> Iterator[StoredSegment]:
    """The segments of a file in order; returns only where it is the file that was recorded, whole. Raises NotFound, InvalidInput.

    `key` is used where the file is encrypted: a folder may hold files from before keys were used.
    """
    pending = bytearray()
    expected, manifest = part.first, None
    for kind, payload in read_backup(path, key, magic=MAGIC, plain_too=True):
        if kind == b"m":
            manifest = payload
        if kind != b"d":
            continue
        pending += payload
        at = 0
        while len(pending) - at >= 4:
            size = int.from_bytes(pending[at : at + 4], "big")
            if size > MAX_ROW_BYTES:
                raise _unlike(path)
            if len(pending) - at - 4 < size:
                break
            row = _decoded(path, bytes(pending[at + 4 : at + 4 + size]))
            if row.position != expected:
                raise _unlike(path)
            yield row
            expected += 1
            at += 4 + size
        del pending[:at]
    try:
        said = msgspec.json.decode(manifest or b"", type=ArchiveManifest)
    except msgspec.DecodeError as error:
        raise _unlike(path) from error
    if (
        pending
        or expected != part.last + 1
        or (said.tenant, said.partition, said.first, said.last) != (part.tenant, part.partition, part.first, part.last)
    ):
        raise _unlike(path)
    with path.open("rb") as file:
        file.seek(-32, 2)
        if file.read().hex() != part.sha256:
            raise _unlike(path)


def _decoded(path: Path, data: bytes) -> StoredSegment:
    try:
        return _ROW.decode(data)
    except msgspec.DecodeError as error:
        raise _unlike(path) from error


def _unlike(path: Path) -> InvalidInput:
    return InvalidInput(f"{path}: is not the archive that the database has recorded under this name; use another copy")


class WithArchive:
    """Reads a log from its beginning, archived ranges first. `ranges`: `archived_ranges` of the database; `folder`: where their files are; `key`: where some are encrypted."""

    def __init__(self, journal: SegmentReader, folder: Path, ranges: Mapping[tuple[str, int], list[ArchivedRange]], key: bytes | None = None) -> None:
        self._key = key
        self._journal = journal
        self._folder = folder
        self._ranges = ranges

    async def read(self, tenant: str, partition: int, *, after: int = 0) -> AsyncIterator[Segment]:
        """As a journal does. Raises NotFound or InvalidInput for a file that is not there or not right."""
        for part in self._ranges.get((tenant, partition), []):
            if part.last <= after:
                continue
            rows = read_archive(self._folder / part.file, part, self._key)
            while (row := await asyncio.to_thread(next, rows, None)) is not None:
                if row.position > after:
                    events = decode_events(tenant, partition, row.position, row.body, row.crc)
                    after = row.position
                    yield Segment(tenant, partition, row.position, row.epoch, row.written_ms, events)
        async for segment in self._journal.read(tenant, partition, after=after):
            yield segment
