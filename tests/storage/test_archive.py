"""Old segments in files: read, checked and replayed across both, and never moved where nothing covers them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from actors import ledger_codes as c
from actors.ledger_state import sums_of
from actors.ledger_statement import statement
from actors.messages import TopUps
from esplanade.core.errors import Conflict, EsplanadeError, Fault, InvalidInput, NotFound
from esplanade.core.ids import partition_of
from esplanade.storage.archive import WithArchive, archived_ranges, lock_archiving
from esplanade.storage.backup import restore_backup, write_backup
from esplanade.storage.journal import Append, Event, Segment, SegmentReader
from esplanade.storage.journal_check import check_journal
from esplanade.storage.postgres import PostgresCatalogue, PostgresJournal
from esplanade.storage.segment_codec import checksum
from tests.actors.parkside import document, keys, u4
from tests.esplanade.test_backup_commands import esplanade
from tests.storage.test_backup import LEDGER, SALT, empty_url, payment, state_of, working

__all__ = ["empty_url"]

pytestmark = pytest.mark.services

LOG = ("demo", partition_of(LEDGER))
WALLET = c.WALLET << 60 | 8
PAID, SINCE = 30, 5


class Lived:
    """A database with a ledger's log: PAID payments, a snapshot, SINCE more. The first 20 segments are a hundred days old."""

    def __init__(self, url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.url = url
        self.folder = folder / "archive"
        monkeypatch.setenv("ESPLANADE_POSTGRES_URL", url)

    async def live(self) -> None:
        self.journal, self.catalogue = await PostgresJournal.open(self.url), await PostgresCatalogue.open(self.url)
        await self.catalogue.add_tenant("demo", "Demo")
        await self.catalogue.put_venue("demo", document())
        async with working(self.url, 1) as (shard, system):
            await system.ask(LEDGER, TopUps(tick=0, key=keys(2**40), subject=u4(8), amount=u4(1_000), currency="EUR"))
            for number in range(1, PAID):
                await system.ask(LEDGER, payment(number))
            await shard.release([LOG[1]])
            await shard.take([LOG[1]])
            for number in range(SINCE):
                await system.ask(LEDGER, payment(1_000 + number))
        self.sql("UPDATE segment SET written_ms = written_ms - 100 * 86400000::bigint WHERE position <= 20")

    async def close(self) -> None:
        await self.journal.close()
        await self.catalogue.close()

    def sql(self, statement: str, *parameters: object) -> list[tuple[object, ...]]:
        with psycopg.connect(self.url, options="-c search_path=esplanade") as connection:
            cursor = connection.execute(statement.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

    async def archive(self, *options: str | Path, older_than: str = "90d") -> str:
        return await asyncio.to_thread(esplanade, "journal", "archive", "--older-than", older_than, "--to", self.folder, *options)

    async def verify(self, *arguments: str | Path) -> str:
        return await asyncio.to_thread(esplanade, "journal", "verify", *arguments)

    def across(self) -> WithArchive:
        with psycopg.connect(self.url) as connection:
            return WithArchive(self.journal, self.folder, archived_ranges(connection))

    def positions(self) -> list[object]:
        return [row[0] for row in self.sql("SELECT position FROM segment WHERE partition = %s ORDER BY 1", LOG[1])]


@pytest.fixture
async def lived(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Lived]:
    made = Lived(postgres_url, tmp_path, monkeypatch)
    await made.live()
    yield made
    await made.close()


async def read(reader: SegmentReader, after: int = 0) -> list[Segment]:
    return [segment async for segment in reader.read(*LOG, after=after)]


async def test_what_was_archived_is_read_checked_and_replayed_as_before(lived: Lived) -> None:
    segments, told = await read(lived.journal), await statement(lived.journal, LEDGER, WALLET, "EUR")
    state, _ = await state_of(LOG, lived.journal, lived.catalogue)
    assert "20 segments archived" in await lived.archive()
    assert lived.positions() == list(range(21, PAID + SINCE + 1))
    assert [file.name for file in lived.folder.iterdir()] == [f"demo.{LOG[1]}.1-20.esa"]

    with pytest.raises(NotFound, match="positions 1 to 20 are archived"):
        await read(lived.journal)
    with pytest.raises(NotFound, match="are archived"):
        await statement(lived.journal, LEDGER, WALLET, "EUR")
    assert await read(lived.journal, after=20) == segments[20:]
    for after in (0, 7, 20, 25):
        assert await read(lived.across(), after) == segments[after:]
    assert await statement(lived.across(), LEDGER, WALLET, "EUR") == told

    replayed, log = await state_of(LOG, lived.journal, lived.catalogue)
    assert replayed == state
    assert sums_of(log.ledgers[0].state)["total"] == {"EUR": 0}
    async with working(lived.url, 2) as (_, system):
        await system.ask(LEDGER, payment(2_000))
    assert (await lived.journal.heads(LOG[1]))["demo"] == PAID + SINCE + 1

    assert f"{PAID + SINCE + 1 - 20} segments and 20 archived ones" in await lived.verify("--archive", lived.folder)
    assert "20 archived segments were not read" in await lived.verify()
    assert "10 segments archived" in await lived.archive(older_than="0s"), "up to the snapshot and no further"
    assert "0 segments archived" in await lived.archive(older_than="0s")
    assert await read(lived.across()) == [*segments, *(await read(lived.journal, after=PAID + SINCE))]
    assert "whole" in await lived.verify("--archive", lived.folder)


async def test_the_newest_segment_stays_even_where_a_snapshot_covers_it(lived: Lived) -> None:
    async with working(lived.url, 2) as (shard, system):
        for number in range(20):
            await system.ask(LEDGER, payment(3_000 + number))
        await shard.release([LOG[1]])
    head = PAID + SINCE + 20
    assert lived.sql("SELECT position FROM snapshot WHERE partition = %s", LOG[1]) == [(head,)]
    await lived.archive(older_than="0s")
    assert lived.positions() == [head]
    async with working(lived.url, 3) as (_, system):
        await system.ask(LEDGER, payment(4_000))
    assert lived.positions() == [head, head + 1]


async def test_a_log_without_a_snapshot_or_too_young_stays(lived: Lived) -> None:
    await lived.journal.acquire([3], "x", ttl_ms=60_000)
    lease = next(lease for lease in await lived.journal.leases() if lease.partition == 3)
    for position in (1, 2):
        await lived.journal.flush([Append("demo", 3, lease.epoch, position, (Event("e/demo/x", position, "tested.v1", b"\xc0"),))])
    assert "0 segments archived" in await lived.archive(older_than="200d")
    await lived.archive(older_than="0s")
    assert lived.sql("SELECT count(*) FROM segment WHERE partition = 3") == [(2,)]
    assert lived.sql("SELECT DISTINCT partition FROM archive") == [(LOG[1],)]


async def test_a_snapshot_that_is_not_what_the_log_says_covers_nothing(lived: Lived) -> None:
    """It says that it holds everything up to the head, and holds less: its checksum is right, its state is not."""
    [(body,)] = lived.sql("SELECT body FROM snapshot WHERE partition = %s", LOG[1])
    assert isinstance(body, bytes)
    head = PAID + SINCE
    lived.sql("UPDATE snapshot SET position = %s, crc = %s WHERE partition = %s", head, checksum(*LOG, head, body), LOG[1])
    with pytest.raises(SystemExit) as ended:
        await lived.archive()
    assert ended.value.code == 1
    assert lived.positions() == list(range(1, head + 1))
    assert list(lived.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "error", "says"),
    [
        ("a byte", InvalidInput, "not as it was written"),
        ("cut short", InvalidInput, "cut short"),
        ("gone", NotFound, "no such file"),
        ("another file", InvalidInput, "not the archive that the database has recorded"),
        ("the record", Fault, "segments are missing"),
        ("half the record", Fault, "a range of it is missing"),
    ],
)
async def test_verify_finds_what_is_wrong_with_an_archive(lived: Lived, damage: str, error: type[EsplanadeError], says: str) -> None:
    await lived.archive()
    await lived.archive(older_than="0s")
    file, second = (lived.folder / f"demo.{LOG[1]}.{place}.esa" for place in ("1-20", "21-30"))
    whole = file.read_bytes()
    match damage:
        case "a byte":
            file.write_bytes(whole[:200] + bytes((whole[200] ^ 1,)) + whole[201:])
        case "cut short":
            file.write_bytes(whole[:-40])
        case "gone":
            file.unlink()
        case "another file":
            file.write_bytes(second.read_bytes())
        case "the record":
            lived.sql("DELETE FROM archive")
        case _:
            lived.sql("DELETE FROM archive WHERE first = 1")
    with pytest.raises(error, match=says):
        await lived.verify("--archive", lived.folder)


async def test_an_interrupted_archiving_leaves_the_journal_whole_and_says_what_is_left(lived: Lived) -> None:
    lived.folder.mkdir()
    left = lived.folder / f"demo.{LOG[1]}.1-20.esa"
    left.write_bytes(b"of an earlier attempt")
    with pytest.raises(Conflict, match="exists already"):
        await lived.archive()
    assert len(lived.positions()) == PAID + SINCE
    left.unlink()
    with psycopg.connect(lived.url, autocommit=True) as other:
        lock_archiving(other)
        with pytest.raises(Conflict, match="another"):
            await lived.archive()
    assert "20 segments archived" in await lived.archive()


async def test_encrypted_archives_are_read_with_their_key_beside_plain_ones(lived: Lived, tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_bytes(b"k" * 32)
    lived.sql("UPDATE segment SET written_ms = written_ms - 100 * 86400000::bigint WHERE position <= 5")
    segments = await read(lived.journal)
    await lived.archive(older_than="150d")
    assert "positions 6 to 20" in await lived.archive("--encrypt", key_file)
    sealed = (lived.folder / f"demo.{LOG[1]}.6-20.esa").read_bytes()
    assert b"AES-256-GCM" in sealed[:200]

    with psycopg.connect(lived.url) as connection:
        ranges = archived_ranges(connection)
    assert await read(WithArchive(lived.journal, lived.folder, ranges, b"k" * 32)) == segments
    with pytest.raises(InvalidInput, match="is encrypted; name its key file"):
        await read(lived.across())
    assert "20 archived" in await lived.verify("--archive", lived.folder, "--archive-key", key_file)
    with psycopg.connect(lived.url) as connection, pytest.raises(InvalidInput, match="another key"):
        check_journal(connection, lived.folder, b"o" * 32)


async def test_a_backup_of_an_archived_journal_is_restored_and_goes_on_with_the_same_files(lived: Lived, empty_url: str, tmp_path: Path) -> None:
    segments = await read(lived.journal)
    await lived.archive()
    write_backup(lived.url, tmp_path / "b", key=None, salt=SALT, esplanade="test")
    assert restore_backup(empty_url, tmp_path / "b", key=None).checked.unread == 20
    with psycopg.connect(empty_url) as connection:
        assert check_journal(connection, lived.folder).archived == 20
        ranges = archived_ranges(connection)
    journal = await PostgresJournal.open(empty_url)
    assert await read(WithArchive(journal, lived.folder, ranges)) == segments
    await journal.close()
