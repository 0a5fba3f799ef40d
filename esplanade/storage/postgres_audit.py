"""The audit trail on PostgreSQL: lines are inserted by the writer, who can do nothing else with them, and read under row-level security."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self
from uuid import UUID

from psycopg.types.json import Jsonb

from esplanade.storage.audit import AuditLine, check_limit
from esplanade.storage.postgres_pool import Pool, open_pool, reading, writing


class PostgresAudit:
    """An audit trail in a migrated database. Open with `await PostgresAudit.open(url)` in the event loop that will use it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @classmethod
    async def open(cls, url: str) -> Self:
        """Connect. Raises Unavailable where the database cannot be reached, Conflict where it is not migrated to this code's schema."""
        return cls(await open_pool(url, connections=1))

    async def append(self, lines: Sequence[AuditLine]) -> None:
        if not lines:
            return
        async with writing(self._pool) as connection:
            await connection.execute(
                "INSERT INTO audit (id, tenant, at_ms, who, what, target, origin, outcome, detail) "
                "SELECT * FROM unnest(%s::uuid[], %s::text[], %s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::jsonb[]) "
                "ON CONFLICT DO NOTHING",
                (
                    [UUID(bytes=line.id) for line in lines],
                    [line.tenant for line in lines],
                    [line.at_unix_ms for line in lines],
                    [line.who for line in lines],
                    [line.what for line in lines],
                    [line.target for line in lines],
                    [line.origin for line in lines],
                    [line.outcome for line in lines],
                    [Jsonb(dict(line.detail)) for line in lines],
                ),
            )

    async def lines(self, tenant: str, *, since_unix_ms: int = 0, limit: int = 1000) -> list[AuditLine]:
        check_limit(limit)
        async with reading(self._pool, tenant) as connection:
            cursor = await connection.execute(
                "SELECT id, tenant, at_ms, who, what, target, origin, outcome, detail FROM audit WHERE tenant = %s AND at_ms >= %s "
                "ORDER BY at_ms, id LIMIT %s",
                (tenant, since_unix_ms, limit),
            )
            return [AuditLine(line_id.bytes, *rest) for line_id, *rest in await cursor.fetchall()]

    async def close(self) -> None:
        await self._pool.close()
