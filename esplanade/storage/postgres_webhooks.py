"""Webhooks on PostgreSQL. A tenant's records are read under row-level security; claims, which are for the deliverer, over all tenants by the writer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

import msgspec
import psycopg

from esplanade.core.errors import NotFound
from esplanade.storage.postgres_pool import Connection, Pool, open_pool, reading, values, writing
from esplanade.storage.webhooks import MAX_DEAD, MAX_LOG, MAX_WEBHOOKS, Attempt, Cursor, DeadLetter, Source, Webhook, no_source, no_webhook, too_many

_WEBHOOK: Final = "w.tenant, w.webhook, w.url, w.venue, w.types, w.filter, w.secret, w.former, w.former_until_ms, w.enabled, w.created_ms"
_CURSOR: Final = 'c.tenant, c.webhook, c.topic, c.epoch, c."offset", c.attempts, c.failing, c.due_ms, c.held_until_ms'


class PostgresWebhooks:
    """Webhooks in a migrated database. Open with `await PostgresWebhooks.open(url)` in the event loop that will use it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @classmethod
    async def open(cls, url: str, *, connections: int = 2) -> Self:
        """Connect. Raises Unavailable where the database cannot be reached, Conflict where it is not migrated to this code's schema."""
        return cls(await open_pool(url, connections=connections))

    async def add(self, webhook: Webhook, places: Mapping[str, tuple[int, int]]) -> None:
        async with writing(self._pool) as connection, connection.transaction():
            await _room_for(connection, "webhook", "webhooks", webhook.tenant)
            await connection.execute(
                "INSERT INTO webhook (tenant, webhook, url, venue, types, filter, secret, former, former_until_ms, enabled, created_ms) "
                "VALUES (%s, %s, %s, %s, %s, %s, %b, %b, %s, %s, %s)",
                (
                    webhook.tenant,
                    webhook.id,
                    webhook.url,
                    webhook.venue,
                    list(webhook.types),
                    webhook.where,
                    webhook.secret,
                    webhook.former,
                    webhook.former_until_unix_ms,
                    webhook.enabled,
                    webhook.created_unix_ms,
                ),
            )
            for topic, (epoch, offset) in places.items():
                await connection.execute(
                    'INSERT INTO webhook_cursor (tenant, webhook, topic, epoch, "offset", attempts, failing, due_ms, held_until_ms) '
                    "VALUES (%s, %s, %s, %s, %s, 0, false, 0, 0)",
                    (webhook.tenant, webhook.id, topic, epoch, offset),
                )

    async def change(self, webhook: Webhook) -> None:
        async with writing(self._pool) as connection:
            cursor = await connection.execute(
                "UPDATE webhook SET url = %s, secret = %b, former = %b, former_until_ms = %s, enabled = %s WHERE tenant = %s AND webhook = %s",
                (webhook.url, webhook.secret, webhook.former, webhook.former_until_unix_ms, webhook.enabled, webhook.tenant, webhook.id),
            )
            if cursor.rowcount == 0:
                raise no_webhook(webhook.tenant, webhook.id)

    async def remove(self, tenant: str, webhook: str) -> None:
        async with writing(self._pool) as connection:
            cursor = await connection.execute("DELETE FROM webhook WHERE tenant = %s AND webhook = %s", (tenant, webhook))
            if cursor.rowcount == 0:
                raise no_webhook(tenant, webhook)

    async def webhook(self, tenant: str, webhook: str) -> Webhook:
        async with reading(self._pool, tenant) as connection:
            cursor = await connection.execute(f"SELECT {_WEBHOOK} FROM webhook w WHERE tenant = %s AND webhook = %s", (tenant, webhook))
            row = await cursor.fetchone()
        if row is None:
            raise no_webhook(tenant, webhook)
        return _webhook(row)

    async def webhooks(self, tenant: str) -> list[Webhook]:
        async with reading(self._pool, tenant) as connection:
            cursor = await connection.execute(f'SELECT {_WEBHOOK} FROM webhook w WHERE tenant = %s ORDER BY webhook COLLATE "C"', (tenant,))
            return [_webhook(row) for row in await cursor.fetchall()]

    async def claim(self, *, now_unix_ms: int, hold_ms: int, limit: int) -> list[tuple[Webhook, Cursor]]:
        async with writing(self._pool) as connection:
            cursor = await connection.execute(
                "WITH due AS ("
                "SELECT c.tenant, c.webhook, c.topic FROM webhook_cursor c JOIN webhook w ON w.tenant = c.tenant AND w.webhook = c.webhook "
                "JOIN outbox_topic t ON t.tenant = c.tenant AND t.topic = c.topic "
                "WHERE w.enabled AND c.due_ms <= %(now)s AND c.held_until_ms <= %(now)s "
                'AND (t.epoch, t.last_offset) > (c.epoch, c."offset") ORDER BY c.due_ms LIMIT %(limit)s FOR UPDATE OF c SKIP LOCKED) '
                "UPDATE webhook_cursor c SET held_until_ms = %(until)s FROM due, webhook w "
                "WHERE c.tenant = due.tenant AND c.webhook = due.webhook AND c.topic = due.topic AND w.tenant = c.tenant AND w.webhook = c.webhook "
                f"RETURNING {_WEBHOOK}, {_CURSOR}",
                {"now": now_unix_ms, "until": now_unix_ms + hold_ms, "limit": limit},
            )
            return [(_webhook(row[:11]), _cursor(row[11:])) for row in await cursor.fetchall()]

    async def settle(self, held: Cursor, now: Cursor, attempts: Sequence[Attempt] = (), dead: DeadLetter | None = None) -> bool:
        async with writing(self._pool) as connection, connection.transaction():
            cursor = await connection.execute(
                'UPDATE webhook_cursor SET epoch = %s, "offset" = %s, attempts = %s, failing = %s, due_ms = %s, held_until_ms = %s '
                "WHERE tenant = %s AND webhook = %s AND topic = %s AND held_until_ms = %s",
                (
                    now.epoch, now.offset, now.attempts, now.failing, now.due_unix_ms, now.held_until_unix_ms,
                    held.tenant, held.webhook, held.topic, held.held_until_unix_ms,
                ),
            )  # fmt: skip
            if cursor.rowcount == 0:
                return False
            for attempt in attempts:
                await _note(connection, held.tenant, held.webhook, attempt)
            if dead is not None:
                await connection.execute(
                    "INSERT INTO webhook_dead (tenant, webhook, message, type, body, at_ms, attempts, error) VALUES (%s, %s, %s, %s, %b, %s, %s, %s) "
                    "ON CONFLICT DO NOTHING",
                    (held.tenant, held.webhook, dead.message, dead.type, dead.body, dead.at_unix_ms, dead.attempts, dead.error),
                )
                await connection.execute(
                    "DELETE FROM webhook_dead WHERE (tenant, webhook, message) IN (SELECT tenant, webhook, message FROM webhook_dead "
                    "WHERE tenant = %s AND webhook = %s ORDER BY at_ms DESC, message DESC OFFSET %s)",
                    (held.tenant, held.webhook, MAX_DEAD),
                )
            return True

    async def attempts(self, tenant: str, webhook: str, *, limit: int) -> list[Attempt]:
        async with reading(self._pool, tenant) as connection:
            cursor = await connection.execute(
                'SELECT message, topic, epoch, "offset", type, at_ms, attempt, status, outcome, error FROM webhook_delivery '
                "WHERE tenant = %s AND webhook = %s ORDER BY number DESC LIMIT %s",
                (tenant, webhook, limit),
            )
            names = Attempt.__struct_fields__
            return [Attempt(**dict(zip(names, row, strict=True))) for row in await cursor.fetchall()]

    async def dead(self, tenant: str, webhook: str, *, after: str = "", limit: int) -> list[DeadLetter]:
        async with reading(self._pool, tenant) as connection:
            cursor = await connection.execute(
                "SELECT message, type, body, at_ms, attempts, error FROM webhook_dead WHERE tenant = %s AND webhook = %s "
                'AND message COLLATE "C" > %s ORDER BY message COLLATE "C" LIMIT %s',
                (tenant, webhook, after, limit),
            )
            return [_dead(row) for row in await cursor.fetchall()]

    async def dead_letter(self, tenant: str, webhook: str, message: str) -> DeadLetter:
        async with reading(self._pool, tenant) as connection:
            cursor = await connection.execute(
                "SELECT message, type, body, at_ms, attempts, error FROM webhook_dead WHERE tenant = %s AND webhook = %s AND message = %s",
                (tenant, webhook, message),
            )
            row = await cursor.fetchone()
        if row is None:
            raise NotFound(f"dead letter {message[:200]!r} of webhook {webhook}: there is none of this id; perhaps it was delivered since")
        return _dead(row)

    async def revive(self, tenant: str, webhook: str, attempt: Attempt, *, gone: bool) -> None:
        async with writing(self._pool) as connection, connection.transaction():
            if gone:
                await connection.execute(
                    "DELETE FROM webhook_dead WHERE tenant = %s AND webhook = %s AND message = %s", (tenant, webhook, attempt.message)
                )
            try:
                await _note(connection, tenant, webhook, attempt)
            except psycopg.errors.ForeignKeyViolation as error:
                raise no_webhook(tenant, webhook) from error

    async def add_source(self, source: Source) -> None:
        async with writing(self._pool) as connection, connection.transaction():
            await _room_for(connection, "webhook_source", "sources", source.tenant)
            await connection.execute(
                "INSERT INTO webhook_source (tenant, source, kind, venue, secret, created_ms) VALUES (%s, %s, %s, %s, %b, %s)",
                (source.tenant, source.id, source.kind, source.venue, source.secret, source.created_unix_ms),
            )

    async def remove_source(self, tenant: str, source: str) -> None:
        async with writing(self._pool) as connection:
            cursor = await connection.execute("DELETE FROM webhook_source WHERE tenant = %s AND source = %s", (tenant, source))
            if cursor.rowcount == 0:
                raise no_source(tenant, source)

    async def source(self, tenant: str, source: str) -> Source:
        async with reading(self._pool, tenant) as connection:
            cursor = await connection.execute(
                "SELECT tenant, source, kind, venue, secret, created_ms FROM webhook_source WHERE tenant = %s AND source = %s", (tenant, source)
            )
            row = await cursor.fetchone()
        if row is None:
            raise no_source(tenant, source)
        return _source(row)

    async def sources(self, tenant: str) -> list[Source]:
        async with reading(self._pool, tenant) as connection:
            cursor = await connection.execute(
                'SELECT tenant, source, kind, venue, secret, created_ms FROM webhook_source WHERE tenant = %s ORDER BY source COLLATE "C"', (tenant,)
            )
            return [_source(row) for row in await cursor.fetchall()]

    async def close(self) -> None:
        await self._pool.close()


async def _room_for(connection: Connection, table: str, what: str, tenant: str) -> None:
    """Under a lock of its own to the end of the transaction, so that two who add at once count each other."""
    cursor = await connection.execute("SELECT FROM tenant WHERE tenant = %s", (tenant,))
    if await cursor.fetchone() is None:
        raise NotFound(f"tenant {tenant!r}: not in the catalogue; add it first")
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"{table}/{tenant}",))
    cursor = await connection.execute(f"SELECT count(*) FROM {table} WHERE tenant = %s".encode(), (tenant,))
    if int(values(await cursor.fetchone())[0]) >= MAX_WEBHOOKS:
        raise too_many(what, tenant)


async def _note(connection: Connection, tenant: str, webhook: str, attempt: Attempt) -> None:
    """Within a transaction: those who note of one webhook at once do so one after the other."""
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"webhook_delivery/{tenant}/{webhook}",))
    cursor = await connection.execute(
        'INSERT INTO webhook_delivery (tenant, webhook, number, message, topic, epoch, "offset", type, at_ms, attempt, status, outcome, error) '
        "SELECT %(tenant)s, %(webhook)s, coalesce(max(number), 0) + 1, %(message)s, %(topic)s, %(epoch)s, %(offset)s, %(type)s, %(at_unix_ms)s, %(attempt)s, "
        "%(status)s, %(outcome)s, %(error)s FROM webhook_delivery WHERE tenant = %(tenant)s AND webhook = %(webhook)s RETURNING number",
        {"tenant": tenant, "webhook": webhook, **msgspec.structs.asdict(attempt)},
    )
    number = int(values(await cursor.fetchone())[0])
    if number % 50 == 0:  # now and then: what is past the limit
        await connection.execute(
            "DELETE FROM webhook_delivery WHERE tenant = %s AND webhook = %s AND number <= %s", (tenant, webhook, number - MAX_LOG)
        )


def _webhook(row: Sequence[Any]) -> Webhook:
    tenant, webhook, url, venue, types, where, secret, former, former_until, enabled, created = row
    return Webhook(
        tenant=tenant, id=webhook, url=url, venue=venue, types=tuple(types), where=where, secret=bytes(secret), former=bytes(former),
        former_until_unix_ms=former_until, enabled=enabled, created_unix_ms=created,
    )  # fmt: skip


def _cursor(row: Sequence[Any]) -> Cursor:
    return Cursor(**dict(zip(Cursor.__struct_fields__, row, strict=True)))


def _dead(row: Sequence[Any]) -> DeadLetter:
    message, kind, body, at, attempts, error = row
    return DeadLetter(message=message, type=kind, body=bytes(body), at_unix_ms=at, attempts=attempts, error=error)


def _source(row: Sequence[Any]) -> Source:
    tenant, source, kind, venue, secret, created = row
    return Source(tenant=tenant, id=source, kind=kind, venue=venue, secret=bytes(secret), created_unix_ms=created)
