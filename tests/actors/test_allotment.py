"""Allotments: never more than there are, each unit against its money, whatever is lost, repeated or late, and whoever dies."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import numpy as np
import pytest

from actors import ledger_codes as c
from actors.allotment import COMMIT, COMMITTED, DONE, FINISH, LAPSE, OPEN, REFUSE, REFUSED, Allotment, AllotmentBook
from actors.allotment_courier import HOLD_MS, AllotmentCourier, Outcome
from actors.behaviour import Context
from actors.events import decode_event, encode_event
from actors.messages import (
    LEDGERS,
    AllotmentState,
    Balance,
    Books,
    Command,
    Decided,
    DecideTakes,
    Done,
    GetAllotment,
    GetBalance,
    GetBooks,
    GetOpenTakes,
    OpenAllotment,
    OpenTakes,
    Rejected,
    Reply,
    SetAccounts,
    Taken,
    Takes,
    TopUps,
)
from actors.venue_book import VenueBook
from esplanade.core.errors import EsplanadeError, Unavailable
from esplanade.core.ids import Address
from tests.actors.parkside import document, keys, u2, u4
from tests.actors.stage import Stage, stage

SHOES = Address("allotment", "demo", "shoes")
BOOK = VenueBook.read(document())
PRICE = 30
SALE = OpenAllotment(venue="parkside", unit="shop-00", currency="EUR", amount=PRICE, limit=5, each=2)
REWARD = OpenAllotment(currency="EUR", amount=PRICE, limit=5, each=1)


class Bench:
    """An allotment as a bare behaviour; every event is journalled as bytes, folded again, and compared, and so are snapshots."""

    def __init__(self) -> None:
        self.behaviour = Allotment()
        self.state, self.again = AllotmentBook(), AllotmentBook()

    def ask(self, command: Command) -> Reply:
        before = self.behaviour.save(self.state)
        decision = self.behaviour.decide(self.state, command, Context(address=SHOES, venue=BOOK))
        assert self.behaviour.save(self.state) == before
        if isinstance(decision, Rejected):
            return decision
        for event in decision.events:
            self.state = self.behaviour.apply(self.state, event)
            self.again = self.behaviour.apply(self.again, decode_event(*encode_event(event)))
        assert self.state == self.again == self.behaviour.load(self.behaviour.save(self.state))
        return decision.reply

    def take(self, *rows: tuple[int, int, int], now_ms: int = 1) -> list[str | int]:
        """Rows of (key, subject, count): the state of each, or why it was refused."""
        key, subject, count = zip(*rows, strict=True)
        reply = self.ask(Takes(now_ms=now_ms, key=keys(*key), subject=u4(*subject), count=u2(*count)))
        assert isinstance(reply, Taken)
        return [state if state else reply.codes[result - 1] for state, result in zip(reply.state, reply.result, strict=True)]

    def decide(self, *rows: tuple[int, int]) -> list[int]:
        reply = self.ask(DecideTakes(key=keys(*(key for key, _ in rows)), what=bytes(what for _, what in rows)))
        assert isinstance(reply, Decided)
        return list(reply.state)

    def left(self) -> int:
        reply = self.ask(GetAllotment())
        assert isinstance(reply, AllotmentState)
        return reply.left


def test_there_are_never_more_than_there_are() -> None:
    bench = Bench()
    assert bench.ask(SALE) == Done()
    assert bench.take((1, 8, 2), (2, 8, 1), (3, 9, 2), (4, 10, 2), (5, 11, 1), (6, 12, 1), (7, 13, 0)) == [
        OPEN, "exceeds_each", OPEN, "sold_out", OPEN, "sold_out", "count_must_be_positive",
    ]  # fmt: skip
    assert bench.left() == 0
    assert bench.decide((3, REFUSE)) == [REFUSED]
    assert bench.take((4, 10, 2)) == [OPEN], "what was refused is there again"


def test_a_known_key_is_told_what_became_of_it() -> None:
    bench = Bench()
    bench.ask(SALE)
    assert bench.take((1, 8, 2), (1, 8, 2)) == [OPEN, OPEN]
    assert bench.left() == 3
    assert bench.take((1, 9, 2), (1, 8, 1)) == ["exists_with_different_subject", "exists_with_different_count"]
    assert bench.decide((1, COMMIT)) == [COMMITTED]
    assert bench.take((1, 8, 2)) == [COMMITTED]
    assert bench.decide((1, FINISH)) == [DONE]
    assert bench.take((1, 8, 2)) == [DONE]
    assert bench.left() == 3


def test_the_first_word_about_a_take_counts() -> None:
    bench = Bench()
    bench.ask(SALE)
    bench.take((1, 8, 1), (2, 9, 1))
    assert bench.decide((1, FINISH), (1, LAPSE)) == [OPEN, OPEN], "nothing is done or lapsed that was not committed"
    assert bench.decide((1, COMMIT), (1, REFUSE), (2, REFUSE), (2, COMMIT)) == [COMMITTED, COMMITTED, REFUSED, REFUSED]
    assert bench.decide((1, LAPSE), (1, FINISH), (3, FINISH)) == [REFUSED, REFUSED, REFUSED]
    assert bench.left() == 5


def test_terms_that_money_has_followed_stay() -> None:
    bench = Bench()
    assert named_code(bench.ask(GetAllotment())) == "allotment_not_found"
    assert named_code(bench.ask(OpenAllotment(venue="parkside", unit="shop-99", currency="EUR", amount=1, limit=1))) == "unit_not_found"
    assert named_code(bench.ask(OpenAllotment(venue="parkside", unit="shop-02", currency="EUR", amount=1, limit=1))) == "unit_has_no_till"
    assert named_code(bench.ask(OpenAllotment(unit="shop-00", currency="EUR", amount=1, limit=1))) == "invalid"
    bench.ask(SALE)
    bench.take((1, 8, 2))
    assert named_code(bench.ask(OpenAllotment(venue="parkside", unit="shop-00", currency="EUR", amount=1, limit=5))) == "exists_with_different_terms"
    assert named_code(bench.ask(OpenAllotment(venue="parkside", unit="shop-00", currency="EUR", amount=PRICE, limit=1))) == "limit_below_taken"
    assert bench.ask(OpenAllotment(venue="parkside", unit="shop-00", currency="EUR", amount=PRICE, limit=2, closes_ms=50)) == Done()
    assert bench.take((2, 9, 1), now_ms=49) == ["sold_out"]
    assert bench.take((2, 9, 1), now_ms=50) == ["closed"]


def test_columns_that_disagree_are_refused_whole() -> None:
    bench = Bench()
    bench.ask(SALE)
    assert named_code(bench.ask(Takes(now_ms=1, key=b"k" * 15, subject=u4(8), count=u2(1)))) == "invalid"
    assert named_code(bench.ask(DecideTakes(key=keys(1), what=b""))) == "invalid"
    assert named_code(bench.ask(DecideTakes(key=keys(1), what=b"\x09"))) == "invalid"


def named_code(reply: Reply) -> str:
    assert isinstance(reply, Rejected), reply
    return reply.code


# --- with ledgers -----------------------------------------------------------------------------------------------------


def ledger(subject: int) -> Address:
    return Address("ledger", "demo", str(subject % LEDGERS))


async def open_with_money(at: Stage, terms: OpenAllotment, *wallets: tuple[int, int]) -> None:
    assert await at.system.ask(SHOES, terms) == Done()
    for subject, amount in wallets:
        await at.system.ask(ledger(subject), TopUps(tick=0, key=keys(10**9 + subject), subject=u4(subject), amount=u4(amount), currency="EUR"))


async def spendable(system: Any, subject: int) -> tuple[int, int]:
    """(what can be spent, what is held)."""
    reply = await system.ask(ledger(subject), GetBalance(subject=subject))
    assert isinstance(reply, Balance)
    return reply.balances.get("EUR", 0), reply.held.get("EUR", 0)


async def books(system: Any) -> tuple[int, int, int, int]:
    """(sum over all accounts, in tills, held, outside), over all ledgers."""
    found = await asyncio.gather(*(system.ask(Address("ledger", "demo", str(i)), GetBooks()) for i in range(LEDGERS)))
    assert all(isinstance(reply, Books) for reply in found)
    return tuple(sum(getattr(reply, name).get("EUR", 0) for reply in found) for name in ("total", "tills", "held", "outside"))  # type: ignore[return-value]


async def state_of(system: Any) -> AllotmentState:
    reply = await system.ask(SHOES, GetAllotment())
    assert isinstance(reply, AllotmentState)
    return reply


async def test_a_sale_and_its_refusals() -> None:
    async with stage(shards=2) as at:
        await open_with_money(at, SALE, (8, 100), (9, 10))
        courier = AllotmentCourier(at.system, at.clock)
        assert await courier.take("demo", "shoes", keys(1), 8, 2) == Outcome(True, 40)
        assert await courier.take("demo", "shoes", keys(1), 8, 2) == Outcome(True, 40), "a repeated key has one effect"
        assert await courier.take("demo", "shoes", keys(2), 8, 1) == Outcome(False, code="exceeds_each")
        assert await courier.take("demo", "shoes", keys(3), 9, 1) == Outcome(False, code="exceeds_balance")
        assert await courier.take("demo", "shoes", keys(4), 10, 1) == Outcome(False, code="wallet_not_found")
        assert await courier.take("demo", "hats", keys(5), 8, 1) == Outcome(False, code="allotment_not_found")
        state = await state_of(at.system)
        assert (state.left, state.under_way) == (3, 0)
        assert await books(at.system) == (0, 2 * PRICE, 0, -110)
        assert await spendable(at.system, 8) == (40, 0)


async def test_a_reward_comes_from_outside_once() -> None:
    async with stage(shards=2) as at:
        await open_with_money(at, REWARD)
        courier = AllotmentCourier(at.system, at.clock)
        for _ in range(2):
            assert await courier.take("demo", "shoes", keys(1), 8, reward=True) == Outcome(True, PRICE)
        assert await courier.take("demo", "shoes", keys(2), 8, reward=True) == Outcome(False, code="exceeds_each")
        assert await books(at.system) == (0, 0, 0, -PRICE)
        assert await spendable(at.system, 8) == (PRICE, 0)


@pytest.mark.parametrize("steps", range(5))
async def test_a_sale_ends_by_itself_whoever_dies_after_any_step(steps: int) -> None:
    """The buyer's gateway dies after so many answers, then both shards do. Nobody asks again: the reminder brings the allotment into memory, and its shard's courier the sale to its end."""
    async with stage(shards=2) as at:
        await open_with_money(at, SALE, (8, 100))
        with pytest.raises(Unavailable):
            await AllotmentCourier(_Dying(at, steps), at.clock).take("demo", "shoes", keys(1), 8, 1)
        for index in range(2):
            await at.restart(index)
            await at.system.shards[index].reopened()
        couriers = [AllotmentCourier(at.system, at.clock) for _ in at.system.shards]
        tasks = [asyncio.create_task(courier.attend(shard.open_allotments)) for courier, shard in zip(couriers, at.system.shards, strict=True)]
        try:
            async with asyncio.timeout(60):
                while (steps and (await state_of(at.system)).under_way) or sum(courier.finished for courier in couriers) < (1 <= steps < 5):
                    await at.poll(0.05)
                    for shard in at.system.shards:
                        await shard.renew()
                    await asyncio.sleep(0.01)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        sold = int(steps > 0)
        assert (await state_of(at.system)).left == 5 - sold
        assert await books(at.system) == (0, PRICE * sold, 0, -100)
        assert await spendable(at.system, 8) == (100 - PRICE * sold, 0)


class _Dying:
    """A system whose asker has so many answers and then no more."""

    def __init__(self, at: Stage, answers: int) -> None:
        self._system, self._left = at.system, answers

    async def ask(self, address: Address, command: Command, **how: Any) -> Reply:
        if not self._left:
            raise Unavailable("the gateway has died")
        self._left -= 1
        return await self._system.ask(address, command, **how)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._system, name)


async def test_money_held_for_a_take_that_was_refused_meanwhile_is_released() -> None:
    async with stage() as at:
        await open_with_money(at, SALE, (8, 100))

        class Meanwhile(_Dying):
            async def ask(self, address: Address, command: Command, **how: Any) -> Reply:
                if isinstance(command, DecideTakes) and command.what == bytes([COMMIT]):
                    await self._system.ask(address, DecideTakes(key=command.key, what=bytes([REFUSE])))  # another courier heard a refusal
                return await self._system.ask(address, command, **how)

        assert await AllotmentCourier(Meanwhile(at, 9), at.clock).take("demo", "shoes", keys(1), 8, 1) == Outcome(False, code="refused")
        assert await spendable(at.system, 8) == (100, 0)
        assert (await state_of(at.system)).left == 5


async def test_a_take_that_nobody_carried_in_time_is_given_up_and_a_frozen_wallet_waits() -> None:
    async with stage() as at:
        await open_with_money(at, SALE, (8, 100), (16, 100))
        with pytest.raises(Unavailable):
            await AllotmentCourier(_Dying(at, 4), at.clock).take("demo", "shoes", keys(1), 8, 1)  # begun, listed, held, committed
        await at.system.ask(
            ledger(8),
            SetAccounts(currency="EUR", account=np.array([c.WALLET << 60 | 8], "<i8").tobytes(), frozen=b"\1", move_cap=bytes(8), day_cap=bytes(8)),
        )
        courier = AllotmentCourier(at.system, at.clock)
        assert await courier.carry("demo", "shoes") == {keys(1): Outcome(False, code="account_frozen", pending=True)}
        assert (await state_of(at.system)).under_way == 1
        with pytest.raises(Unavailable):
            await AllotmentCourier(_Dying(at, 1), at.clock).take("demo", "shoes", keys(2), 16, 1)  # begun
        at.clock.advance(HOLD_MS / 1000 + 1)
        for shard in at.system.shards:
            await shard.renew()
        await at.poll(1.0)
        assert await courier.carry("demo", "shoes") == {keys(1): Outcome(False, code="lapsed"), keys(2): Outcome(False, code="expiry_must_be_later")}
        assert ((await state_of(at.system)).left, await spendable(at.system, 8), await spendable(at.system, 16)) == (5, (100, 0), (100, 0))


class _Unsteady:
    """A system seen through a bad line: asks take their time, some never arrive, the answers of some are lost."""

    def __init__(self, at: Stage, chance: random.Random) -> None:
        self._system, self._chance = at.system, chance

    async def ask(self, address: Address, command: Command, **how: Any) -> Reply:
        for _ in range(self._chance.randrange(6)):
            await asyncio.sleep(0)
        if self._chance.random() < 0.12:
            raise Unavailable("lost on the way")
        reply = await self._system.ask(address, command, **how)
        for _ in range(self._chance.randrange(6)):
            await asyncio.sleep(0)
        if self._chance.random() < 0.12:
            raise Unavailable("the answer was lost")
        return reply

    def __getattr__(self, name: str) -> Any:
        return getattr(self._system, name)


@pytest.mark.parametrize("terms", [SALE, REWARD], ids=["sale", "reward"])
@pytest.mark.parametrize("seed", range(12))
async def test_many_couriers_on_a_bad_line_agree(seed: int, terms: OpenAllotment) -> None:
    """Twelve buyers, three couriers that are cut off at any point, money that runs short and comes, time that passes: what was told as done is done, once, and the books say the same."""
    chance = random.Random(f"{seed}/{bool(terms.venue)}")
    async with stage(shards=2) as at:
        await open_with_money(at, terms, *((8 + i, chance.choice((10, 40, 100))) for i in range(6)))
        told: dict[bytes, Outcome] = {}

        async def buy(number: int) -> None:
            key, subject, count = keys(number), 8 + chance.randrange(6), chance.choice((1, 1, 2))
            for _ in range(chance.randrange(1, 6)):
                try:
                    outcome = await AllotmentCourier(_Unsteady(at, chance), at.clock).take(
                        "demo", "shoes", key, subject, count, reward=not terms.venue
                    )
                except EsplanadeError:
                    continue
                assert not (key in told and told[key].done and not outcome.done), f"seed {seed}: {told[key]}, then {outcome}"
                told[key] = outcome

        async def carry() -> None:
            while True:
                task = asyncio.ensure_future(AllotmentCourier(_Unsteady(at, chance), at.clock).sweep([("demo", "shoes")]))
                for _ in range(chance.randrange(1, 60)):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

        carriers = [asyncio.create_task(carry()) for _ in range(3)]
        buyers = [asyncio.create_task(buy(number)) for number in range(1, 13)]
        while not all(buyer.done() for buyer in buyers):
            if chance.random() < 0.02:
                subject = 8 + chance.randrange(6)
                await at.system.ask(ledger(subject), TopUps(tick=0, key=chance.randbytes(16), subject=u4(subject), amount=u4(20), currency="EUR"))
            if chance.random() < 0.01:
                at.clock.advance(HOLD_MS / 3000)
                for shard in at.system.shards:
                    await shard.renew()
                    shard.poll()
            await asyncio.sleep(0)
        for task in carriers:
            task.cancel()
        await asyncio.gather(*carriers, return_exceptions=True)
        for buyer in buyers:
            buyer.result()

        courier = AllotmentCourier(at.system, at.clock)  # the line is good again
        await courier.sweep([("demo", "shoes")])
        at.clock.advance(HOLD_MS / 1000 + 1)  # and what was held for nothing expires
        for shard in at.system.shards:
            await shard.renew()
        await at.poll(1.0)
        await courier.sweep([("demo", "shoes")])

        done = await at.system.ask(SHOES, GetOpenTakes(key=keys(*range(1, 13))))
        assert isinstance(done, OpenTakes)
        assert set(done.state) <= {DONE}
        units = np.frombuffer(done.count, "<u2")
        state = await state_of(at.system)
        assert (state.left, state.under_way) == (terms.limit - int(units.sum()), 0)
        assert state.left >= 0
        total, tills, held, outside = await books(at.system)
        assert (total, held) == (0, 0)
        moved = PRICE * int(units.sum())
        if terms.venue:
            assert tills == moved
        else:
            credits = sum([(await spendable(at.system, 8 + i))[0] for i in range(6)])
            assert credits == -outside
        known = {done.key[i : i + 16] for i in range(0, len(done.key), 16)}
        assert {key for key, outcome in told.items() if outcome.done} <= known
        of = dict.fromkeys(range(8, 14), 0)
        for subject, count in zip(np.frombuffer(done.subject, "<u4").tolist(), units.tolist(), strict=True):
            of[subject] += count
        assert max(of.values()) <= terms.each
