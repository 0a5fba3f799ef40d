"""Wrapped keys of subjects on PostgreSQL. The writer can add one, the keeper can destroy one, nobody can read one back that was destroyed."""

from __future__ import annotations

from typing import Self

import psycopg

from esplanade.storage.postgres_pool import WAIT_S, Pool, keeping, open_pool, translated, writing


class PostgresSubjectKeys:
    """Keys in a migrated database. Open with `await PostgresSubjectKeys.open(url)` in the event loop that will use it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @classmethod
    async def open(cls, url: str, *, connections: int = 2) -> Self:
        """Connect. Raises Unavailable where the database cannot be reached, Conflict where it is not migrated to this code's schema."""
        return cls(await open_pool(url, connections=connections))

    async def key(self, tenant: str, subject: str, make: bytes | None = None) -> bytes | None:
        async with writing(self._pool) as connection:
            if make is not None:
                await connection.execute(
                    "INSERT INTO subject_key (tenant, subject, wrapped, made_ms) VALUES (%s, %s, %b, now_ms()) ON CONFLICT DO NOTHING",
                    (tenant, subject, make),
                )
            cursor = await connection.execute(
                "SELECT wrapped FROM subject_key WHERE tenant = %s AND subject = %s", (tenant, subject), binary=True
            )  # fmt: skip
            row = await cursor.fetchone()
        return None if row is None or row[0] is None else bytes(row[0])

    async def erase(self, tenant: str, subject: str) -> bool:
        async with keeping(self._pool) as connection:
            cursor = await connection.execute(
                "UPDATE subject_key SET wrapped = NULL, erased_ms = now_ms() WHERE tenant = %s AND subject = %s AND wrapped IS NOT NULL",
                (tenant, subject),
            )
            held = cursor.rowcount > 0
            await connection.execute(
                "INSERT INTO subject_key (tenant, subject, made_ms, erased_ms) VALUES (%s, %s, now_ms(), now_ms()) "
                "ON CONFLICT (tenant, subject) DO UPDATE SET wrapped = NULL, erased_ms = coalesce(subject_key.erased_ms, excluded.erased_ms)",
                (tenant, subject),
            )
        return held

    async def erased(self, tenant: str, subject: str) -> bool:
        async with writing(self._pool) as connection:
            cursor = await connection.execute(
                "SELECT FROM subject_key WHERE tenant = %s AND subject = %s AND erased_ms IS NOT NULL", (tenant, subject)
            )  # fmt: skip
            return await cursor.fetchone() is not None

    async def close(self) -> None:
        await self._pool.close()


def forget_destroyed_keys(url: str) -> None:
    """Have PostgreSQL remove the former versions of rows, in which destroyed keys still lie. `url`: of the owner. Blocks. Raises Unavailable."""
    with translated(), psycopg.connect(url, autocommit=True, connect_timeout=int(WAIT_S)) as connection:
        connection.execute("VACUUM (FREEZE) esplanade.subject_key")
