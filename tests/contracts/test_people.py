"""What every store of when people were last heard of promises."""

from __future__ import annotations

import psycopg
import pytest

from esplanade.storage.people import People, Person
from esplanade.storage.postgres_migrate import migrate, migrations
from esplanade.storage.postgres_people import PostgresPeople
from tests.services_fixtures import database_url


async def test_the_newest_word_counts_whatever_order_it_comes_in(people: People) -> None:
    await people.hear([Person("demo", 8, 500), Person("demo", 9, 100), Person("demo", 8, 300)])
    await people.hear([Person("demo", 8, 400), Person("other", 8, 50)])
    assert await people.silent("demo", before_ms=10_000, limit=10) == [Person("demo", 9, 100), Person("demo", 8, 500)]
    assert await people.silent("demo", before_ms=500, limit=10) == [Person("demo", 9, 100)]
    assert await people.silent("demo", before_ms=10_000, limit=1) == [Person("demo", 9, 100)]
    await people.hear([])


async def test_who_was_heard_of_since_is_not_forgotten(people: People) -> None:
    await people.hear([Person("demo", 8, 100), Person("other", 8, 100)])
    [found] = await people.silent("demo", before_ms=200, limit=10)
    await people.hear([Person("demo", 8, 150)])
    assert not await people.forget(found)
    [found] = await people.silent("demo", before_ms=200, limit=10)
    assert await people.forget(found)
    assert not await people.forget(found)
    assert await people.silent("demo", before_ms=200, limit=10) == []
    assert await people.silent("other", before_ms=200, limit=10) == [Person("other", 8, 100)]


async def test_of_a_tenant_that_is_not_there_nobody_is_kept(people: People) -> None:
    await people.hear([Person("gone", 8, 100), Person("demo", 2**32 - 1, 100)])
    assert await people.silent("gone", before_ms=200, limit=10) == []
    assert await people.silent("demo", before_ms=200, limit=10) == [Person("demo", 2**32 - 1, 100)]


@pytest.mark.services
async def test_who_was_known_before_this_was_kept_is_counted_from_the_upgrade(postgres_server_url: str) -> None:
    with psycopg.connect(postgres_server_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE upgraded")
    url, known = database_url(postgres_server_url, "upgraded"), migrations()
    migrate(url, known[: next(i for i, one in enumerate(known) if one.name.endswith("_people.sql"))])
    with psycopg.connect(url, autocommit=True, options="-c search_path=esplanade") as connection:
        connection.execute("INSERT INTO tenant (tenant, name, created_ms) VALUES ('demo', 'Demo', 1)")
        connection.execute(
            "INSERT INTO subject_key (tenant, subject, wrapped, made_ms, erased_ms) VALUES ('demo', '8', 'k', 1, NULL), ('demo', '9', NULL, 1, 2), "
            "('demo', 'warm-up', 'k', 1, NULL), ('gone', '8', 'k', 1, NULL)"
        )
        connection.execute(
            "INSERT INTO account (tenant, issuer, name_digest, subject, made_ms) VALUES ('demo', 'sms', 'd', 8, 1), ('demo', 'sms', 'e', 7, 1)"
        )
        [(before_ms,)] = connection.execute("SELECT now_ms()").fetchall()
    migrate(url)
    people = await PostgresPeople.open(url)
    try:
        found = await people.silent("demo", before_ms=2**53, limit=10)
        assert sorted(one.subject for one in found) == [7, 8], "not who is erased already, nor what is nobody's number"
        assert all(one.heard_ms >= before_ms for one in found)
    finally:
        await people.close()
