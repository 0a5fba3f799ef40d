"""The journal on PostgreSQL. A flush is one call of `journal_flush` (see migrations): one round trip, one transaction, committed by the server itself.

What tells a former owner from a lost connection: Fenced and Conflict are the database's own answers and mean that nothing happened;
after any other error the outcome of a flush is unknown. Reads that name a tenant run under row-level security.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from itertools import chain
from typing import Final, Self

import psycopg

from esplanade.core.errors import Conflict, Fault, Fenced, InvalidInput, NotFound
from esplanade.storage.flush_rules import (
    archived_message,
    check_flush,
    check_lease,
    check_limit,
    check_partition,
    check_partitions,
    check_snapshot,
    fenced_message,
    misplaced_message,
    repeated_message,
    unbacked_message,
    unreadable_message,
)
from esplanade.storage.journal import Append, Lease, OutboxEntry, Published, Segment, Snapshot, StoredReply
from esplanade.storage.postgres_arrays import bigint_array, bytea_array, integer_array, text_array
from esplanade.storage.postgres_catalogue import PostgresCatalogue
from esplanade.storage.postgres_migrate import migrate
from esplanade.storage.postgres_pool import Pool, keeping, open_lane, open_pool, reading, values, writing
from esplanade.storage.segment_codec import check_body, checksum, decode_events, encode_events

__all__ = ["PostgresCatalogue", "PostgresJournal", "migrate"]

READ_SEGMENTS: Final = 256
READ_BYTES: Final = 8 * 2**20
"""A replay fetches segments until either is reached (always at least one), so that a long log never lies in memory as a whole."""

FLUSH_CONNECTIONS: Final = 2
"""Of their own, so that no flush waits behind snapshots and replays; a writer uses one."""

_FLUSH: Final = (
    "SELECT topic_epoch, topic_offset FROM journal_flush(%b::text[], %b::integer[], %b::bigint[], %b::bigint[], %b::integer[], %b::bytea[], "
    "%b::bigint[], %b::text[], %b::bigint[], %b::bigint[], %b::text[], %b::text[], %b::bytea[], %b::text[], %b::bytea[], %b::bytea[], %b::bytea[], "
    "%b::bigint[])"
)
_READ: Final = """
    SELECT position, epoch, written_ms, body, crc
    FROM (
        SELECT *, sum(octet_length(body)) OVER (ORDER BY position) - octet_length(body) AS before
        FROM (SELECT * FROM segment WHERE tenant = %s AND partition = %s AND position > %s ORDER BY position LIMIT %s) AS next
    ) AS sized
    WHERE before < %s ORDER BY position
"""
# The tenants by skipping through an index, then a look for each of them and what is wanted: the cost follows the tenants, not the rows.
_TENANTS: Final = """
    WITH RECURSIVE held AS (
        (SELECT tenant FROM {table} ORDER BY tenant LIMIT 1)
        UNION ALL
        SELECT (SELECT s.tenant FROM {table} s WHERE s.tenant > held.tenant ORDER BY s.tenant LIMIT 1) FROM held WHERE held.tenant IS NOT NULL
    )
"""
_LOGS: Final = (
    _TENANTS.format(table="segment")
    + """
    SELECT held.tenant, wanted.partition, head.position
    FROM held CROSS JOIN unnest(%s::integer[]) AS wanted (partition) CROSS JOIN LATERAL (
        SELECT s.position FROM segment s WHERE s.tenant = held.tenant AND s.partition = wanted.partition ORDER BY s.position DESC LIMIT 1
    ) AS head
"""
)
_TOPICS_USED: Final = (
    _TENANTS.format(table="outbox_topic")
    + "SELECT t.tenant, t.topic FROM held JOIN outbox_topic t ON t.tenant = held.tenant AND t.topic = ANY (%s::text[]) WHERE t.last_offset > 0"
)


class PostgresJournal:
    """A journal in a migrated database. Open with `await PostgresJournal.open(url)` in the event loop that will use it."""

    def __init__(self, pool: Pool, flushes: Pool) -> None:
        self._pool = pool
        self._flushes = flushes

    @classmethod
    async def open(cls, url: str, *, connections: int = 4, warm: bool = False) -> Self:
        """Connect; `warm`: by as many connections as a takeover and its first flush use, else by one, and more as they are used.

        Raises Unavailable where the database cannot be reached, Conflict where it is not migrated to this code's schema."""
        pool = await open_pool(url, connections=connections, ready=connections if warm else 1)
        return cls(pool, await open_lane(url, connections=FLUSH_CONNECTIONS, ready=1 if warm else 0))

    async def acquire(self, partitions: Sequence[int], owner: str, *, ttl_ms: int) -> list[Lease]:
        check_lease(partitions, ttl_ms)
        wanted = sorted(partitions)
        async with writing(self._pool) as connection, connection.pipeline(), connection.transaction():
            # FOR UPDATE waits for flushes that have checked the old epoch; ON CONFLICT DO UPDATE alone would not.
            await connection.execute("SELECT 1 FROM partition_lease WHERE partition = ANY (%s) ORDER BY partition FOR UPDATE", (wanted,))
            cursor = await connection.execute(
                "INSERT INTO partition_lease AS held (partition, owner, epoch, expires_ms) "
                "SELECT wanted, %s, 1, now_ms() + %s FROM unnest(%s::integer[]) AS wanted ORDER BY wanted "
                "ON CONFLICT (partition) DO UPDATE SET owner = excluded.owner, expires_ms = excluded.expires_ms, "
                "epoch = held.epoch + (held.owner <> excluded.owner)::integer "
                "RETURNING partition, owner, epoch, expires_ms",
                (owner, ttl_ms, wanted),
            )
            rows = await cursor.fetchall()
        taken = {int(row[0]): Lease(*row) for row in rows}
        return [taken[partition] for partition in partitions]

    async def renew(self, leases: Sequence[Lease], *, ttl_ms: int) -> list[Lease]:
        check_lease([lease.partition for lease in leases], ttl_ms)
        async with writing(self._pool) as connection:
            cursor = await connection.execute(
                "UPDATE partition_lease AS held SET expires_ms = now_ms() + %s FROM ("
                "SELECT l.partition FROM partition_lease l "
                "JOIN unnest(%s::integer[], %s::text[], %s::bigint[]) AS ours (partition, owner, epoch) USING (partition, owner, epoch) "
                "ORDER BY l.partition FOR NO KEY UPDATE OF l"
                ") AS locked WHERE held.partition = locked.partition RETURNING held.partition, held.owner, held.epoch, held.expires_ms",
                (ttl_ms, [lease.partition for lease in leases], [lease.owner for lease in leases], [lease.epoch for lease in leases]),
            )
            renewed = {int(row[0]): Lease(*row) for row in await cursor.fetchall()}
        return [renewed[lease.partition] for lease in leases if lease.partition in renewed]

    async def leases(self) -> list[Lease]:
        async with writing(self._pool) as connection:
            cursor = await connection.execute("SELECT partition, owner, epoch, expires_ms FROM partition_lease ORDER BY partition")
            return [Lease(*row) for row in await cursor.fetchall()]

    async def flush(self, appends: Sequence[Append], outbox: Sequence[OutboxEntry] = (), keys: Sequence[StoredReply] = ()) -> list[Published]:
        indexes = check_flush(appends, outbox, keys)
        if not appends:
            return []
        bodies = [encode_events(append.events) for append in appends]
        first = bigint_array([*chain.from_iterable([index.first for index in indexes])])
        parameters = (
            text_array([append.tenant for append in appends]),
            integer_array([append.partition for append in appends]),
            bigint_array([append.epoch for append in appends]),
            bigint_array([append.position for append in appends]),
            integer_array([len(index.entities) for index in indexes]),
            bytea_array(bodies),
            bigint_array([checksum(append.tenant, append.partition, append.position, body) for append, body in zip(appends, bodies, strict=True)]),
            text_array([index.names for index in indexes]),
            first,
            first if all(index.last is index.first for index in indexes) else bigint_array([*chain.from_iterable([index.last for index in indexes])]),
            text_array([entry.tenant for entry in outbox]),
            text_array([entry.topic for entry in outbox]),
            bytea_array([entry.body for entry in outbox]),
            text_array([reply.tenant for reply in keys]),
            bytea_array([reply.key for reply in keys]),
            bytea_array([reply.digest for reply in keys]),
            bytea_array([reply.reply for reply in keys]),
            bigint_array([reply.expires_unix_ms for reply in keys]),
        )
        async with writing(self._flushes) as connection:
            try:
                cursor = await connection.execute(_FLUSH, parameters, prepare=True, binary=True)
                places = await cursor.fetchall()
            except psycopg.errors.UniqueViolation as error:
                if error.diag.table_name == "segment":
                    raise Fenced(f"another owner appended at the same position: {error.diag.message_detail}") from error
                raise
            except psycopg.Error as error:
                if error.sqlstate == "ES001":
                    raise Fenced(_fenced(error)) from error
                if error.sqlstate == "ES002":
                    tenant, key = json.loads(error.diag.message_detail or "[]")
                    raise Conflict(repeated_message(tenant, bytes.fromhex(key))) from error
                raise
        return [
            Published(tenant=entry.tenant, topic=entry.topic, epoch=epoch, offset=offset, body=bytes(entry.body))
            for entry, (epoch, offset) in zip(outbox, places, strict=True)
        ]

    async def heads(self, partition: int) -> dict[str, int]:
        return {tenant: position for (tenant, _), position in (await self.logs([partition])).items()}

    async def logs(self, partitions: Sequence[int]) -> dict[tuple[str, int], int]:
        wanted = check_partitions(partitions)
        async with writing(self._pool) as connection:
            cursor = await connection.execute(_LOGS, (wanted,))
            return {(str(tenant), int(partition)): int(position) for tenant, partition, position in await cursor.fetchall()}

    async def read(self, tenant: str, partition: int, *, after: int = 0) -> AsyncIterator[Segment]:
        check_partition(partition)
        if after < 0:
            raise InvalidInput(f"after {after}: positions count from 1; pass 0 for the beginning")
        while True:
            async with reading(self._pool, tenant) as connection:
                cursor = await connection.execute(_READ, (tenant, partition, after, READ_SEGMENTS, READ_BYTES), binary=True)
                rows = await cursor.fetchall()
            for position, epoch, written_ms, body, crc in rows:
                if position != after + 1:
                    await self._check_archived(tenant, partition, after + 1)
                    raise Fault(f"log ({tenant}, {partition}): position {position} follows {after}; segments are missing: restore them from a backup")
                events = decode_events(tenant, partition, position, body, crc)
                after = position
                yield Segment(tenant=tenant, partition=partition, position=position, epoch=epoch, written_unix_ms=written_ms, events=events)
            if not rows:
                return

    async def _check_archived(self, tenant: str, partition: int, position: int) -> None:
        async with reading(self._pool, tenant) as connection:
            cursor = await connection.execute(
                "SELECT first, last, file FROM archive WHERE tenant = %s AND partition = %s AND %s BETWEEN first AND last",
                (tenant, partition, position),
            )
            row = await cursor.fetchone()
        if row is not None:
            raise NotFound(archived_message(tenant, partition, *row))

    async def reply_of(self, tenant: str, key: bytes) -> StoredReply | None:
        async with reading(self._pool, tenant) as connection:
            cursor = await connection.execute(
                "SELECT digest, reply, expires_ms FROM idempotency WHERE tenant = %s AND key = %b AND expires_ms > now_ms()",
                (tenant, key),
                binary=True,
            )
            row = await cursor.fetchone()
        return None if row is None else StoredReply(tenant=tenant, key=key, digest=row[0], reply=row[1], expires_unix_ms=row[2])

    async def put_snapshot(self, snapshot: Snapshot) -> None:
        check_snapshot(snapshot)
        log = (snapshot.tenant, snapshot.partition)
        crc = checksum(*log, snapshot.position, snapshot.body)
        async with writing(self._pool) as connection:
            cursor = await connection.execute("SELECT coalesce(max(position), 0) FROM segment WHERE tenant = %s AND partition = %s", log)
            head = int(values(await cursor.fetchone())[0])
            if not 1 <= snapshot.position <= head:
                raise InvalidInput(unbacked_message(snapshot, head))
            await connection.execute(
                "INSERT INTO snapshot AS held (tenant, partition, position, written_ms, body, crc) VALUES (%s, %s, %s, now_ms(), %b, %s) "
                "ON CONFLICT (tenant, partition) DO UPDATE SET position = excluded.position, written_ms = excluded.written_ms, "
                "body = excluded.body, crc = excluded.crc WHERE held.position < excluded.position",
                (*log, snapshot.position, snapshot.body, crc),
            )

    async def snapshot(self, tenant: str, partition: int) -> Snapshot | None:
        check_partition(partition)
        async with reading(self._pool, tenant) as connection:
            cursor = await connection.execute(
                "SELECT position, body, crc FROM snapshot WHERE tenant = %s AND partition = %s", (tenant, partition), binary=True
            )
            row = await cursor.fetchone()
        if row is None:
            return None
        position, body, crc = row
        check_body(f"snapshot of ({tenant}, {partition}) at position {position}", tenant, partition, position, body, crc)
        return Snapshot(tenant=tenant, partition=partition, position=position, body=body)

    async def published(self, tenant: str, topic: str, *, epoch: int, after: int, limit: int = 1000) -> list[Published]:
        check_limit(limit)
        async with reading(self._pool, tenant) as connection:
            held = await self._topic(connection, tenant, topic)
            cursor = await connection.execute(
                'SELECT "offset", body FROM outbox WHERE tenant = %s AND topic = %s AND epoch = %s AND "offset" > %s ORDER BY "offset" LIMIT %s',
                (tenant, topic, epoch, after, limit),
                binary=True,
            )
            rows = await cursor.fetchall()
        current, trimmed, last = held
        trimmed_meanwhile = after < last and (not rows or rows[0][0] != after + 1)
        if epoch != current or not trimmed <= after <= last or trimmed_meanwhile:
            raise NotFound(unreadable_message(tenant, topic, epoch, after, held))
        return [Published(tenant=tenant, topic=topic, epoch=epoch, offset=offset, body=body) for offset, body in rows]

    async def place(self, tenant: str, topic: str) -> tuple[int, int]:
        async with reading(self._pool, tenant) as connection:
            epoch, _, last = await self._topic(connection, tenant, topic)
        return epoch, last

    async def topics_used(self, topics: Sequence[str]) -> set[tuple[str, str]]:
        async with writing(self._pool) as connection:
            cursor = await connection.execute(_TOPICS_USED, (list(topics),))
            return {(str(tenant), str(topic)) for tenant, topic in await cursor.fetchall()}

    @staticmethod
    async def _topic(connection: psycopg.AsyncConnection[tuple[object, ...]], tenant: str, topic: str) -> tuple[int, int, int]:
        cursor = await connection.execute("SELECT epoch, trimmed, last_offset FROM outbox_topic WHERE tenant = %s AND topic = %s", (tenant, topic))
        row = await cursor.fetchone()
        return (1, 0, 0) if row is None else (int(str(row[0])), int(str(row[1])), int(str(row[2])))

    async def trim_outbox(self, *, older_than_ms: int) -> int:
        """Drop outbox entries written `older_than_ms` ago or earlier; returns how many. Their offsets can no longer be resumed from."""
        async with keeping(self._pool) as connection:
            cursor = await connection.execute(
                'SELECT tenant, topic, epoch, max("offset") FROM outbox WHERE created_ms <= now_ms() - %s GROUP BY tenant, topic, epoch '
                "ORDER BY tenant, topic, epoch",
                (older_than_ms,),
            )
            old = await cursor.fetchall()
        dropped = 0
        for tenant, topic, epoch, last in old:
            async with keeping(self._pool) as connection:
                await connection.execute(
                    "UPDATE outbox_topic SET trimmed = greatest(trimmed, %s) WHERE tenant = %s AND topic = %s AND epoch = %s",
                    (last, tenant, topic, epoch),
                )
                cursor = await connection.execute(
                    'DELETE FROM outbox WHERE tenant = %s AND topic = %s AND epoch = %s AND "offset" <= %s', (tenant, topic, epoch, last)
                )
                dropped += cursor.rowcount
        return dropped

    async def drop_expired_keys(self) -> int:
        """Drop idempotency keys whose window is over; returns how many."""
        async with keeping(self._pool) as connection:
            cursor = await connection.execute("DELETE FROM idempotency WHERE expires_ms <= now_ms()")
            return cursor.rowcount

    async def close(self) -> None:
        await self._flushes.close()
        await self._pool.close()


def _fenced(error: psycopg.Error) -> str:
    detail = json.loads(error.diag.message_detail or "[]")
    if error.diag.message_primary == "epoch":
        partition, epoch, held = detail
        return fenced_message(partition, epoch, held)
    tenant, partition, position, head = detail
    return misplaced_message(tenant, partition, position, head)
