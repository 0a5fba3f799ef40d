"""What only the memory drivers offer: flushes that are held, that fail before the commit, and that fail after it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from esplanade.core.clock import ManualClock
from esplanade.core.errors import Fault, Fenced, NotFound, Unavailable
from esplanade.storage.journal import Append, Event, Lease, OutboxEntry, StoredReply
from esplanade.storage.memory import MemoryBroker, MemoryHub, MemoryJournal, MemoryStore


def append(position: int, epoch: int = 1) -> Append:
    return Append("demo", 7, epoch, position, (Event("mall/demo/parkside", position, "tested.v1", b"body"),))


async def owned(store: MemoryStore) -> MemoryJournal:
    journal = MemoryJournal(store)
    await journal.acquire([7], "a", ttl_ms=1_000)
    return journal


async def test_a_flush_that_fails_before_the_commit_did_not_happen() -> None:
    journal = await owned(MemoryStore(ManualClock()))
    journal.fail_next_flush("before_commit")
    with pytest.raises(Unavailable):
        await journal.flush([append(1)], [OutboxEntry("demo", "t", b"x")])
    assert await journal.heads(7) == {}
    assert journal.flushes == 0
    await journal.flush([append(1)])
    assert journal.flushes == 1


async def test_a_flush_that_fails_after_the_commit_did_happen() -> None:
    journal = await owned(MemoryStore(ManualClock()))
    journal.fail_next_flush("after_commit", Fault("as the test asked"))
    with pytest.raises(Fault, match="as the test asked"):
        await journal.flush([append(1)], [OutboxEntry("demo", "t", b"x")])
    assert await journal.heads(7) == {"demo": 1}
    assert await journal.place("demo", "t") == (1, 1)
    with pytest.raises(Fenced, match="ends at position 1"):
        await journal.flush([append(1)])


async def test_failures_come_in_the_order_asked_for_and_only_once_each() -> None:
    journal = await owned(MemoryStore(ManualClock()))
    journal.fail_next_flush("before_commit")
    journal.fail_next_flush("after_commit")
    outcomes = []
    for _ in range(3):
        position = (await journal.heads(7)).get("demo", 0) + 1
        try:
            await journal.flush([append(position)])
            outcomes.append((position, "acked"))
        except Unavailable:
            outcomes.append((position, "unknown"))
    assert outcomes == [(1, "unknown"), (1, "unknown"), (2, "acked")]


async def test_a_takeover_while_a_flush_is_held_before_its_commit_fences_it() -> None:
    store = MemoryStore(ManualClock())
    journal, other = await owned(store), MemoryJournal(store)
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def hold(appends: Sequence[Append]) -> None:
        assert [held.position for held in appends] == [1]
        reached.set()
        await go_on.wait()

    journal.before_commit = hold
    flush = asyncio.create_task(journal.flush([append(1)]))
    await reached.wait()
    await other.acquire([7], "b", ttl_ms=1_000)
    go_on.set()
    with pytest.raises(Fenced):
        await flush
    assert await other.heads(7) == {}


async def test_a_flush_held_after_its_commit_is_durable_before_it_is_acknowledged() -> None:
    journal = await owned(MemoryStore(ManualClock()))
    seen = []

    async def look(appends: Sequence[Append]) -> None:
        seen.append(await journal.heads(7))

    journal.after_commit = look
    await journal.flush([append(1)])
    assert seen == [{"demo": 1}]


async def test_time_is_the_clocks() -> None:
    clock = ManualClock(unix_ms=1_000_000)
    journal = await owned(MemoryStore(clock))
    await journal.flush([append(1)], [OutboxEntry("demo", "t", b"x")], [StoredReply("demo", b"k" * 16, b"d", b"r", 1_005_000)])
    assert await journal.leases() == [Lease(7, "a", 1, 1_001_000)]
    assert [segment.written_unix_ms async for segment in journal.read("demo", 7)] == [1_000_000]
    assert await journal.trim_outbox(older_than_ms=1) == 0
    clock.advance(5)
    assert await journal.reply_of("demo", b"k" * 16) is None
    assert await journal.trim_outbox(older_than_ms=5_000) == 1


async def test_a_topic_whose_history_was_lost_is_in_its_next_epoch() -> None:
    store = MemoryStore(ManualClock())
    journal = await owned(store)
    await journal.flush([append(1)], [OutboxEntry("demo", "t", b"x")])
    store.forget_topic("demo", "t")
    assert await journal.place("demo", "t") == (2, 0)
    with pytest.raises(NotFound):
        await journal.published("demo", "t", epoch=1, after=0)
    assert [(entry.epoch, entry.offset) for entry in await journal.flush([append(2)], [OutboxEntry("demo", "t", b"y")])] == [(2, 1)]


async def test_a_broker_that_lost_its_connections_tells_every_reader() -> None:
    hub = MemoryHub(ManualClock())
    broker = MemoryBroker(hub)
    subscription = await broker.subscribe()
    await subscription.add(["a"])
    await broker.publish([("a", b"unread")])
    hub.lose_connections()
    with pytest.raises(Unavailable, match="subscribe anew"):
        await anext(aiter(subscription))
    again = await broker.subscribe()
    await again.add(["a"])
    await broker.publish([("a", b"x")])
    assert await anext(aiter(again)) == ("a", b"x")


async def test_a_broker_that_is_away_says_so() -> None:
    broker = MemoryBroker(MemoryHub(ManualClock()))
    await broker.close()
    with pytest.raises(Unavailable):
        await broker.publish([("a", b"x")])
    with pytest.raises(Unavailable):
        await broker.subscribe()
