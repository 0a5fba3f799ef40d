"""A public key has one effect and one answer for 24 hours, over restarts and failed flushes; with other parameters it is a conflict."""

from __future__ import annotations

import asyncio
import random

import pytest

from actors.events import OfferCreated, QrScanned, decode_event
from actors.messages import CreateOffer, Done, GetOffers, Offers, Rejected, ScanQr, WalkedIn
from actors.public_keys import KEPT_MS
from actors.system import Key
from esplanade.core.errors import Conflict, EsplanadeError, InvalidInput, Unavailable
from esplanade.core.ids import Address, partition_of
from spatial.offers import Everyone, Offer
from tests.actors.parkside import keys
from tests.actors.stage import Stage, stage

MALL = Address("mall", "demo", "parkside")
SESSION = Address("session", "demo", "7")
SCAN = ScanQr(venue="parkside", location="north_entrance")


def create(offer_id: str, unit: str = "shop-00") -> CreateOffer:
    return CreateOffer(offer=Offer(id=offer_id, unit_id=unit, title="Offer", audience=Everyone()))


def count(at: Stage, kind: type) -> int:
    events = [event for log in at.store.logs.values() for segment in log for event in segment.events]
    return sum(isinstance(decode_event(event.type, event.body), kind) for event in events)


async def test_a_repeated_key_has_one_effect_and_the_first_answer_after_a_restart_too() -> None:
    async with stage() as at:
        first = await at.system.ask(SESSION, SCAN, public=keys(1))
        assert isinstance(first, WalkedIn)
        assert await at.system.ask(SESSION, SCAN, public=keys(1)) == first
        await at.restart()
        assert await at.system.ask(SESSION, SCAN, public=keys(1)) == first
        assert count(at, QrScanned) == 1
        assert await at.system.ask(SESSION, SCAN, public=keys(2)) == first
        assert count(at, QrScanned) == 2


async def test_the_same_key_with_other_parameters_or_of_another_actor_is_a_conflict() -> None:
    async with stage() as at:
        assert await at.system.ask(MALL, create("a"), public=keys(1)) == Done()
        with pytest.raises(Conflict, match="other parameters"):
            await at.system.ask(MALL, create("b"), public=keys(1))
        with pytest.raises(Conflict, match="other parameters"):
            await at.system.ask(SESSION, SCAN, public=keys(1))
        assert (count(at, OfferCreated), count(at, QrScanned)) == (1, 0)


async def test_a_key_is_forgotten_after_24_hours() -> None:
    async with stage() as at:
        await at.system.ask(SESSION, SCAN, public=keys(1))
        at.clock.advance(KEPT_MS / 1000 - 10)
        await at.system.shards[0].renew()
        await at.system.ask(SESSION, SCAN, public=keys(1))
        assert count(at, QrScanned) == 1
        at.clock.advance(11)
        await at.system.shards[0].renew()
        await at.system.ask(SESSION, SCAN, public=keys(1))
        assert count(at, QrScanned) == 2


async def test_what_changed_nothing_leaves_its_key_free() -> None:
    async with stage() as at:
        assert isinstance(await at.system.ask(MALL, create("a", "nowhere"), public=keys(1)), Rejected)
        assert isinstance(await at.system.ask(MALL, GetOffers(), public=keys(1)), Offers)
        assert await at.system.ask(MALL, create("a"), public=keys(1)) == Done()


async def test_many_at_once_under_one_key_are_one() -> None:
    async with stage() as at:
        found = await asyncio.gather(*(at.system.ask(SESSION, SCAN, public=keys(1)) for _ in range(20)))
        assert all(reply == found[0] for reply in found)
        assert count(at, QrScanned) == 1
        assert at.system.shards[0].profile().mailbox == 0
        mixed = await asyncio.gather(*(at.system.ask(MALL, create(f"o{i}"), public=keys(2)) for i in range(5)), return_exceptions=True)
        assert mixed.count(Done()) == 1
        assert sum(isinstance(error, Conflict) for error in mixed) == 4


async def test_a_key_taken_in_another_shard_meanwhile_fails_the_flush_and_is_then_known() -> None:
    """Between the look-up and the flush another owner records the key: nothing of the second happens, and asking again tells of the conflict."""
    async with stage(shards=2) as at:
        other = next(
            a for i in range(50) if (a := Address("session", "demo", str(i))) and at.system.shards[0]._tenure.leases.get(partition_of(a)) is None
        )
        here = next(
            a for i in range(50) if (a := Address("session", "demo", str(i))) and at.system.shards[0]._tenure.leases.get(partition_of(a)) is not None
        )

        async def meanwhile(_: object) -> None:
            at.journals[0].before_commit = None
            await at.system.ask(other, SCAN, public=keys(1))

        at.journals[0].before_commit = meanwhile
        with pytest.raises(Unavailable, match="ask again"):
            await at.system.ask(here, SCAN, public=keys(1))
        with pytest.raises(Conflict, match="other parameters"):
            await at.system.ask(here, SCAN, public=keys(1))
        assert count(at, QrScanned) == 1


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_fails_a_command_asked_until_answered_has_happened_once(seed: int) -> None:
    chance = random.Random(seed)
    async with stage(shards=2) as at:
        for i in range(40):
            while True:
                if chance.random() < 0.3:
                    at.journals[chance.randrange(2)].fail_next_flush(chance.choice(["before_commit", "after_commit"]))
                if chance.random() < 0.1:
                    await at.restart(chance.randrange(2))
                try:
                    await at.system.ask(Address("session", "demo", str(i % 9)), SCAN, public=keys(i))
                    break
                except EsplanadeError as error:
                    if not error.retryable:
                        raise
        assert count(at, QrScanned) == 40, f"seed {seed}"


async def test_a_key_of_another_length_or_beside_another_is_refused() -> None:
    async with stage() as at:
        for public, key in ((b"short", None), (keys(1), Key("phone", 1))):
            with pytest.raises(InvalidInput, match="16 bytes and stands alone"):
                await at.system.ask(SESSION, SCAN, key=key, public=public)
