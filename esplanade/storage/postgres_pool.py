"""Connections to PostgreSQL: a small pool under the writer's role, reads under the reader's role bound to one tenant, errors turned into ours.

Every wait has a limit: for a connection from the pool, for a lock, for a statement, for a dead peer.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import psycopg
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from esplanade.core.errors import Conflict, Fault, LimitExceeded, Unavailable
from esplanade.storage.postgres_migrate import check_applied, migrations

Connection = psycopg.AsyncConnection[TupleRow]
Pool = AsyncConnectionPool[Connection]

WAIT_S: Final = 5.0
"""For a free connection of the pool, and for a new one."""

MAX_WAITING: Final = 1_000
"""Callers that wait for a connection; more are refused."""

STATEMENT_TIMEOUT: Final = "30s"
LOCK_TIMEOUT: Final = "10s"
IDLE_IN_TRANSACTION_TIMEOUT: Final = "10s"
TCP_USER_TIMEOUT_MS: Final = 10_000


async def open_pool(url: str, *, connections: int, ready: int = 1) -> Pool:
    """A pool of at most `connections`, `ready` of them open from now on; writer's role, each statement its own transaction.

    Raises Unavailable where the database cannot be reached, Conflict where its schema is not this code's.
    """
    with translated():
        probe = await psycopg.AsyncConnection.connect(url, connect_timeout=int(WAIT_S))
        async with probe:
            await _check_schema(probe)
    return await open_lane(url, connections=connections, ready=ready)


async def open_lane(url: str, *, connections: int, ready: int = 0) -> Pool:
    """A pool of its own beside one that `open_pool` has opened, for what must not wait behind the rest. Connects at its first use, except `ready` of them."""
    with translated():
        pool: Pool = AsyncConnectionPool(
            url,
            connection_class=psycopg.AsyncConnection[TupleRow],
            kwargs={
                "autocommit": True,
                "connect_timeout": int(WAIT_S),
                "tcp_user_timeout": TCP_USER_TIMEOUT_MS,
                "keepalives_idle": 5,
                "application_name": "esplanade",
            },
            min_size=ready,
            max_size=connections,
            timeout=WAIT_S,
            max_waiting=MAX_WAITING,
            reconnect_timeout=WAIT_S,
            configure=_configure,
            open=False,
        )
        await pool.open(wait=True, timeout=2 * WAIT_S)
    return pool


async def _check_schema(connection: Connection) -> None:
    cursor = await connection.execute("SELECT to_regclass('esplanade.migration') IS NOT NULL")
    rows: list[TupleRow] = []
    if (await cursor.fetchone()) == (True,):
        rows = await (await connection.execute("SELECT version, name, checksum FROM esplanade.migration ORDER BY version")).fetchall()
    known = migrations()
    check_applied([(int(version), str(name), str(checksum)) for version, name, checksum in rows], known)
    if len(rows) < len(known):
        raise Conflict(f"the database is at schema version {len(rows)}, this Esplanade needs {len(known)}; run the migrations first")


async def _configure(connection: Connection) -> None:
    await connection.execute(
        "SELECT set_config('search_path', 'esplanade, pg_temp', false), set_config('role', 'esplanade_writer', false), "
        "set_config('statement_timeout', %s, false), set_config('lock_timeout', %s, false), "
        "set_config('idle_in_transaction_session_timeout', %s, false)",
        (STATEMENT_TIMEOUT, LOCK_TIMEOUT, IDLE_IN_TRANSACTION_TIMEOUT),
    )


@contextlib.asynccontextmanager
async def reading(pool: Pool, tenant: str) -> AsyncIterator[Connection]:
    """A transaction that sees rows of `tenant` alone: row-level security holds even where a query forgets its WHERE."""
    with translated():
        async with pool.connection() as connection, connection.pipeline(), connection.transaction():
            await connection.execute("SELECT set_config('role', 'esplanade_reader', true), set_config('esplanade.tenant', %s, true)", (tenant,))
            yield connection


@contextlib.asynccontextmanager
async def keeping(pool: Pool) -> AsyncIterator[Connection]:
    """A transaction that may drop what is past its keeping."""
    with translated():
        async with pool.connection() as connection, connection.transaction():
            await connection.execute("SELECT set_config('role', 'esplanade_keeper', true)")
            yield connection


@contextlib.asynccontextmanager
async def writing(pool: Pool) -> AsyncIterator[Connection]:
    """A connection under the writer's role; each statement is its own transaction."""
    with translated():
        async with pool.connection() as connection:
            yield connection


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's errors into ours: Unavailable where asking again may help, Fault where it will not."""
    try:
        yield
    except TooManyRequests as error:
        raise LimitExceeded(f"{MAX_WAITING} callers wait for a PostgreSQL connection already; ask again later") from error
    except (PoolTimeout, PoolClosed) as error:
        raise Unavailable(f"no connection to PostgreSQL: {error}") from error
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise Unavailable(f"PostgreSQL: {error}") from error
    except psycopg.Error as error:
        raise Fault(f"PostgreSQL ({error.sqlstate}): {error}") from error


def values(row: TupleRow | None) -> tuple[Any, ...]:
    """The row of a query that always has one."""
    if row is None:
        raise Fault("PostgreSQL answered no row where there is always one")
    return row
