"""The whole system in one process, under a seeded scheduler that fails flushes before and after their commit and kills shards.

A source follows Rewind; shoppers retry with their keys. What the journal holds in the end is what it holds without any failure.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import pytest

from actors.facts import Fact, facts_of, late_of
from actors.messages import LEDGERS, Books, CreateOffer, Done, GetBooks, Payments, Settled, TopUps
from actors.positions import HostSettings
from actors.shard import ShardSettings
from actors.topics import Rewind
from esplanade.core.errors import LimitExceeded, Unavailable
from esplanade.core.ids import Address
from spatial.offers import Inside, Offer, Within
from tests.actors.parkside import keys, u2, u4
from tests.actors.stage import Heard, Stage, stage
from tests.actors.test_positions_oracle import crowd

T = TypeVar("T")
TICKS = 160
PEOPLE = 15
SETTINGS = ShardSettings(snapshot_segments=20, host=HostSettings(deadline_s=1e9, silence_s=1e9, dwell_ticks=7))
OFFERS = (
    Offer(id="near", unit_id="shop-00", title="near", audience=Within(radius_m=6.0), cap=3, cooldown_ticks=9),
    Offer(id="flash", unit_id="shop-02", title="flash", audience=Inside(), starts_tick=60, ends_tick=90, flash=True),
)


class World:
    def __init__(self, at: Stage, chance: random.Random | None) -> None:
        self.at = at
        self.chance = chance
        self.crashes = 0

    async def trouble(self) -> None:
        """Sometimes break something."""
        if self.chance is None:
            return
        roll = self.chance.random()
        index = self.chance.randrange(self.at.count)
        if roll < 0.02:
            self.crashes += 1
            await self.at.restart(index)
        elif roll < 0.05:
            self.at.journals[index].fail_next_flush(self.chance.choice(["before_commit", "after_commit"]))
        await self.at.poll(0.6)
        for shard in self.at.system.shards:
            await shard.renew()

    async def until_done(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Call until it is answered."""
        for _ in range(200):
            try:
                return await ask()
            except (Unavailable, LimitExceeded):
                await self.trouble()
        raise AssertionError("never answered")

    async def pay(self, number: int) -> None:
        subject = number % 16
        ledger = Address("ledger", "demo", str(subject % LEDGERS))
        payment = Payments(tick=number, venue="parkside", key=keys(number), subject=u4(subject), unit=u2(number % 2), amount=u4(3), currency="EUR")
        reply = await self.until_done(partial(self.at.system.ask, ledger, payment))
        assert isinstance(reply, Settled)
        assert reply.result == b"\0"

    async def run(self, heard: Heard) -> None:
        system = self.at.system
        mall = Address("mall", "demo", "parkside")
        for offer in OFFERS:
            assert await self.until_done(partial(system.ask, mall, CreateOffer(offer=offer))) == Done()
        for subject in range(16):
            top = TopUps(tick=0, key=keys(10**9 + subject), subject=u4(subject), amount=u4(1000), currency="EUR")
            await self.until_done(partial(system.ask, Address("ledger", "demo", str(subject % LEDGERS)), top))
        await self.until_done(partial(system.open_source, "demo", "parkside", "sim", first_tick=0))
        recorded, tick, paid = crowd(5, TICKS, PEOPLE), 0, 0
        while True:
            if tick < TICKS:
                await self.until_done(partial(system.take, "demo", "parkside", recorded[tick], source="sim", tick=tick))
                await self.until_done(partial(system.watermark, "demo", "parkside", "sim", tick=tick, rows=len(recorded[tick])))
                tick += 1
            if tick > paid:
                await self.pay(paid)
                paid += 1
            await self.trouble()
            await self.at.settle()
            for _, body in await heard.all():
                if isinstance(body, Rewind):
                    tick = min(tick, body.tick + 1)
            if tick == TICKS and (await self.until_done(partial(system.clock, "demo", "parkside"))).tick == TICKS - 1:
                return


def facts(at: Stage) -> list[Fact]:
    return sorted(fact for log in at.store.logs.values() for segment in log for event in segment.events for fact in facts_of(event))


async def play(chance: random.Random | None) -> tuple[list[Fact], int]:
    async with stage(shards=2, settings=SETTINGS) as at:
        world = World(at, chance)
        await world.run(await at.listen("venue/parkside/clock"))
        books = [await world.until_done(partial(at.system.ask, Address("ledger", "demo", str(i)), GetBooks())) for i in range(LEDGERS)]
        assert all(isinstance(book, Books) and book.total.get("EUR", 0) == 0 for book in books)
        assert sum(book.tills.get("EUR", 0) for book in books if isinstance(book, Books)) == 3 * TICKS
        assert late_of(event for log in at.store.logs.values() for segment in log for event in segment.events) == (0, 0)
        return facts(at), world.crashes


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_failures_and_kills_leave_the_same_facts_as_a_quiet_run(seed: int) -> None:
    quiet, _ = await play(None)
    troubled, crashes = await play(random.Random(seed))
    assert crashes > 0, f"seed {seed} broke nothing"
    assert len(quiet) > 200
    assert troubled == quiet, f"seed {seed}"
