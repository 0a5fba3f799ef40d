"""`esplanade subject export`, `subject erase` and `audit` on a data directory, after a real shard has written to it."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import psycopg
import pytest

from actors.directory import owner_name
from actors.local_system import LocalSystem
from actors.messages import ScanQr
from actors.shard import Shard
from actors.system import Key
from esplanade.core.clock import RealClock
from esplanade.core.errors import InvalidInput
from esplanade.core.ids import PARTITIONS, Address
from esplanade.identities import open_keyring
from esplanade.storage.embedded import start_postgres
from esplanade.storage.memory import MemoryBroker, MemoryHub
from esplanade.storage.people import Person
from esplanade.storage.postgres import PostgresCatalogue, PostgresJournal, migrate
from esplanade.storage.postgres_keys import PostgresSubjectKeys
from esplanade.storage.postgres_people import PostgresPeople
from tests.actors.parkside import document
from tests.esplanade.test_backup_commands import esplanade, folder

__all__ = ["folder"]


async def walk_in(url: str) -> None:
    journal, catalogue, keys = await PostgresJournal.open(url), await PostgresCatalogue.open(url), await PostgresSubjectKeys.open(url)
    await catalogue.add_tenant("demo", "Demo")
    await catalogue.put_venue("demo", document())
    shard = Shard(
        name="shard-0", owner=owner_name("shard-0", "1"), partitions=range(PARTITIONS), journal=journal, catalogue=catalogue,
        broker=MemoryBroker(MemoryHub(RealClock())), clock=RealClock(), secret=os.urandom(32), keyring=await open_keyring(keys, catalogue, None),
    )  # fmt: skip
    await shard.start()
    await LocalSystem([shard]).ask(Address("session", "demo", "8"), ScanQr(venue="parkside", location="north_entrance"), key=Key("8:phone", 1))
    await shard.stop()
    people = await PostgresPeople.open(url)
    await people.hear([Person("demo", 9, RealClock().unix_ms())])
    await people.close()
    for store in (keys, catalogue, journal):
        await store.close()


@pytest.mark.services
def test_what_is_held_about_a_person_is_told_and_erased_and_both_are_in_the_audit_trail(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ESPLANADE_POSTGRES_URL", raising=False)
    server = start_postgres(folder)
    try:
        migrate(server.url)
        asyncio.run(walk_in(server.url))
    finally:
        server.stop()

    where = ("--tenant", "demo", "--data-dir", folder)
    told = json.loads(esplanade("subject", "export", "8", *where))
    assert [event["what"] for event in told["sessions"]] == ["scan_qr.v1", "answered.v1"]
    assert (told["sessions"][0]["location"], told["erased"]) == ("north_entrance", False)
    with pytest.raises(InvalidInput, match="--yes"):
        esplanade("subject", "erase", "8", *where)
    assert "erased: subject 8" in esplanade("subject", "erase", "8", "--yes", *where)
    after = esplanade("subject", "export", "8", *where)
    assert "north_entrance" not in after
    assert json.loads(after)["erased"]

    monkeypatch.setenv("ESPLANADE_TENANTS", '{"demo": {"consent": "asked", "retention_days": 30}}')
    monkeypatch.setattr("esplanade.core.clock.RealClock.unix_ms", lambda self: 4_000_000_000_000)
    due = esplanade("subject", "due", *where)
    assert "subject 9, last heard of" in due
    assert "1 people and 0 recordings are older than 30 days" in due

    lines = [json.loads(line) for line in esplanade("audit", "--json", *where).splitlines()]
    assert [(line["what"], line["target"], line["outcome"]) for line in lines] == [
        ("subject.export", "8", "done"), ("subject.erase", "8", "done"), ("subject.export", "8", "done"),
    ]  # fmt: skip
    assert "subject.erase" in esplanade("audit", "--since", "1h", *where)
    assert "0 lines" in esplanade("audit", "--since", "2200-01-01T00:00", *where)
    with pytest.raises(InvalidInput, match="90d"):
        esplanade("audit", "--since", "yesterday", *where)

    server = start_postgres(folder)
    try:
        with psycopg.connect(server.url) as connection:
            assert connection.execute("SELECT wrapped, erased_ms IS NOT NULL FROM esplanade.subject_key").fetchall() == [(None, True)]
            dead = connection.execute("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'subject_key'").fetchone()
            assert dead == (0,), "the row's former version, with the key, is gone"
    finally:
        server.stop()
