"""The restore drill, and what a restore refuses: payments and offers into a real database, backed up while it is written, destroyed, restored, replayed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest

from actors.directory import owner_name
from actors.ledger_state import sums_of
from actors.local_system import LocalSystem
from actors.messages import CreateOffer, Payments, TopUps
from actors.partition_log import PartitionLog
from actors.positions import HostSettings
from actors.shard import Shard
from actors.venue_shelf import VenueShelf
from esplanade.core.clock import RealClock
from esplanade.core.errors import Conflict, Fault, Fenced, InvalidInput
from esplanade.core.ids import PARTITIONS, Address, partition_of
from esplanade.storage.backup import LEFT_OUT, check_backup, restore_backup, write_backup
from esplanade.storage.embedded import start_postgres
from esplanade.storage.journal import Append, Event, Journal, Segment, Snapshot
from esplanade.storage.memory import MemoryBroker, MemoryHub, MemoryJournal, MemoryStore
from esplanade.storage.postgres import PostgresCatalogue, PostgresJournal, migrate
from esplanade.storage.postgres_migrate import migrations
from spatial.offers import Inside, Offer
from tests.actors.parkside import document, keys, u2, u4
from tests.services_fixtures import database_url, open_folder

pytestmark = pytest.mark.services

KEY, SALT = bytes(range(32)), b"s" * 16
LEDGER = Address("ledger", "demo", "0")
MALL = Address("mall", "demo", "parkside")


@asynccontextmanager
async def working(url: str, start: int) -> AsyncIterator[tuple[Shard, LocalSystem]]:
    """A shard that owns every partition."""
    journal, catalogue = await PostgresJournal.open(url), await PostgresCatalogue.open(url)
    shard = Shard(
        name="shard-0", owner=owner_name("shard-0", str(start)), partitions=range(PARTITIONS), journal=journal, catalogue=catalogue,
        broker=MemoryBroker(MemoryHub(RealClock())), clock=RealClock(), secret=b"s" * 32,
    )  # fmt: skip
    await shard.start()
    try:
        yield shard, LocalSystem([shard])
    finally:
        await shard.stop()
        await journal.close()
        await catalogue.close()


def payment(number: int) -> Payments:
    return Payments(tick=number, venue="parkside", key=keys(number), subject=u4(8), unit=u2(0), amount=u4(3), currency="EUR")


def offer(number: int) -> CreateOffer:
    return CreateOffer(
        offer=Offer(
            id=f"offer-{number}", unit_id="shop-00", title="Ten off", audience=Inside(), starts_tick=0, ends_tick=100, cooldown_ticks=1, cap=1
        )
    )


async def heads_of(journal: PostgresJournal) -> dict[tuple[str, int], int]:
    return {(tenant, partition): head for partition in range(PARTITIONS) for tenant, head in (await journal.heads(partition)).items()}


async def state_of(log: tuple[str, int], journal: Journal, catalogue: PostgresCatalogue) -> tuple[bytes, PartitionLog]:
    """The bytes of everything that replaying the log gives."""
    replayed = PartitionLog(*log, 1, secret=b"s" * 32, settings=HostSettings(), snapshot_segments=10**9)
    await replayed.replay(journal, VenueShelf(catalogue), 0.0)
    return replayed.save(), replayed


def upto(log: tuple[str, int], segments: list[Segment]) -> MemoryJournal:
    store = MemoryStore(RealClock())
    store.logs[log] = segments
    return MemoryJournal(store)


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = open_folder()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


async def test_restore_drill(folder: Path) -> None:
    """Backed up while it is being written, destroyed, restored, replayed: the state is that of the instant of the backup, the books sum to zero, and work goes on."""
    server = start_postgres(folder / "lost")
    lost: dict[tuple[str, int], list[Segment]] = {}
    try:
        migrate(server.url)
        catalogue = await PostgresCatalogue.open(server.url)
        await catalogue.add_tenant("demo", "Demo")
        await catalogue.put_venue("demo", document())
        await catalogue.secret("signing", b"k" * 32)
        async with working(server.url, 1) as (shard, system):
            await system.ask(LEDGER, TopUps(tick=0, key=keys(2**40), subject=u4(8), amount=u4(10**9), currency="EUR"))
            stopping = asyncio.Event()
            paid = 0

            async def pay() -> None:
                nonlocal paid
                while not stopping.is_set():
                    await asyncio.gather(*(system.ask(LEDGER, payment(paid + 1 + n)) for n in range(8)), system.ask(MALL, offer(paid)))
                    paid += 8

            paying = asyncio.ensure_future(pay())
            while paid < 2_400:  # enough for snapshots
                await asyncio.sleep(0.01)
            before = paid
            manifest = await asyncio.to_thread(write_backup, server.url, folder / "backup", key=KEY, salt=SALT, esplanade="test")
            while paid < before + 80:
                await asyncio.sleep(0.01)
            stopping.set()
            await paying
            epochs = {lease.partition: lease.epoch for lease in await shard._journal.leases()}
        journal = await PostgresJournal.open(server.url)
        for log in await heads_of(journal):
            lost[log] = [segment async for segment in journal.read(*log)]
        await journal.close()
        await catalogue.close()
    finally:
        for pid in server.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        server.stop()
    shutil.rmtree(folder / "lost")

    assert {table.table for table in manifest.tables} >= {"segment", "snapshot", "secret", "venue", "partition_lease"}
    server = start_postgres(folder / "restored")
    try:
        restored = restore_backup(server.url, folder / "backup", key=KEY)
        journal, catalogue = await PostgresJournal.open(server.url), await PostgresCatalogue.open(server.url)
        heads = await heads_of(journal)
        ledger_log = ("demo", partition_of(LEDGER))
        assert set(heads) == {ledger_log, ("demo", partition_of(MALL))}
        assert 1 < heads[ledger_log] < len(lost[ledger_log]), "the backup was taken in the middle"
        assert restored.checked.snapshots >= 1
        assert restored.checked.segments == sum(heads.values())
        assert await catalogue.secret("signing", b"another" * 5) == b"k" * 32
        for log, head in heads.items():
            state, replayed = await state_of(log, journal, catalogue)
            assert state == (await state_of(log, upto(log, lost[log][:head]), catalogue))[0]
            for ledger in replayed.ledgers:
                assert sums_of(ledger.state)["total"] == {"EUR": 0}

        # A former owner that still runs appends nothing, whatever epoch it has.
        for epoch in (epochs[ledger_log[1]], epochs[ledger_log[1]] + 1):
            with pytest.raises(Fenced):
                await journal.flush([Append(*ledger_log, epoch, heads[ledger_log] + 1, [Event(str(LEDGER), 10**6, "tested.v1", b"")])])
        assert all(lease.epoch == restored.epoch > max(epochs.values()) and lease.expires_unix_ms == 0 for lease in await journal.leases())
        await journal.close()
        await catalogue.close()
        async with working(server.url, 2) as (_, system):  # and work goes on
            assert await system.ask(LEDGER, payment(10**9)) == await system.ask(LEDGER, payment(10**9))
    finally:
        server.stop()


@pytest.fixture
def empty_url(postgres_server_url: str) -> Iterator[str]:
    with psycopg.connect(postgres_server_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE restored")
        yield database_url(postgres_server_url, "restored")
        connection.execute("DROP DATABASE restored WITH (FORCE)")


async def backed_up(url: str, path: Path, key: bytes | None = None) -> None:
    """A backup of a small database with a row in most tables."""
    journal, catalogue = await PostgresJournal.open(url), await PostgresCatalogue.open(url)
    await catalogue.add_tenant("demo", "Demo")
    await catalogue.next_subject("demo")
    await journal.acquire([7], "a", ttl_ms=60_000)
    for position in (1, 2, 3):
        await journal.flush([Append("demo", 7, 1, position, (Event("mall/demo/parkside", position, "tested.v1", b"body"),))])
    await journal.put_snapshot(Snapshot("demo", 7, 2, b"state"))
    await journal.close()
    await catalogue.close()
    write_backup(url, path, key=key, salt=SALT, esplanade="test")


def rows_of(url: str) -> dict[str, int]:
    """Rows by table, of tables with any; nothing where there is no schema."""
    with psycopg.connect(url) as connection:
        tables = [str(row[0]) for row in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'esplanade'").fetchall()]
        counted = {
            table: connection.execute(f"SELECT count(*) FROM esplanade.{table}".encode()).fetchone() for table in tables if table != "migration"
        }
    return {table: int(row[0]) for table, row in counted.items() if row is not None and row[0]}


async def test_every_table_goes_along_and_comes_back(postgres_url: str, empty_url: str, tmp_path: Path) -> None:
    await backed_up(postgres_url, tmp_path / "b")
    before = rows_of(postgres_url)
    with psycopg.connect(postgres_url) as connection:
        tables = {str(row[0]) for row in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'esplanade'").fetchall()}
        sequences = connection.execute("SELECT sequencename FROM pg_sequences WHERE schemaname = 'esplanade'").fetchall()
    assert {table.table for table in check_backup(tmp_path / "b", key=None).tables} == tables - LEFT_OUT
    assert sequences == [], "a backup carries rows, not sequences"
    restore_backup(empty_url, tmp_path / "b", key=None)
    assert rows_of(empty_url) == before | {"partition_lease": PARTITIONS}
    with pytest.raises(Conflict, match="is in use"):
        restore_backup(empty_url, tmp_path / "b", key=None)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("UPDATE segment SET body = set_byte(body, 5, 255 - get_byte(body, 5)) WHERE position = 2", "checksum"),
        ("DELETE FROM segment WHERE position = 2", "segments are missing"),
        ("UPDATE segment SET last_versions = '{3}' WHERE position = 2", "index"),
        ("UPDATE snapshot SET body = 'other'", "snapshot"),
        ("UPDATE segment SET epoch = 0 WHERE position = 3", "former owner"),
    ],
)
async def test_what_was_damaged_before_the_backup_is_found_and_nothing_is_restored(
    postgres_url: str, empty_url: str, tmp_path: Path, damage: str, says: str
) -> None:
    await backed_up(postgres_url, tmp_path / "first")
    with psycopg.connect(postgres_url, options="-c search_path=esplanade") as connection:
        connection.execute(damage.encode())
    write_backup(postgres_url, tmp_path / "b", key=None, salt=SALT, esplanade="test")
    with pytest.raises(Fault, match=says):
        restore_backup(empty_url, tmp_path / "b", key=None)
    assert rows_of(empty_url) == {}


async def test_a_file_that_is_not_whole_restores_nothing(postgres_url: str, empty_url: str, tmp_path: Path) -> None:
    await backed_up(postgres_url, tmp_path / "b", KEY)
    whole = (tmp_path / "b").read_bytes()
    (tmp_path / "b").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidInput, match="cut short"):
        restore_backup(empty_url, tmp_path / "b", key=KEY)
    (tmp_path / "b").write_bytes(whole)
    with pytest.raises(InvalidInput, match="another key"):
        restore_backup(empty_url, tmp_path / "b", key=b"x" * 32)
    assert rows_of(empty_url) == {}
    restore_backup(empty_url, tmp_path / "b", key=KEY)


async def test_a_backup_of_an_older_schema_is_restored_and_brought_forward(empty_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = migrations()[:1]
    migrate(empty_url, first)
    with psycopg.connect(empty_url) as connection:
        connection.execute("INSERT INTO esplanade.tenant VALUES ('demo', 'Demo', 1)")
    write_backup(empty_url, tmp_path / "b", key=None, salt=SALT, esplanade="test")
    with psycopg.connect(empty_url) as connection:
        connection.execute("DELETE FROM esplanade.tenant")
    restore_backup(empty_url, tmp_path / "b", key=None)
    assert rows_of(empty_url) == {"tenant": 1, "partition_lease": PARTITIONS}
    assert migrate(empty_url) == []
    monkeypatch.setattr("esplanade.storage.backup.migrations", lambda: [])
    with pytest.raises(Conflict, match="upgrade Esplanade"):
        restore_backup(empty_url, tmp_path / "b", key=None)


def test_a_database_that_is_not_ours_is_not_backed_up(empty_url: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no Esplanade schema"):
        write_backup(empty_url, tmp_path / "b", key=None, salt=SALT, esplanade="test")
    assert list(tmp_path.iterdir()) == []
