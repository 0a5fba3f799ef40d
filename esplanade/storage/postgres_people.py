"""When somebody was last heard of, on PostgreSQL. The writer notes it, the keeper alone can forget somebody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from esplanade.storage.people import Person
from esplanade.storage.postgres_pool import Pool, keeping, open_pool, writing


class PostgresPeople:
    """In a migrated database. Open with `await PostgresPeople.open(url)` in the event loop that will use it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @classmethod
    async def open(cls, url: str) -> Self:
        """Connect. Raises Unavailable where the database cannot be reached, Conflict where it is not migrated to this code's schema."""
        return cls(await open_pool(url, connections=1))

    async def hear(self, heard: Sequence[Person]) -> None:
        newest = {(one.tenant, one.subject): one.heard_ms for one in sorted(heard, key=lambda one: one.heard_ms)}
        if not newest:
            return
        keys = sorted(newest)  # one order for all writers: no deadlock
        async with writing(self._pool) as connection:
            await connection.execute(
                "INSERT INTO person_heard (tenant, subject, heard_ms) "
                "SELECT h.tenant, h.subject, h.heard_ms FROM unnest(%s::text[], %s::bigint[], %s::bigint[]) AS h (tenant, subject, heard_ms) "
                "JOIN tenant AS t ON t.tenant = h.tenant "
                "ON CONFLICT (tenant, subject) DO UPDATE SET heard_ms = greatest(person_heard.heard_ms, excluded.heard_ms)",
                ([tenant for tenant, _ in keys], [subject for _, subject in keys], [newest[key] for key in keys]),
            )

    async def silent(self, tenant: str, *, before_ms: int, limit: int) -> list[Person]:
        async with writing(self._pool) as connection:
            cursor = await connection.execute(
                "SELECT subject, heard_ms FROM person_heard WHERE tenant = %s AND heard_ms < %s ORDER BY heard_ms, subject LIMIT %s",
                (tenant, before_ms, limit),
            )
            return [Person(tenant, subject, heard_ms) for subject, heard_ms in await cursor.fetchall()]

    async def forget(self, person: Person) -> bool:
        async with keeping(self._pool) as connection:
            cursor = await connection.execute(
                "DELETE FROM person_heard WHERE tenant = %s AND subject = %s AND heard_ms <= %s", (person.tenant, person.subject, person.heard_ms)
            )
            return cursor.rowcount > 0

    async def close(self) -> None:
        await self._pool.close()
