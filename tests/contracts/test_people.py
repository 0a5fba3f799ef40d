"""What every store of when people were last heard of promises."""

from __future__ import annotations

from esplanade.storage.people import People, Person


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
