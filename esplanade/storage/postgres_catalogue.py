"""The catalogue on PostgreSQL. Documents are read under row-level security; listings over all tenants are for operators' tools and run as the writer."""

from __future__ import annotations

from typing import Self

import psycopg

from esplanade.core.errors import NotFound
from esplanade.storage.catalogue import (
    FIRST_SUBJECT,
    RADIO_MAPS_KEPT,
    RadioMapEntry,
    VenueEntry,
    check_radio_map,
    check_subject,
    describe_venue,
    no_such_map,
)
from esplanade.storage.postgres_pool import Pool, open_pool, reading, values, writing

_ENTRY = "tenant, venue, name, kind, digest, created_ms"


class PostgresCatalogue:
    """A catalogue in a migrated database. Open with `await PostgresCatalogue.open(url)` in the event loop that will use it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @classmethod
    async def open(cls, url: str, *, connections: int = 2) -> Self:
        """Connect. Raises Unavailable where the database cannot be reached, Conflict where it is not migrated to this code's schema."""
        return cls(await open_pool(url, connections=connections))

    async def add_tenant(self, tenant: str, name: str) -> None:
        async with writing(self._pool) as connection:
            await connection.execute(
                "INSERT INTO tenant (tenant, name, created_ms) VALUES (%s, %s, now_ms()) ON CONFLICT (tenant) DO NOTHING", (tenant, name)
            )

    async def tenants(self) -> list[str]:
        async with writing(self._pool) as connection:
            cursor = await connection.execute('SELECT tenant FROM tenant ORDER BY tenant COLLATE "C"')
            return [str(row[0]) for row in await cursor.fetchall()]

    async def put_venue(self, tenant: str, document: bytes) -> VenueEntry:
        entry = describe_venue(tenant, document, created_unix_ms=0)
        async with writing(self._pool) as connection:
            try:
                cursor = await connection.execute(
                    "INSERT INTO venue (tenant, venue, name, kind, digest, created_ms, document) VALUES (%s, %s, %s, %s, %s, now_ms(), %b) "
                    "ON CONFLICT (tenant, venue) DO UPDATE SET name = excluded.name, kind = excluded.kind, digest = excluded.digest, "
                    f"created_ms = excluded.created_ms, document = excluded.document RETURNING {_ENTRY}",
                    (tenant, entry.venue, entry.name, entry.kind, entry.digest, document),
                )
            except psycopg.errors.ForeignKeyViolation as error:
                raise _unknown_tenant(tenant) from error
            return VenueEntry(*values(await cursor.fetchone()))

    async def venue(self, tenant: str, venue: str) -> bytes:
        async with reading(self._pool, tenant) as connection:
            cursor = await connection.execute("SELECT document FROM venue WHERE tenant = %s AND venue = %s", (tenant, venue), binary=True)
            row = await cursor.fetchone()
        if row is None:
            raise _unknown_venue(tenant, venue)
        return bytes(row[0])

    async def venues(self, tenant: str | None = None) -> list[VenueEntry]:
        query = f'SELECT {_ENTRY} FROM venue ORDER BY tenant COLLATE "C", venue COLLATE "C"'
        async with writing(self._pool) if tenant is None else reading(self._pool, tenant) as connection:
            cursor = await connection.execute(query)
            return [VenueEntry(*row) for row in await cursor.fetchall()]

    async def put_radio_map(self, tenant: str, venue: str, body: bytes) -> RadioMapEntry:
        digest = check_radio_map(venue, body)
        async with writing(self._pool) as connection:
            cursor = await connection.execute("SELECT 1 FROM venue WHERE tenant = %s AND venue = %s FOR UPDATE", (tenant, venue))  # one at a time
            if await cursor.fetchone() is None:
                raise _unknown_venue(tenant, venue)
            cursor = await connection.execute(
                "SELECT version, digest FROM radio_map WHERE tenant = %s AND venue = %s ORDER BY version DESC LIMIT 1", (tenant, venue)
            )
            held = await cursor.fetchone()
            if held is not None and held[1] == digest:
                return RadioMapEntry(venue, int(held[0]), digest)
            version = 1 if held is None else int(held[0]) + 1
            await connection.execute(
                "INSERT INTO radio_map (tenant, venue, version, digest, created_ms, body) VALUES (%s, %s, %s, %s, now_ms(), %b)",
                (tenant, venue, version, digest, body),
            )
            await connection.execute(
                "DELETE FROM radio_map WHERE tenant = %s AND venue = %s AND version <= %s", (tenant, venue, version - RADIO_MAPS_KEPT)
            )
            return RadioMapEntry(venue, version, digest)

    async def radio_map_entry(self, tenant: str, venue: str) -> RadioMapEntry | None:
        async with reading(self._pool, tenant) as connection:
            cursor = await connection.execute(
                "SELECT venue, version, digest FROM radio_map WHERE tenant = %s AND venue = %s ORDER BY version DESC LIMIT 1", (tenant, venue)
            )
            row = await cursor.fetchone()
        return None if row is None else RadioMapEntry(*row)

    async def radio_map(self, tenant: str, venue: str, version: int) -> bytes:
        async with reading(self._pool, tenant) as connection:
            cursor = await connection.execute(
                "SELECT body FROM radio_map WHERE tenant = %s AND venue = %s AND version = %s", (tenant, venue, version), binary=True
            )
            row = await cursor.fetchone()
        if row is None:
            raise no_such_map(tenant, venue, version)
        return bytes(row[0])

    async def next_subject(self, tenant: str) -> int:
        async with writing(self._pool) as connection:
            try:
                cursor = await connection.execute(
                    "INSERT INTO subject_sequence AS held (tenant, last_subject) VALUES (%s, %s) "
                    "ON CONFLICT (tenant) DO UPDATE SET last_subject = held.last_subject + 1 RETURNING last_subject",
                    (tenant, FIRST_SUBJECT),
                )
            except psycopg.errors.ForeignKeyViolation as error:
                raise _unknown_tenant(tenant) from error
            return check_subject(tenant, int(values(await cursor.fetchone())[0]))

    async def secret(self, name: str, make: bytes) -> bytes:
        async with writing(self._pool) as connection:
            await connection.execute("INSERT INTO secret (name, value) VALUES (%s, %b) ON CONFLICT (name) DO NOTHING", (name, make))
            cursor = await connection.execute("SELECT value FROM secret WHERE name = %s", (name,), binary=True)
            return bytes(values(await cursor.fetchone())[0])

    async def close(self) -> None:
        await self._pool.close()


def _unknown_venue(tenant: str, venue: str) -> NotFound:
    return NotFound(f"venue {venue!r} of {tenant!r}: not in the catalogue; import it first")


def _unknown_tenant(tenant: str) -> NotFound:
    return NotFound(f"tenant {tenant!r}: not in the catalogue; add it first")
