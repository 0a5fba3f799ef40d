"""Identities on PostgreSQL. Revocations reach listeners by NOTIFY, in the transaction that makes them durable."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final, Self

import psycopg

from esplanade.core.errors import Conflict, NotFound
from esplanade.storage.identity import ApiKey, Family, OneTime, Operator, Revocation, SigningKey, Turn
from esplanade.storage.postgres_pool import TCP_USER_TIMEOUT_MS, WAIT_S, Connection, Pool, keeping, open_pool, reading, translated, writing

CHANNEL: Final = "esplanade_revocation"
LISTEN_S: Final = 10.0
"""A listener that heard nothing for so long asks for a sign of life."""

_OPERATOR: Final = "tenant, name, subject, role, password, made_ms, totp, failures, locked_until_ms, disabled_ms"
_FAMILY: Final = "f.family, f.tenant, f.subject, f.role, f.source, f.client, f.made_ms, f.expires_ms, f.revoked_ms"
_KEY: Final = "k.id, k.tenant, k.name, k.role, k.permissions, k.venue, k.unit, k.source, k.subject, k.made_ms, k.expires_ms, k.revoked_ms"


class PostgresIdentity:
    """Identities in a migrated database. Open with `await PostgresIdentity.open(url)` in the event loop that will use it."""

    def __init__(self, pool: Pool, url: str) -> None:
        self._pool = pool
        self._url = url

    @classmethod
    async def open(cls, url: str, *, connections: int = 2) -> Self:
        """Connect. Raises Unavailable where the database cannot be reached, Conflict where it is not migrated to this code's schema."""
        return cls(await open_pool(url, connections=connections), url)

    # --- signing keys ---

    async def signing_keys(self) -> list[SigningKey]:
        async with writing(self._pool) as connection:
            cursor = await connection.execute(
                "SELECT kid, public, sealed, made_ms, signs_from_ms, verifies_until_ms FROM signing_key ORDER BY signs_from_ms, kid", binary=True
            )
            return [SigningKey(*row) for row in await cursor.fetchall()]

    async def add_signing_key(self, key: SigningKey, *, others_until_ms: int | None) -> bool:
        async with writing(self._pool) as connection, connection.transaction():
            await connection.execute("LOCK TABLE signing_key IN EXCLUSIVE MODE")
            cursor = await connection.execute("SELECT count(*) FROM signing_key")
            if others_until_ms is None and (await cursor.fetchone()) != (0,):
                return False
            await connection.execute(
                "UPDATE signing_key SET verifies_until_ms = %s WHERE verifies_until_ms IS NULL OR verifies_until_ms > %s",
                (others_until_ms, others_until_ms),
            )
            await connection.execute(
                "INSERT INTO signing_key (kid, public, sealed, made_ms, signs_from_ms) VALUES (%s, %b, %b, %s, %s)",
                (key.kid, key.public, key.sealed, key.made_ms, key.signs_from_ms),
            )
            return True

    # --- accounts ---

    async def account(self, tenant: str, issuer: str, name_digest: bytes) -> int | None:
        async with writing(self._pool) as connection:
            cursor = await connection.execute(
                "SELECT subject FROM account WHERE tenant = %s AND issuer = %s AND name_digest = %b", (tenant, issuer, name_digest)
            )
            row = await cursor.fetchone()
        return None if row is None else int(row[0])

    async def link(self, tenant: str, issuer: str, name_digest: bytes, subject: int, now_ms: int) -> int:
        async with writing(self._pool) as connection:
            with _known_tenant(tenant):
                await connection.execute(
                    "INSERT INTO account (tenant, issuer, name_digest, subject, made_ms) VALUES (%s, %s, %b, %s, %s) ON CONFLICT DO NOTHING",
                    (tenant, issuer, name_digest, subject, now_ms),
                )
        held = await self.account(tenant, issuer, name_digest)
        return subject if held is None else held

    async def unlink(self, tenant: str, subject: int) -> int:
        async with keeping(self._pool) as connection:
            return (await connection.execute("DELETE FROM account WHERE tenant = %s AND subject = %s", (tenant, subject))).rowcount

    # --- operators ---

    async def add_operator(self, operator: Operator) -> None:
        async with writing(self._pool) as connection:
            try:
                with _known_tenant(operator.tenant):
                    await connection.execute(
                        "INSERT INTO operator (tenant, name, subject, role, password, made_ms, totp) VALUES (%s, %s, %s, %s, %s, %s, %b)",
                        (operator.tenant, operator.name, operator.subject, operator.role, operator.password, operator.made_ms, operator.totp),
                    )
            except psycopg.errors.UniqueViolation as error:
                raise Conflict(f"operator {operator.name!r} of {operator.tenant!r}: there is one of this name; take another") from error

    async def operator(self, tenant: str, name: str) -> Operator | None:
        async with writing(self._pool) as connection:
            cursor = await connection.execute(f"SELECT {_OPERATOR} FROM operator WHERE tenant = %s AND name = %s", (tenant, name), binary=True)
            row = await cursor.fetchone()
        return None if row is None else Operator(*row)

    async def operators(self, tenant: str) -> list[Operator]:
        async with writing(self._pool) as connection:
            cursor = await connection.execute(f"SELECT {_OPERATOR} FROM operator WHERE tenant = %s ORDER BY name", (tenant,), binary=True)
            return [Operator(*row) for row in await cursor.fetchall()]

    async def change_operator(self, operator: Operator) -> None:
        async with writing(self._pool) as connection:
            cursor = await connection.execute(
                "UPDATE operator SET role = %s, password = %s, totp = %b, disabled_ms = %s, failures = 0, locked_until_ms = 0 WHERE tenant = %s AND name = %s",
                (operator.role, operator.password, operator.totp, operator.disabled_ms, operator.tenant, operator.name),
            )
            if cursor.rowcount == 0:
                raise NotFound(f"operator {operator.name!r} of {operator.tenant!r}: there is none; `esplanade operators list` names them")

    async def sign_in_failed(self, tenant: str, name: str, *, most: int, lock_until_ms: int) -> None:
        async with writing(self._pool) as connection:
            await connection.execute(
                "UPDATE operator SET failures = CASE WHEN failures + 1 >= %s THEN 0 ELSE failures + 1 END, "
                "locked_until_ms = CASE WHEN failures + 1 >= %s THEN %s ELSE locked_until_ms END WHERE tenant = %s AND name = %s",
                (most, most, lock_until_ms, tenant, name),
            )

    async def signed_in(self, tenant: str, name: str) -> None:
        async with writing(self._pool) as connection:
            await connection.execute("UPDATE operator SET failures = 0, locked_until_ms = 0 WHERE tenant = %s AND name = %s", (tenant, name))

    async def take_totp_step(self, tenant: str, name: str, step: int) -> bool:
        async with writing(self._pool) as connection:
            cursor = await connection.execute(
                "UPDATE operator SET totp_step = %s WHERE tenant = %s AND name = %s AND totp_step < %s", (step, tenant, name, step)
            )
            return cursor.rowcount == 1

    # --- refresh tokens ---

    async def begin(self, family: Family, digest: bytes) -> None:
        async with writing(self._pool) as connection, connection.transaction():
            await connection.execute(
                "INSERT INTO token_family (family, tenant, subject, role, source, client, made_ms, expires_ms) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
                (family.family, family.tenant, family.subject, family.role, family.source, family.client, family.made_ms, family.expires_ms),
            )
            await connection.execute(
                "INSERT INTO refresh_token (digest, family, made_ms) VALUES (%b, %s, %s)", (digest, family.family, family.made_ms)
            )

    async def turn(self, digest: bytes, following: bytes, now_ms: int, revoked_until_ms: int) -> Turn | None:
        async with writing(self._pool) as connection, connection.transaction():
            cursor = await connection.execute(
                f"SELECT r.spent_ms, {_FAMILY} FROM refresh_token r JOIN token_family f USING (family) WHERE r.digest = %b FOR UPDATE", (digest,)
            )
            row = await cursor.fetchone()
            if row is None:
                return None
            family = Family(*row[1:])
            if family.revoked_ms is not None or family.expires_ms <= now_ms:
                return Turn(family, "ended")
            if row[0] is not None:
                await _revoke(connection, Revocation(family.tenant, "family", family.family, now_ms, revoked_until_ms))
                return Turn(family, "reused")
            await connection.execute("UPDATE refresh_token SET spent_ms = %s WHERE digest = %b", (now_ms, digest))
            await connection.execute("INSERT INTO refresh_token (digest, family, made_ms) VALUES (%b, %s, %s)", (following, family.family, now_ms))
            return Turn(family, "turned")

    # --- good once ---

    async def keep_once(self, kind: str, id: str, once: OneTime, expires_ms: int) -> None:
        async with writing(self._pool) as connection:
            await connection.execute(
                "INSERT INTO one_time (kind, id, tenant, body, expires_ms) VALUES (%s, %s, %s, %b, %s)",
                (kind, id, once.tenant, once.body, expires_ms),
            )

    async def attempt(self, kind: str, id: str, *, most: int, now_ms: int) -> OneTime | None:
        async with writing(self._pool) as connection:
            cursor = await connection.execute(
                "UPDATE one_time SET attempts = attempts + 1 WHERE kind = %s AND id = %s AND attempts < %s AND expires_ms > %s RETURNING tenant, body",
                (kind, id, most, now_ms),
                binary=True,
            )
            row = await cursor.fetchone()
        return None if row is None else OneTime(*row)

    async def spend(self, kind: str, id: str, now_ms: int) -> OneTime | None:
        async with writing(self._pool) as connection:
            cursor = await connection.execute(
                "DELETE FROM one_time WHERE kind = %s AND id = %s RETURNING tenant, body, expires_ms", (kind, id), binary=True
            )
            row = await cursor.fetchone()
        return None if row is None or row[2] <= now_ms else OneTime(row[0], row[1])

    # --- API keys ---

    async def add_key(self, key: ApiKey, digest: bytes) -> None:
        async with writing(self._pool) as connection, connection.transaction():
            with _known_tenant(key.tenant):
                await connection.execute(
                    "INSERT INTO api_key (id, tenant, name, role, permissions, venue, unit, source, subject, made_ms, expires_ms) "
                    "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                    (key.id, key.tenant, key.name, key.role, None if key.permissions is None else list(key.permissions), key.venue, key.unit, key.source,
                     key.subject, key.made_ms, key.expires_ms),
                )  # fmt: skip
            await connection.execute("INSERT INTO api_key_secret (digest, key, made_ms) VALUES (%b, %s, %s)", (digest, key.id, key.made_ms))

    async def keys(self, tenant: str) -> list[ApiKey]:
        async with reading(self._pool, tenant) as connection:
            cursor = await connection.execute(f"SELECT {_KEY} FROM api_key k WHERE tenant = %s ORDER BY made_ms, id", (tenant,))
            return [_key(row) for row in await cursor.fetchall()]

    async def key_of(self, digest: bytes, now_ms: int) -> ApiKey | None:
        async with writing(self._pool) as connection:
            cursor = await connection.execute(
                f"SELECT {_KEY} FROM api_key_secret s JOIN api_key k ON k.id = s.key WHERE s.digest = %b AND (s.ends_ms IS NULL OR s.ends_ms > %s) "
                "AND k.revoked_ms IS NULL AND (k.expires_ms IS NULL OR k.expires_ms > %s)",
                (digest, now_ms, now_ms),
            )
            row = await cursor.fetchone()
        return None if row is None else _key(row)

    async def rotate_key(self, tenant: str, id: str, digest: bytes, *, now_ms: int, others_until_ms: int) -> None:
        async with writing(self._pool) as connection, connection.transaction():
            cursor = await connection.execute("SELECT FROM api_key WHERE tenant = %s AND id = %s AND revoked_ms IS NULL FOR UPDATE", (tenant, id))
            if await cursor.fetchone() is None:
                raise NotFound(f"key {id!r} of {tenant!r}: there is none that counts; `esplanade keys list` names them")
            await connection.execute(
                "UPDATE api_key_secret SET ends_ms = CASE WHEN digest = (SELECT digest FROM api_key_secret WHERE key = %s ORDER BY made_ms DESC, digest LIMIT 1) "
                "THEN least(ends_ms, %s) ELSE least(ends_ms, %s) END WHERE key = %s",
                (id, others_until_ms, now_ms, id),
            )
            await connection.execute("INSERT INTO api_key_secret (digest, key, made_ms) VALUES (%b, %s, %s)", (digest, id, now_ms))

    # --- what no longer counts ---

    async def revoke(self, revocation: Revocation) -> bool:
        async with writing(self._pool) as connection, connection.transaction():
            return await _revoke(connection, revocation)

    async def revocations(self, now_ms: int) -> list[Revocation]:
        async with writing(self._pool) as connection:
            cursor = await connection.execute("SELECT tenant, kind, what, at_ms, until_ms FROM revocation WHERE until_ms > %s", (now_ms,))
            return [Revocation(*row) for row in await cursor.fetchall()]

    async def changes(self) -> AsyncIterator[None]:
        with translated():
            connection = await psycopg.AsyncConnection.connect(
                self._url,
                autocommit=True,
                connect_timeout=int(WAIT_S),
                tcp_user_timeout=TCP_USER_TIMEOUT_MS,
                keepalives_idle=5,
                application_name="esplanade",
            )
            async with connection:
                await connection.execute(f"LISTEN {CHANNEL}")
                yield
                while True:
                    # Read to its end before anything is yielded: a generator that is left half-way keeps the connection's lock.
                    heard = [notify async for notify in connection.notifies(timeout=LISTEN_S, stop_after=1)]
                    if heard:
                        yield
                    else:
                        await connection.execute("SELECT 1")

    async def drop_expired(self, now_ms: int) -> int:
        async with keeping(self._pool) as connection:
            dropped = 0
            for statement in (
                "DELETE FROM one_time WHERE expires_ms <= %s",
                "DELETE FROM token_family WHERE expires_ms <= %s",
                "DELETE FROM revocation WHERE until_ms <= %s",
                "DELETE FROM signing_key WHERE verifies_until_ms <= %s",
            ):
                dropped += (await connection.execute(statement.encode(), (now_ms,))).rowcount
            return dropped

    async def close(self) -> None:
        await self._pool.close()


async def _revoke(connection: Connection, revocation: Revocation) -> bool:
    tenant, what, at = revocation.tenant, revocation.what, revocation.at_ms
    match revocation.kind:
        case "family":
            cursor = await connection.execute(
                "UPDATE token_family SET revoked_ms = %s WHERE tenant = %s AND family = %s AND revoked_ms IS NULL", (at, tenant, what)
            )
        case "key":
            cursor = await connection.execute(
                "UPDATE api_key SET revoked_ms = %s WHERE tenant = %s AND id = %s AND revoked_ms IS NULL", (at, tenant, what)
            )
        case "subject":
            cursor = await connection.execute(
                "UPDATE token_family SET revoked_ms = %s WHERE tenant = %s AND subject = %s AND revoked_ms IS NULL", (at, tenant, int(what))
            )
    known = revocation.kind == "subject" or cursor.rowcount > 0  # of a subject there may be tokens without a family
    if known:
        await connection.execute(
            "INSERT INTO revocation (tenant, kind, what, at_ms, until_ms) VALUES (%s, %s, %s, %s, %s) "
            "ON CONFLICT (tenant, kind, what) DO UPDATE SET at_ms = excluded.at_ms, until_ms = excluded.until_ms, written_ms = now_ms()",
            (tenant, revocation.kind, what, at, revocation.until_ms),
        )
    return known


def _key(row: Any) -> ApiKey:
    values = list(row)
    values[4] = None if values[4] is None else tuple(values[4])
    return ApiKey(*values)


@contextlib.contextmanager
def _known_tenant(tenant: str) -> Iterator[None]:
    """Turn the refusal of a tenant that is not there into NotFound."""
    try:
        yield
    except psycopg.errors.ForeignKeyViolation as error:
        raise NotFound(f"tenant {tenant!r}: not in the catalogue; add it first") from error
