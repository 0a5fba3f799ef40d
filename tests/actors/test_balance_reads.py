"""Frames of nothing but balances asked for: what they answer is what the same asks are answered one by one, and no sooner."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from actors.ledger_codes import OP_HOLD, TILL, WALLET
from actors.messages import LEDGERS, Balance, GetBalance, Rejected, Settled, TopUps, Transfers
from actors.requests import Answer, Ask, Commands, Refused, Replied, encode_requests
from actors.shard import Shard, ShardSettings
from esplanade.core.ids import Address
from tests.actors.parkside import keys, u4
from tests.actors.stage import Stage, stage


def asks(subjects: Sequence[int], ledgers: Sequence[int] | None = None) -> list[Ask]:
    numbers = [subject % LEDGERS for subject in subjects] if ledgers is None else ledgers
    return [Ask(Address("ledger", "demo", str(number)), GetBalance(subject=subject)) for number, subject in zip(numbers, subjects, strict=True)]


async def fund(at: Stage, subjects: Sequence[int], currency: str, first_key: int) -> None:
    for ledger in range(LEDGERS):
        mine = [subject for subject in subjects if subject % LEDGERS == ledger]
        top = TopUps(
            tick=1, key=keys(*(first_key + s for s in mine)), subject=u4(*mine), amount=u4(*(10 * s + 1 for s in mine)), currency=currency
        )  # fmt: skip
        assert isinstance(await at.system.ask(Address("ledger", "demo", str(ledger)), top), Settled)


async def together(shard: Shard, requests: list[Ask]) -> list[Answer]:
    columns = Commands.of(requests)
    assert columns is not None
    return await shard.answer(columns)


async def one_by_one(shard: Shard, requests: list[Ask]) -> list[Answer]:
    return [(await shard.answer([request]))[0] for request in requests]


async def test_a_frame_of_balances_is_answered_as_the_turns_are() -> None:
    async with stage() as at:
        [shard] = at.system.shards
        await fund(at, range(200), "EUR", 1_000)
        await fund(at, range(100, 260), "CHF", 2_000)
        hold = Transfers(
            currency="EUR", venue="parkside", op=bytes((OP_HOLD,)), key=keys(5_000), debit=np.array([WALLET << 60 | 16], "<i8").tobytes(),
            credit=np.array([TILL << 60 | 1], "<i8").tobytes(), amount=np.array([25], "<i8").tobytes(), expires=np.array([9_000], "<i8").tobytes(), now=1,
        )  # fmt: skip
        assert isinstance(await at.system.ask(Address("ledger", "demo", "0"), hold), Settled)
        everyone = asks([*range(0, 300, 1), 16, 16])
        turns = shard.profile().turns
        found = await together(shard, everyone)
        assert shard.profile().turns == turns + len(everyone)
        assert found == await one_by_one(shard, everyone)
        assert found[16] == found[-1] != found[24], "what is held is told"
        mixed = [*everyone[:150], *asks([3], [LEDGERS])]
        assert await together(shard, mixed) == await one_by_one(shard, mixed)
        [*_, unknown] = await together(shard, mixed)
        assert isinstance(unknown, Replied)
        assert isinstance(unknown.reply, Rejected), "there is no such ledger"


async def test_of_a_shard_that_has_just_begun_it_waits_for_the_replay() -> None:
    async with stage() as at:
        await fund(at, range(200), "EUR", 1_000)
        await at.restart()
        everyone = asks(range(200))
        assert await together(at.system.shards[0], everyone) == await one_by_one(at.system.shards[0], everyone)


async def test_those_of_a_ledger_that_is_not_at_hand_wait_in_the_order_of_their_coming_and_count_one_by_one() -> None:
    async with stage() as at:
        await fund(at, range(200), "EUR", 1_000)
        await at.restart()
        [shard] = at.system.shards
        more = TopUps(tick=1, key=keys(9_000), subject=u4(8), amount=u4(5), currency="EUR")
        before = asyncio.create_task(together(shard, asks(range(200))))
        adding = asyncio.create_task(shard.answer([Ask(Address("ledger", "demo", "0"), more)]))
        after = asyncio.create_task(together(shard, asks([8] * 32)))
        await asyncio.sleep(0)
        assert shard.profile().mailbox == 233
        asked, _, again = await asyncio.gather(before, adding, after)
        assert asked[8] == Replied(Balance(balances={"EUR": 81}))
        assert again == [Replied(Balance(balances={"EUR": 86}))] * 32
        told = shard.profile()
        assert (told.mailbox, told.mailbox_time.total) == (0, 233)


async def test_those_beyond_the_mailbox_are_refused_to_be_sent_again() -> None:
    async with stage(settings=ShardSettings(max_mailbox=100)) as at:
        await fund(at, range(200), "EUR", 1_000)
        await at.restart()
        [shard] = at.system.shards
        waiting = [asyncio.create_task(together(shard, asks([8 * i for i in range(80)]))) for _ in range(2)]
        first, second = await asyncio.gather(*waiting)
        assert {type(answer) for answer in first} == {Replied}
        assert {answer.code for answer in second if isinstance(answer, Refused)} == {"limit"}
        assert shard.profile().mailbox == 0
        await at.restart()
        kinds = [type(answer) for answer in await together(at.system.shards[0], asks(range(200)))]
        assert (kinds.count(Replied), kinds.count(Refused)) == (100, 100), "a frame larger than the mailbox fills it"


async def test_those_of_a_ledger_whose_replay_fails_are_refused_all() -> None:
    async with stage() as at:
        await fund(at, range(200), "EUR", 1_000)
        await at.restart()
        [shard] = at.system.shards
        await at.journals[0].close()
        found = await together(shard, asks(range(200)))
        assert {answer.code for answer in found if isinstance(answer, Refused)} == {"unavailable"}
        assert len(found) == shard.profile().refused == 200
        assert shard.profile().mailbox == 0


async def test_a_balance_that_is_not_durable_yet_is_not_told() -> None:
    async with stage() as at:
        [shard] = at.system.shards
        await fund(at, range(200), "EUR", 1_000)
        go = asyncio.Event()

        async def later(_: object) -> None:
            await go.wait()

        at.journals[0].before_commit = later
        more = TopUps(tick=1, key=keys(9_000), subject=u4(8), amount=u4(5), currency="EUR")
        adding = asyncio.create_task(shard.answer([Ask(Address("ledger", "demo", "0"), more)]))
        await asyncio.sleep(0)
        reading = asyncio.create_task(shard.frame(encode_requests(asks(range(200)))))
        for _ in range(50):
            await asyncio.sleep(0)
        assert not adding.done()
        assert not reading.done(), "it has seen the money that is on its way"
        go.set()
        await asyncio.gather(adding, reading)
        assert await together(shard, asks([8] * 32)) == await one_by_one(shard, asks([8] * 32))
