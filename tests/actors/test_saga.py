"""Transfers between ledgers: whatever is lost, repeated or late, and whoever dies, each arrives once or comes back once, and the books sum to zero at every version."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from actors import ledger_codes as c
from actors.behaviour import Context
from actors.events import decode_event, encode_event
from actors.ledger import Ledger
from actors.ledger_state import balances_of, books_of
from actors.messages import (
    LEDGERS,
    RECEIVED_BEFORE,
    Balance,
    Books,
    Command,
    FinishTransfers,
    GetBalance,
    GetBooks,
    GetUnderWay,
    Received,
    ReceiveTransfers,
    Rejected,
    Reply,
    SendTransfers,
    SetAccounts,
    Settled,
    TopUps,
    UnderWay,
)
from actors.saga import TransferCourier
from actors.venue_book import VenueBook
from esplanade.core.errors import Unavailable
from esplanade.core.ids import Address
from tests.actors.parkside import document, keys, named, u4
from tests.actors.stage import stage

LEDGER = Ledger()
BOOK = VenueBook.read(document())


def i8(*values: int) -> bytes:
    return np.array(values, "<i8").tobytes()


def send(*rows: tuple[int, int, int, int], currency: str = "EUR") -> SendTransfers:
    """Rows of (key, from, to, amount)."""
    key, subject, to, amount = zip(*rows, strict=True)
    return SendTransfers(currency=currency, key=keys(*key), subject=u4(*subject), to=u4(*to), amount=i8(*amount))


def top_up(key: int, subject: int, amount: int) -> TopUps:
    return TopUps(tick=0, key=keys(key), subject=u4(subject), amount=u4(amount), currency="EUR")


def freeze(subject: int, frozen: bool = True) -> SetAccounts:
    return SetAccounts(currency="EUR", account=i8(c.WALLET << 60 | subject), frozen=bytes([frozen]), move_cap=i8(0), day_cap=i8(0))


class Bench:
    """Ledgers as bare behaviours; every event is journalled as bytes, folded again, and compared."""

    def __init__(self, ledger: Ledger = LEDGER) -> None:
        self.ledger = ledger
        self.state = {i: ledger.initial() for i in range(LEDGERS)}
        self.again = {i: ledger.initial() for i in range(LEDGERS)}

    def ask(self, ledger: int, command: Command) -> Reply:
        before = self.ledger.save(self.state[ledger])
        decision = self.ledger.decide(self.state[ledger], command, Context(address=Address("ledger", "demo", str(ledger)), venue=BOOK))
        assert self.ledger.save(self.state[ledger]) == before
        if isinstance(decision, Rejected):
            return decision
        for event in decision.events:
            self.state[ledger] = self.ledger.apply(self.state[ledger], event)
            self.again[ledger] = self.ledger.apply(self.again[ledger], decode_event(*encode_event(event)))
            assert self.ledger.save(self.state[ledger]) == self.ledger.save(self.again[ledger])
            assert not any(books_of(self.state[ledger]).total.values())
        return decision.reply

    def codes(self, ledger: int, command: Command) -> list[str]:
        reply = self.ask(ledger, command)
        assert isinstance(reply, Settled), reply
        return named(reply.codes, reply.result)

    def balance(self, subject: int) -> int:
        return balances_of(self.state[subject % LEDGERS], subject).get("EUR", 0)

    def transit(self) -> int:
        return sum(books_of(state).transit.get("EUR", 0) for state in self.state.values())

    def under_way(self, ledger: int) -> UnderWay:
        reply = self.ask(ledger, GetUnderWay())
        assert isinstance(reply, UnderWay)
        return reply


def receive_of(source: int, way: UnderWay) -> list[tuple[int, ReceiveTransfers]]:
    return [
        (b.peer, ReceiveTransfers(source=source, through=b.through, currency=b.currency, sequence=b.sequence, key=b.key, subject=b.subject, to=b.to, amount=b.amount))
        for b in way.batches
    ]  # fmt: skip


def test_money_is_in_transit_between_leaving_and_arriving() -> None:
    bench = Bench()
    bench.ask(0, top_up(1, 8, 100))
    assert bench.codes(0, send((2, 8, 9, 30))) == ["settled"]
    assert (bench.balance(8), bench.balance(9), bench.transit()) == (70, 0, 30)
    [(peer, command)] = receive_of(0, bench.under_way(0))
    received = bench.ask(peer, command)
    assert received == Received(outcome=b"\0", codes=c.CODES)
    assert (bench.balance(9), bench.transit()) == (30, 0)
    bench.ask(0, FinishTransfers(peer=1, currency="EUR", sequence=command.sequence, outcome=b"\0"))
    assert bench.under_way(0).batches == ()


def test_a_transfer_within_the_ledger_is_one_turn() -> None:
    bench = Bench()
    bench.ask(0, top_up(1, 8, 100))
    assert bench.codes(0, send((2, 8, 16, 30))) == ["settled"]
    assert (bench.balance(8), bench.balance(16), bench.under_way(0).batches) == (70, 30, ())


def test_what_the_receiver_refuses_comes_back_and_the_refusal_is_final() -> None:
    bench = Bench()
    bench.ask(0, top_up(1, 8, 100))
    bench.ask(1, freeze(9))
    bench.ask(0, send((2, 8, 9, 30)))
    [(peer, command)] = receive_of(0, bench.under_way(0))
    refused = bench.ask(peer, command)
    assert isinstance(refused, Received)
    assert named(refused.codes, refused.outcome) == ["account_frozen"]
    bench.ask(1, freeze(9, False))
    assert bench.ask(peer, command) == refused, "the first decision holds"
    for _ in range(2):
        bench.ask(0, FinishTransfers(peer=1, currency="EUR", sequence=command.sequence, outcome=refused.outcome))
    assert (bench.balance(8), bench.balance(9), bench.transit()) == (100, 0, 0)
    assert bench.codes(0, send((2, 8, 9, 30))) == ["came_back"]
    assert bench.codes(0, send((3, 8, 9, 30))) == ["settled"]


def test_a_message_that_comes_after_everything_is_over_has_no_effect() -> None:
    bench = Bench()
    bench.ask(0, top_up(1, 8, 100))
    bench.ask(0, send((2, 8, 9, 30)))
    [(_, first)] = receive_of(0, bench.under_way(0))
    bench.ask(1, first)
    bench.ask(0, FinishTransfers(peer=1, currency="EUR", sequence=first.sequence, outcome=b"\0"))
    bench.ask(0, send((3, 8, 9, 5)))
    [(_, second)] = receive_of(0, bench.under_way(0))
    assert second.through == 1
    bench.ask(1, second)
    late = bench.ask(1, first)
    assert isinstance(late, Received)
    assert late.outcome == bytes([RECEIVED_BEFORE])
    assert bench.balance(9) == 35


def test_a_sent_key_with_another_receiver_is_refused() -> None:
    bench = Bench()
    bench.ask(0, top_up(1, 8, 100))
    assert bench.codes(0, send((2, 8, 9, 30), (2, 8, 17, 30), (2, 8, 9, 31), (2, 8, 9, 30))) == [
        "settled", "exists_with_different_account", "exists_with_different_amount", "settled",
    ]  # fmt: skip
    assert bench.balance(8) == 70


class Sending(RuleBasedStateMachine):
    """Messages of many couriers, delivered in any order, again and late; accounts frozen in between."""

    SUBJECTS = (0, 8, 1, 9, 2)

    @initialize()
    def begin(self) -> None:
        self.bench = Bench()
        self.messages: list[tuple[int, Command]] = []
        self.sent: dict[int, tuple[int, int, int]] = {}
        for i, subject in enumerate(self.SUBJECTS):
            self.bench.ask(subject % LEDGERS, top_up(1000 + i, subject, 100))

    @rule(key=st.integers(1, 25), subject=st.sampled_from(SUBJECTS), to=st.sampled_from(SUBJECTS), amount=st.integers(1, 70))
    def send(self, key: int, subject: int, to: int, amount: int) -> None:
        before = self.bench.balance(subject)
        [code] = self.bench.codes(subject % LEDGERS, send((key, subject, to, amount)))
        if code == "settled" and self.bench.balance(subject) != before:
            self.sent[len(self.sent)] = (subject, to, amount)

    @rule(subject=st.sampled_from(SUBJECTS), frozen=st.booleans())
    def freeze(self, subject: int, frozen: bool) -> None:
        self.bench.ask(subject % LEDGERS, freeze(subject, frozen))

    @rule(ledger=st.integers(0, 2))
    def courier_looks(self, ledger: int) -> None:
        self.messages += receive_of(ledger, self.bench.under_way(ledger))

    @rule(which=st.integers(0, 99), drop=st.booleans())
    def deliver(self, which: int, drop: bool) -> None:
        if not self.messages:
            return
        ledger, command = self.messages[which % len(self.messages)]
        if drop:
            self.messages.pop(which % len(self.messages))
        reply = self.bench.ask(ledger, command)
        if isinstance(command, ReceiveTransfers) and isinstance(reply, Received):
            finish = FinishTransfers(peer=ledger, currency=command.currency, sequence=command.sequence, outcome=reply.outcome)
            self.messages.append((command.source, finish))

    @rule(ledger=st.integers(0, 2))
    def restart(self, ledger: int) -> None:
        self.bench.state[ledger] = LEDGER.load(LEDGER.save(self.bench.state[ledger]))

    @invariant()
    def no_money_is_made_or_lost(self) -> None:
        held = sum(self.bench.balance(subject) for subject in self.SUBJECTS)
        assert held + self.bench.transit() == 100 * len(self.SUBJECTS)
        assert self.bench.transit() >= 0
        assert all(self.bench.balance(subject) >= 0 for subject in self.SUBJECTS)

    def teardown(self) -> None:
        if not hasattr(self, "bench"):
            return
        for _ in range(2):  # what is carried to its end leaves nothing in transit
            for ledger in range(3):
                for peer, command in receive_of(ledger, self.bench.under_way(ledger)):
                    reply = self.bench.ask(peer, command)
                    assert isinstance(reply, Received)
                    self.bench.ask(ledger, FinishTransfers(peer=peer, currency="EUR", sequence=command.sequence, outcome=reply.outcome))
        assert self.bench.transit() == 0
        assert not any(self.bench.under_way(ledger).batches for ledger in range(3))


TestSending = Sending.TestCase
TestSending.settings = settings(max_examples=40, stateful_step_count=30)


async def _books(system: object) -> list[Books]:
    found = await asyncio.gather(*(system.ask(Address("ledger", "demo", str(i)), GetBooks()) for i in range(LEDGERS)))  # type: ignore[attr-defined]
    return list(found)


@pytest.mark.parametrize("kill_after", range(4))
async def test_a_transfer_survives_the_death_of_a_shard_after_any_step(kill_after: int) -> None:
    """Two shards; ledgers of both; the shard of the source, then of the target, dies after step `kill_after`; a new courier takes over."""
    async with stage(shards=2) as at:
        await at.system.ask(Address("ledger", "demo", "0"), top_up(1, 8, 100))
        steps = 0

        async def die() -> None:
            nonlocal steps
            if steps == kill_after:
                for index in range(2):
                    await at.restart(index)
            steps += 1

        await at.system.ask(Address("ledger", "demo", "0"), send((2, 8, 9, 30), (3, 8, 10, 20)))
        await die()
        way = await at.system.ask(Address("ledger", "demo", "0"), GetUnderWay())
        assert isinstance(way, UnderWay)
        [(peer, command), _] = receive_of(0, way)
        await die()
        received = await at.system.ask(Address("ledger", "demo", str(peer)), command)
        assert isinstance(received, Received)
        await die()
        await at.system.ask(
            Address("ledger", "demo", "0"), FinishTransfers(peer=peer, currency="EUR", sequence=command.sequence, outcome=received.outcome)
        )  # fmt: skip
        await die()
        courier = TransferCourier(at.system)
        await courier.sweep([("demo", ledger) for ledger in range(LEDGERS)])
        balances = [await at.system.ask(Address("ledger", "demo", str(subject % LEDGERS)), GetBalance(subject=subject)) for subject in (8, 9, 10)]
        assert balances == [Balance(balances={"EUR": amount}) for amount in (50, 30, 20)]
        books = await _books(at.system)
        assert not any(any(b.total.values()) for b in books)
        assert sum(b.transit.get("EUR", 0) for b in books) == 0


@pytest.mark.parametrize("restart", [False, True])
async def test_a_transfer_arrives_by_itself_after_a_takeover_too(restart: bool) -> None:
    """A courier of each shard, as their processes run them. Nobody asks the ledgers anything: their reminder brings them into memory."""
    async with stage(shards=2) as at:
        await at.system.ask(Address("ledger", "demo", "0"), top_up(1, 8, 100))
        await at.system.ask(Address("ledger", "demo", "0"), send((2, 8, 9, 30)))
        if restart:
            for index in range(2):
                await at.restart(index)
                await at.system.shards[index].reopened()
        couriers = [TransferCourier(at.system) for _ in at.system.shards]
        tasks = [asyncio.create_task(courier.attend(shard.under_way)) for courier, shard in zip(couriers, at.system.shards, strict=True)]
        try:
            async with asyncio.timeout(60):
                while sum(courier.finished for courier in couriers) < 1:
                    await at.poll(0.05)
                    await asyncio.sleep(0.01)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert await at.system.ask(Address("ledger", "demo", "1"), GetBalance(subject=9)) == Balance(balances={"EUR": 30})
        assert not any(shard.under_way() for shard in at.system.shards)

        async def fired_after_a_minute() -> int:
            at.clock.advance(61.0)
            for shard in at.system.shards:
                await shard.renew()
            await at.poll(0.1)
            return sum(shard.profile().reminders for shard in at.system.shards)

        fired = await fired_after_a_minute()
        assert fired == await fired_after_a_minute() > 0, "the reminder is over with the transfer"


async def test_a_ledger_that_is_away_is_left_for_later() -> None:
    async with stage() as at:
        courier = TransferCourier(at.system)
        await at.system.shards[0].stop()
        with pytest.raises(Unavailable):
            await courier.carry("demo", 0)
        assert await courier.sweep([("demo", 0), ("demo", 1)]) == 0
        assert courier.failures == 2
