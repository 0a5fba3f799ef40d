"""What the database no longer has to keep is dropped; what it has to keep is not."""

from __future__ import annotations

import asyncio

import pytest

from esplanade.core.clock import ManualClock
from esplanade.core.errors import NotFound, Unavailable
from esplanade.housekeeping import Housekeeper
from esplanade.storage.journal import Append, Event, OutboxEntry, StoredReply
from esplanade.storage.memory import MemoryJournal, MemoryStore

START_MS = 1_000_000


async def filled(clock: ManualClock, kind: type[MemoryJournal] = MemoryJournal) -> MemoryJournal:
    """Two entries of a topic, an hour apart, and a key whose window is over with the first."""
    journal = kind(MemoryStore(clock))
    await journal.acquire([7], "a", ttl_ms=3_600_000)
    for position in (1, 2):
        event = Event("mall/demo/parkside", position, "tested.v1", b"body")
        keys = [StoredReply("demo", bytes([position]) * 16, b"d", b"r", clock.unix_ms() + 1_800_000)]
        await journal.flush([Append("demo", 7, 1, position, (event,))], [OutboxEntry("demo", "t", b"x")], keys)
        clock.advance(3600 if position == 1 else 0)
    return journal


async def test_a_pass_drops_what_is_past_its_keeping_and_nothing_else() -> None:
    journal = await filled(ManualClock(unix_ms=START_MS))
    keeper = Housekeeper(journal, outbox_keep_s=600)
    await keeper.one_pass()
    assert (keeper.dropped_entries, keeper.dropped_keys) == (1, 1)
    assert [entry.offset for entry in await journal.published("demo", "t", epoch=1, after=1)] == [2]
    with pytest.raises(NotFound):
        await journal.published("demo", "t", epoch=1, after=0)
    assert await journal.reply_of("demo", bytes([2]) * 16) is not None
    assert await journal.heads(7) == {"demo": 2}, "the journal itself is kept for ever"


async def test_nothing_is_dropped_within_the_keeping() -> None:
    journal = await filled(ManualClock(unix_ms=START_MS))
    keeper = Housekeeper(journal, outbox_keep_s=86_400)
    await keeper.one_pass()
    assert keeper.dropped_entries == 0
    assert [entry.offset for entry in await journal.published("demo", "t", epoch=1, after=0)] == [1, 2]


class AwayOnce(MemoryJournal):
    away = True

    async def trim_outbox(self, *, older_than_ms: int) -> int:
        if self.away:
            self.away = False
            raise Unavailable("as the test asked")
        return await super().trim_outbox(older_than_ms=older_than_ms)


async def test_a_pass_that_fails_is_made_again(caplog: pytest.LogCaptureFixture) -> None:
    keeper = Housekeeper(await filled(ManualClock(unix_ms=START_MS), AwayOnce), outbox_keep_s=600, every_s=0)
    keeper.start()
    while keeper.dropped_keys == 0:
        await asyncio.sleep(0)
    await keeper.stop()
    await keeper.stop()
    assert (keeper.failures, keeper.dropped_entries) == (1, 1)
    assert [record.message for record in caplog.records] == ["housekeeping_failed"]
