"""Reads that allow staleness see what was durable within the time allowed, never what is not, and ask once for many."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest

from actors.events import ToppedUp, decode_event
from actors.messages import Balance, GetBalance, Rejected, Reply, TopUps
from esplanade.core.errors import Unavailable
from esplanade.core.ids import Address
from esplanade.storage.journal import Append
from gateway.metrics import GatewayMetrics
from gateway.stale_reads import MAX_HELD, StaleReads
from tests.actors.parkside import keys, u4
from tests.actors.stage import Stage, stage

LEDGER = Address("ledger", "demo", "0")
READ = GetBalance(subject=8)
NAME = "esplanade_gateway_stale_reads_total"


def top_up(key: int, amount: int) -> TopUps:
    return TopUps(tick=0, key=keys(key), subject=u4(8), amount=u4(amount), currency="EUR")


def reads_of(at: Stage) -> tuple[StaleReads, GatewayMetrics]:
    metrics = GatewayMetrics()
    return StaleReads(at.system, at.clock, metrics), metrics


def euros(reply: Reply) -> int:
    assert isinstance(reply, Balance)
    return reply.balances.get("EUR", 0)


def durable(at: Stage) -> int:
    """The wallet's balance as the journal has it."""
    events = [event for log in at.store.logs.values() for segment in log for event in segment.events]
    bodies = [decode_event(event.type, event.body) for event in events]
    return sum(int.from_bytes(body.amount, "little") for body in bodies if isinstance(body, ToppedUp))


async def test_a_read_never_sees_what_is_not_durable() -> None:
    """Held in the middle of a flush: the turn is over, the money is in memory, and the reader gets what is in the journal."""
    async with stage() as at:
        reads, _ = reads_of(at)
        await at.system.ask(LEDGER, top_up(1, 100))
        assert euros(await reads.ask(LEDGER, READ, stale_ms=1000)) == 100
        committing, go_on = asyncio.Event(), asyncio.Event()

        async def hold(_: Sequence[Append]) -> None:
            committing.set()
            await go_on.wait()
            raise Unavailable("the database is gone")

        at.journals[0].before_commit = hold
        paying = asyncio.create_task(at.system.ask(LEDGER, top_up(2, 50)))
        await committing.wait()
        assert euros(await reads.ask(LEDGER, READ, stale_ms=1000)) == 100
        at.clock.advance(2.0)
        fresh = asyncio.create_task(reads.ask(LEDGER, READ, stale_ms=1000))
        await at.settle()
        assert not fresh.done(), "a new read waits for what it has seen"
        go_on.set()
        for task in (paying, fresh):
            with pytest.raises(Unavailable):
                await task
        at.journals[0].before_commit = None
        assert euros(await reads.ask(LEDGER, READ, stale_ms=1000)) == durable(at) == 100


@pytest.mark.parametrize("seed", range(6))
async def test_every_answer_was_durable_at_some_moment_of_the_time_allowed(seed: int) -> None:
    chance = random.Random(seed)
    async with stage() as at:
        reads, metrics = reads_of(at)
        history = [(at.clock.monotonic_s(), 0)]  # (when it became durable, balance)

        async def committed(_: Sequence[Append]) -> None:
            history.append((at.clock.monotonic_s(), durable(at)))

        for i in range(300):
            at.journals[0].after_commit = committed
            if chance.random() < 0.1:
                at.journals[0].fail_next_flush(chance.choice(["before_commit", "after_commit"]))
            if chance.random() < 0.4:
                at.clock.advance(chance.random() * 0.3)
            if chance.random() < 0.4:
                await asyncio.gather(at.system.ask(LEDGER, top_up(i, 1 + chance.randrange(9))), return_exceptions=True)
            else:
                allowed_ms = chance.choice([1, 100, 1000])
                try:
                    told = euros(await reads.ask(LEDGER, READ, stale_ms=allowed_ms))
                except Unavailable:
                    continue
                now_s = at.clock.monotonic_s()
                since_s = now_s - allowed_ms / 1000
                before = max((entry for entry in enumerate(history) if entry[1][0] <= since_s), default=(0, history[0]))[0]
                assert told in {balance for _, balance in history[before:]}, f"seed {seed}, step {i}: {told} is of no moment within {allowed_ms} ms"
            if i % 50 == 49:
                await at.system.shards[0].renew()
        assert metrics.value(NAME, "held") > 20


async def test_many_who_ask_the_same_share_one_turn_and_its_failure() -> None:
    async with stage() as at:
        reads, metrics = reads_of(at)
        await at.system.ask(LEDGER, top_up(1, 100))
        before = at.system.shards[0].profile().turns
        found = await asyncio.gather(*(reads.ask(LEDGER, READ, stale_ms=100) for _ in range(50)))
        assert {euros(reply) for reply in found} == {100}
        assert at.system.shards[0].profile().turns == before + 1
        assert (metrics.value(NAME, "held"), metrics.value(NAME, "asked")) == (49, 1)
        assert euros(await reads.ask(LEDGER, READ, stale_ms=0)) == 100
        assert at.system.shards[0].profile().turns == before + 2
        await at.system.shards[0].stop()
        at.clock.advance(1.0)
        failed = await asyncio.gather(*(reads.ask(LEDGER, READ, stale_ms=100) for _ in range(3)), return_exceptions=True)
        assert all(isinstance(error, Unavailable) for error in failed)
        assert len(reads) == 0, "a failure is not held"


async def test_a_reader_who_goes_away_leaves_the_others_their_answer() -> None:
    async with stage() as at:
        reads, _ = reads_of(at)
        first = asyncio.create_task(reads.ask(LEDGER, READ, stale_ms=100))
        await asyncio.sleep(0)
        second = asyncio.create_task(reads.ask(LEDGER, READ, stale_ms=100))
        await asyncio.sleep(0)
        first.cancel()
        assert euros(await second) == 0
        assert isinstance(await reads.ask(Address("ledger", "demo", "x"), READ, stale_ms=100), Rejected)
        assert len(reads) == 1, "a rejection is not held"


async def test_what_is_held_is_limited() -> None:
    async with stage() as at:
        reads, _ = reads_of(at)
        for subject in range(0, 8 * (MAX_HELD + 50), 8):
            await reads.ask(LEDGER, GetBalance(subject=subject), stale_ms=60_000)
        assert len(reads) == MAX_HELD
