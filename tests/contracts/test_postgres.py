"""What only a database can show: locks between a flush and a takeover, rights of the roles, damage, crashes, migrations."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest

from esplanade.core.errors import Conflict, Fault, Fenced, Unavailable
from esplanade.storage.embedded import start_postgres
from esplanade.storage.journal import Append, Event, OutboxEntry, Snapshot, StoredReply
from esplanade.storage.postgres import PostgresCatalogue, PostgresJournal, migrate
from esplanade.storage.postgres_migrate import Migration, migrations
from tests.services_fixtures import database_url, open_folder

pytestmark = pytest.mark.services

EVENT = Event("mall/demo/parkside", 1, "tested.v1", b"body")
FOREVER_MS = 4_102_444_800_000


@pytest.fixture
async def journal(postgres_url: str) -> AsyncIterator[PostgresJournal]:
    journal = await PostgresJournal.open(postgres_url)
    yield journal
    await journal.close()


@pytest.fixture
def admin(postgres_url: str) -> Iterator[psycopg.Connection]:
    """The owner of the tables; each statement commits, unless the test begins a transaction."""
    with psycopg.connect(postgres_url, autocommit=True, options="-c search_path=esplanade") as connection:
        yield connection


def append(position: int, *, tenant: str = "demo", epoch: int = 1, body: bytes = b"body") -> Append:
    return Append(tenant, 7, epoch, position, (Event(f"mall/{tenant}/parkside", position, "tested.v1", body),))


async def fill(journal: PostgresJournal) -> None:
    """One row of every tenant-bound table for each of two tenants."""
    await journal.acquire([7], "a", ttl_ms=60_000)
    for tenant in ("demo", "other"):
        await journal.flush(
            [append(1, tenant=tenant)],
            [OutboxEntry(tenant, "topic", b"secret of " + tenant.encode())],
            [StoredReply(tenant, b"k" * 16, b"digest", b"reply", FOREVER_MS)],
        )
        await journal.put_snapshot(Snapshot(tenant, 7, 1, b"state"))


async def until_somebody_waits_for_a_lock(admin: psycopg.Connection) -> None:
    async with asyncio.timeout(20):
        query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        while admin.execute(query).fetchone() == (0,):
            await asyncio.sleep(0.002)


# --- a flush and a takeover at the same time ------------------------------------------------------------------------------


async def test_a_flush_that_meets_a_takeover_waits_for_it_and_is_fenced(
    journal: PostgresJournal, postgres_url: str, admin: psycopg.Connection
) -> None:
    await journal.acquire([7], "a", ttl_ms=60_000)
    with psycopg.connect(postgres_url, options="-c search_path=esplanade") as takeover:
        takeover.execute("SELECT 1 FROM partition_lease WHERE partition = 7 FOR UPDATE")
        takeover.execute("UPDATE partition_lease SET owner = 'b', epoch = epoch + 1 WHERE partition = 7")
        flush = asyncio.create_task(journal.flush([append(1)], [OutboxEntry("demo", "topic", b"late")]))
        await until_somebody_waits_for_a_lock(admin)
        takeover.commit()
    with pytest.raises(Fenced, match="epoch 2"):
        await flush
    assert await journal.heads(7) == {}
    assert await journal.place("demo", "topic") == (1, 0)


async def test_a_takeover_that_meets_a_flush_returns_only_after_its_commit(
    journal: PostgresJournal, postgres_url: str, admin: psycopg.Connection
) -> None:
    """Otherwise the new owner would replay the log without the segment that the former owner was just told is durable."""
    await journal.acquire([7], "a", ttl_ms=60_000)
    with psycopg.connect(postgres_url, options="-c search_path=esplanade") as former:
        former.execute("SELECT 1 FROM partition_lease WHERE partition = 7 FOR KEY SHARE")  # as journal_flush does
        former.execute(
            "INSERT INTO segment (tenant, partition, position, epoch, written_ms, entities, first_versions, last_versions, body, crc) "
            "VALUES ('demo', 7, 1, 1, 1, '{e}', '{1}', '{1}', '', 0)"
        )
        takeover = asyncio.create_task(journal.acquire([7], "b", ttl_ms=60_000))
        await until_somebody_waits_for_a_lock(admin)
        assert not takeover.done()
        former.commit()
    assert (await takeover)[0].epoch == 2
    assert await journal.heads(7) == {"demo": 1}


async def test_renewing_does_not_wait_for_a_flush(journal: PostgresJournal, postgres_url: str) -> None:
    leases = await journal.acquire([7], "a", ttl_ms=60_000)
    with psycopg.connect(postgres_url, options="-c search_path=esplanade") as flush:
        flush.execute("SELECT 1 FROM partition_lease WHERE partition = 7 FOR KEY SHARE")
        assert len(await asyncio.wait_for(journal.renew(leases, ttl_ms=60_000), 20)) == 1


# --- rights ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["segment", "snapshot", "outbox", "outbox_topic", "idempotency"])
async def test_the_reader_sees_the_rows_of_its_tenant_alone(journal: PostgresJournal, admin: psycopg.Connection, table: str) -> None:
    await fill(journal)
    with admin.transaction():
        admin.execute("SELECT set_config('role', 'esplanade_reader', true)")
        assert admin.execute(f"SELECT tenant FROM {table}".encode()).fetchall() == []  # no tenant set: nothing
        for tenant in ("demo", "other"):
            admin.execute("SELECT set_config('esplanade.tenant', %s, true)", (tenant,))
            assert admin.execute(f"SELECT tenant FROM {table}".encode()).fetchall() == [(tenant,)]


async def test_the_reader_sees_venues_of_its_tenant_alone(postgres_url: str, admin: psycopg.Connection) -> None:
    catalogue = await PostgresCatalogue.open(postgres_url)
    for tenant in ("demo", "other"):
        await catalogue.add_tenant(tenant, tenant)
        await catalogue.put_venue(tenant, b'{"id": "v", "name": "V", "kind": "mall"}')
    await catalogue.close()
    with admin.transaction():
        admin.execute("SELECT set_config('role', 'esplanade_reader', true), set_config('esplanade.tenant', 'demo', true)")
        assert admin.execute("SELECT tenant FROM venue").fetchall() == [("demo",)]


READERS_TABLES = ["segment", "snapshot", "outbox", "outbox_topic", "idempotency", "venue"]
FORBIDDEN = [
    *(("esplanade_reader", f"DELETE FROM {table}") for table in READERS_TABLES),
    *(("esplanade_reader", f"UPDATE {table} SET tenant = tenant") for table in READERS_TABLES),
    *(("esplanade_reader", f"SELECT 1 FROM {table}") for table in ("secret", "tenant", "partition_lease", "subject_sequence")),
    *(("esplanade_writer", f"UPDATE {table} SET body = ''") for table in ("segment", "outbox")),
    *(("esplanade_writer", f"DELETE FROM {table}") for table in ("segment", "outbox", "idempotency", "secret", "venue")),
    *(("esplanade_writer", f"TRUNCATE {table}") for table in ("segment", "outbox")),
    ("esplanade_writer", "UPDATE secret SET value = ''"),
    *(
        (role, statement)
        for role in ("esplanade_writer", "esplanade_keeper", "esplanade_reader")
        for statement in ("UPDATE audit SET outcome = 'done'", "DELETE FROM audit", "TRUNCATE audit")
    ),
    ("esplanade_writer", "SELECT 1 FROM audit"),
    ("esplanade_writer", "UPDATE subject_key SET wrapped = ''"),
    ("esplanade_writer", "DELETE FROM subject_key"),
    ("esplanade_keeper", "DELETE FROM subject_key"),
    ("esplanade_reader", "SELECT 1 FROM subject_key"),
    ("esplanade_keeper", "INSERT INTO audit SELECT"),
    ("esplanade_reader", "INSERT INTO audit SELECT"),
    ("esplanade_keeper", "DELETE FROM segment"),
    ("esplanade_keeper", "SELECT 1 FROM secret"),
]


@pytest.mark.parametrize(("role", "statement"), FORBIDDEN, ids=[f"{role}: {statement}" for role, statement in FORBIDDEN])
def test_a_role_may_do_only_its_work(admin: psycopg.Connection, role: str, statement: str) -> None:
    with admin.transaction():
        admin.execute("SELECT set_config('role', %s, true)", (role,))
        with pytest.raises(psycopg.errors.InsufficientPrivilege), admin.transaction():
            admin.execute(statement.encode())


def test_no_role_of_ours_bypasses_row_level_security_or_logs_in(admin: psycopg.Connection) -> None:
    roles = admin.execute(
        "SELECT rolname, rolbypassrls, rolcanlogin, rolsuper FROM pg_roles WHERE rolname LIKE 'esplanade%' ORDER BY rolname"
    ).fetchall()
    assert roles == [(name, False, False, False) for name in ("esplanade_keeper", "esplanade_reader", "esplanade_writer")]


async def test_the_pool_never_keeps_a_tenant_or_the_readers_role(postgres_url: str) -> None:
    journal = await PostgresJournal.open(postgres_url, connections=1)
    await fill(journal)
    assert await journal.reply_of("demo", b"k" * 16) is not None
    assert await journal.heads(7) == {"demo": 1, "other": 1}  # as the writer again, over all tenants
    assert [segment.tenant async for segment in journal.read("other", 7)] == ["other"]
    await journal.close()


# --- damage ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("UPDATE segment SET body = set_byte(body, 5, 255 - get_byte(body, 5)) WHERE position = 2", "checksum"),
        ("UPDATE segment SET body = substring(body FROM 1 FOR 3) WHERE position = 2", "checksum"),
        ("UPDATE segment SET body = (SELECT body FROM segment WHERE position = 1), crc = (SELECT crc FROM segment WHERE position = 1) WHERE position = 2", "checksum"),
        ("DELETE FROM segment WHERE position = 2", "segments are missing"),
    ],
    ids=["a bit", "cut short", "another's body", "gone"],
)  # fmt: skip
async def test_a_damaged_segment_is_a_fault_that_names_it(journal: PostgresJournal, admin: psycopg.Connection, damage: str, said: str) -> None:
    await journal.acquire([7], "a", ttl_ms=60_000)
    for position in (1, 2, 3):
        await journal.flush([append(position)])
    admin.execute(damage.encode())
    read = journal.read("demo", 7)
    assert (await anext(read)).position == 1
    with pytest.raises(Fault, match=said) as fault:
        await anext(read)
    assert "(demo, 7)" in fault.value.message


async def test_a_damaged_snapshot_is_a_fault_that_names_it(journal: PostgresJournal, admin: psycopg.Connection) -> None:
    await fill(journal)
    admin.execute("UPDATE snapshot SET body = 'other'")
    with pytest.raises(Fault, match=r"snapshot of \(demo, 7\) at position 1"):
        await journal.snapshot("demo", 7)


async def test_the_index_of_a_segment_names_entities_and_versions(journal: PostgresJournal, admin: psycopg.Connection) -> None:
    await journal.acquire([7, 8], "a", ttl_ms=60_000)
    events = tuple(Event(entity, version, "tested.v1", b"") for entity, version in (("a", 4), ("b", 1), ("a", 5), ("c", 2), ("a", 6)))
    await journal.flush([Append("demo", 8, 1, 1, events[:2]), Append("demo", 7, 1, 1, ()), Append("other", 7, 1, 1, events)])
    rows = admin.execute("SELECT tenant, partition, entities, first_versions, last_versions FROM segment ORDER BY partition").fetchall()
    assert rows == [("other", 7, ["a", "b", "c"], [4, 1, 2], [6, 1, 2]), ("demo", 8, ["a", "b"], [4, 1], [4, 1])]


# --- losing the database ----------------------------------------------------------------------------------------------------


async def test_killing_postgres_in_the_middle_loses_nothing_acknowledged() -> None:
    """kill -9 of the server under four writers; after the restart each log holds what was acked, and at most the one in flight."""
    folder = open_folder()
    server = start_postgres(folder)
    try:
        migrate(server.url)
        journal = await PostgresJournal.open(server.url)
        acked = dict.fromkeys(range(4), 0)
        leases = await journal.acquire(list(acked), "a", ttl_ms=60_000)

        async def write(partition: int) -> None:
            with contextlib.suppress(Unavailable):
                while True:
                    position = acked[partition] + 1
                    events = (Event("mall/demo/x", position, "tested.v1", os.urandom(2_000)),)
                    await journal.flush(
                        [Append("demo", partition, leases[partition].epoch, position, events)], [OutboxEntry("demo", "t", b"%d" % position)]
                    )
                    acked[partition] = position
                    if sum(acked.values()) == 200:
                        os.kill(server.server_pid, signal.SIGKILL)

        await asyncio.wait_for(asyncio.gather(*(write(partition) for partition in acked)), 60)
        with pytest.raises(Unavailable):
            await journal.heads(0)
        await journal.close()
        server.stop()
        assert server.pids == ()

        server = start_postgres(folder)
        journal = await PostgresJournal.open(server.url)
        appended = 0
        for partition, last in acked.items():
            positions = [segment.position async for segment in journal.read("demo", partition)]
            assert positions == list(range(1, len(positions) + 1))
            assert len(positions) - last in (0, 1)
            appended += len(positions)
        assert await journal.place("demo", "t") == (1, appended)
        assert [entry.offset for entry in await journal.published("demo", "t", epoch=1, after=0)] == list(range(1, appended + 1))
        await journal.close()
    finally:
        server.stop()
        shutil.rmtree(folder)


async def test_a_flush_does_not_wait_behind_snapshots_and_replays(journal: PostgresJournal) -> None:
    """Eight snapshots of 68 MB each once kept all connections for longer than a flush waits."""
    await journal.acquire([7], "a", ttl_ms=60_000)
    async with contextlib.AsyncExitStack() as busy:
        for _ in range(journal._pool.max_size):
            await busy.enter_async_context(journal._pool.connection())
        await journal.flush([append(1)])
    assert await journal.heads(7) == {"demo": 1}


async def test_a_lost_connection_is_unavailable_and_the_next_call_gets_another(journal: PostgresJournal, admin: psycopg.Connection) -> None:
    await journal.acquire([7], "a", ttl_ms=60_000)
    await journal.flush([append(1)])
    query = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    assert admin.execute(query).fetchone() != (0,)
    with pytest.raises(Unavailable):
        await journal.flush([append(2)])
    with pytest.raises(Unavailable):
        await journal.heads(7)  # on a connection that is not for flushes
    await journal.flush([append(2)])
    assert await journal.heads(7) == {"demo": 2}


async def test_a_database_that_is_not_there_is_unavailable(postgres_server_url: str) -> None:
    url = database_url(postgres_server_url, "nowhere")
    with pytest.raises(Unavailable, match="nowhere"):
        await PostgresJournal.open(url)
    with pytest.raises(Unavailable, match="nowhere"):
        migrate(url)


# --- migrations -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def empty_url(postgres_server_url: str) -> Iterator[str]:
    with psycopg.connect(postgres_server_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE fresh")
        yield database_url(postgres_server_url, "fresh")
        connection.execute("DROP DATABASE fresh WITH (FORCE)")


def test_migrating_twice_does_nothing_the_second_time(empty_url: str) -> None:
    assert migrate(empty_url) == [migration.name for migration in migrations()]
    assert migrate(empty_url) == []


async def test_two_starters_do_not_collide(empty_url: str) -> None:
    applied = await asyncio.gather(*(asyncio.to_thread(migrate, empty_url) for _ in range(4)))
    assert sorted(map(len, applied)) == [0, 0, 0, len(migrations())]


async def test_a_database_that_is_not_migrated_is_refused(empty_url: str) -> None:
    with pytest.raises(Conflict, match="run the migrations"):
        await PostgresJournal.open(empty_url)


async def test_a_database_newer_than_the_code_is_refused_and_left_alone(empty_url: str) -> None:
    newer = [*migrations(), Migration(len(migrations()) + 1, "9999_future.sql", b"CREATE TABLE future (x integer)")]
    assert migrate(empty_url, newer) == [migration.name for migration in newer]
    with pytest.raises(Conflict, match="newer than the code"):
        migrate(empty_url)
    with pytest.raises(Conflict, match="newer than the code"):
        await PostgresJournal.open(empty_url)


def test_a_database_made_from_other_files_is_refused(empty_url: str) -> None:
    first, *rest = migrations()
    migrate(empty_url)
    with pytest.raises(Conflict, match="another content"):
        migrate(empty_url, [first._replace(sql=first.sql + b"-- changed"), *rest])


async def test_a_user_without_special_powers_can_own_the_database() -> None:
    """As on a managed server: no superuser, but allowed to create roles. Row-level security binds even the owner's connections."""
    folder = open_folder()
    server = start_postgres(folder)
    try:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("CREATE ROLE plain LOGIN CREATEROLE")
            connection.execute("CREATE DATABASE owned OWNER plain")
        url = database_url(server.url, "owned").replace("//postgres@", "//plain@")
        assert migrate(url) != []
        journal = await PostgresJournal.open(url)
        await fill(journal)
        assert [segment.tenant async for segment in journal.read("demo", 7)] == ["demo"]
        assert await journal.trim_outbox(older_than_ms=0) == 2
        await journal.close()
    finally:
        server.stop()
        shutil.rmtree(folder)


def test_a_migration_that_fails_leaves_the_schema_as_it_was(empty_url: str) -> None:
    broken = [*migrations(), Migration(len(migrations()) + 1, "9999_broken.sql", b"CREATE TABLE half (x integer); SELECT 1 / 0")]
    with pytest.raises(Fault, match="9999_broken"):
        migrate(empty_url, broken)
    with psycopg.connect(empty_url) as connection:
        assert connection.execute("SELECT to_regclass('esplanade.segment'), to_regclass('esplanade.half')").fetchone() == (None, None)
    assert migrate(empty_url) != []
