"""Frames of nothing but payments: what they answer and store is what the same payments do one by one, and no answer leaves before its flush has landed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from actors import ledger_kernels
from actors.messages import LEDGERS, Books, GetBooks, Payments, Settled, TopUps
from actors.payment_lane import Payment, PaymentLane
from actors.requests import Answer, Ask, Commands, Refused, Replied
from actors.shard import Shard
from esplanade.core.errors import Fault, Unavailable
from esplanade.core.ids import Address
from esplanade.storage.journal import Append
from tests.actors.parkside import keys, named, u2, u4
from tests.actors.stage import Stage, stage

TILL, NO_UNIT = 1, 999


def pay(ledger: int, key: int, *rows: tuple[int, int, int], venue: str = "parkside") -> Ask:
    """Rows of subject, unit and amount; their keys count on from `key`."""
    subjects, units, amounts = zip(*rows, strict=True)
    command = Payments(
        tick=1, venue=venue, key=keys(*range(key, key + len(rows))), subject=u4(*subjects), unit=u2(*units), amount=u4(*amounts), currency="EUR"
    )  # fmt: skip
    return Ask(Address("ledger", "demo", str(ledger)), command)


async def fund(at: Stage, ledgers: Sequence[int] = range(LEDGERS)) -> None:
    for ledger in ledgers:
        top = TopUps(tick=1, key=keys(100 + ledger), subject=u4(ledger), amount=u4(100), currency="EUR")
        assert isinstance(await at.system.ask(Address("ledger", "demo", str(ledger)), top), Settled)


def frame() -> list[Ask]:
    """Payments of every ledger, some of them refused; one again under its key; one of a ledger that is not, one of a venue that is not."""
    asks = [pay(ledger, 1_000 + 10 * ledger, (ledger, TILL, 30), (ledger, TILL, 90), (ledger, NO_UNIT, 1)) for ledger in range(LEDGERS)]
    return [
        *asks,
        pay(3, 1_030, (3, TILL, 30)),
        pay(LEDGERS, 9, (0, TILL, 1)),
        pay(1, 9_000, (1, TILL, 1), venue="nowhere"),
        pay(1, 9_001, (1, TILL, 5)),
    ]


async def stored(at: Stage) -> dict[tuple[str, int], list[tuple[str, int, str, bytes]]]:
    return {
        place: [(event.entity, event.version, event.type, bytes(event.body)) for segment in segments for event in segment.events]
        for place, segments in at.store.logs.items()
    }


@pytest.mark.parametrize("columns", [False, True])
async def test_a_frame_of_payments_does_what_they_do_one_by_one(columns: bool) -> None:
    async def answers(shard: Shard, together: bool) -> list[Answer]:
        requests = frame()
        if not together:
            return [(await shard.answer([request]))[0] for request in requests]
        found = Commands.of(requests) if columns else requests
        assert found is not None
        return await shard.answer(found)

    results = []
    for together in (False, True):
        async with stage() as at:
            [shard] = at.system.shards
            await fund(at)
            await shard.answer([pay(0, 500, (0, TILL, 1))])  # from now on the venue's document is at hand
            turns = shard.profile().turns
            results.append((await answers(shard, together), await stored(at)))
            assert shard.profile().turns == turns + len(frame()) - 1, "all but the one whose venue is not to be found"
    assert results[0] == results[1]
    found = results[1][0]
    assert [type(answer) for answer in found[-2:]] == [Refused, Replied]
    [first, again] = [answer.reply for answer in (found[3], found[LEDGERS]) if isinstance(answer, Replied)]
    assert isinstance(first, Settled)
    assert isinstance(again, Settled)
    assert (first.result[0], again.result[0], first.balance[:8]) == (0, 0, again.balance)
    assert named(first.codes, first.result)[1:] == ["exceeds_balance", "unit_not_found"]


async def test_no_answer_leaves_before_the_flush_and_one_that_fails_is_said_to_all_of_it() -> None:
    async with stage() as at:
        [shard] = at.system.shards
        await fund(at)
        await shard.answer([pay(0, 500, (0, TILL, 1))])
        gate, flush = asyncio.Event(), at.journals[0].flush

        async def held(appends: Sequence[Append], *rest: object) -> object:
            await gate.wait()
            raise Unavailable("the disk is away")

        at.journals[0].flush = held  # type: ignore[method-assign, assignment]
        asked = asyncio.ensure_future(shard.answer([pay(ledger, 2_000 + ledger, (ledger, TILL, 1)) for ledger in range(LEDGERS)]))
        for _ in range(50):
            await asyncio.sleep(0)
        assert not asked.done()
        gate.set()
        refused = await asked
        assert {answer.code for answer in refused if isinstance(answer, Refused)} == {"unavailable"}
        assert len(refused) == LEDGERS
        at.journals[0].flush = flush  # type: ignore[method-assign]
        books = [await at.system.ask(Address("ledger", "demo", str(ledger)), GetBooks()) for ledger in range(LEDGERS)]
        assert sum(book.payments for book in books if isinstance(book, Books)) == 1, "what was not durable is gone"


async def test_a_turn_that_breaks_takes_its_own_ledger_down_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage() as at:
        [shard] = at.system.shards
        await fund(at)
        await shard.answer([pay(0, 500, (0, TILL, 1))])
        settle, calls = ledger_kernels.settle_simple, []

        def breaks(*arguments: object) -> object:
            calls.append(arguments)
            if len(calls) == 3:
                raise ZeroDivisionError("as the test asked")
            return settle(*arguments)

        monkeypatch.setattr(ledger_kernels, "settle_simple", breaks)
        found = await shard.answer([pay(ledger, 3_000 + ledger, (ledger, TILL, 1)) for ledger in range(4)])
        assert [answer.code if isinstance(answer, Refused) else "" for answer in found] == ["", "", Fault.code, ""]
        [after] = await shard.answer([pay(2, 3_002, (2, TILL, 1))])
        assert isinstance(after, Replied), "its ledger was replayed"


async def test_callers_of_one_turn_of_the_loop_share_a_frame_and_a_flush_whatever_their_ledgers() -> None:
    async with stage() as at:
        [shard] = at.system.shards
        await fund(at)
        lane = PaymentLane(at.system)
        await lane.pay("demo", "parkside", "EUR", 1, Payment(bytes(15) + b"\1", 0, TILL, 1))

        async def caller(subject: int) -> None:
            for i in range(5):
                outcome = await lane.pay("demo", "parkside", "EUR", 1, Payment(bytes((9, subject, i)) + bytes(13), subject, TILL, 1))
                assert outcome.code is None

        before = shard.profile()
        await asyncio.gather(*(caller(subject) for subject in range(LEDGERS)))
        after = shard.profile()
        assert (after.flushes - before.flushes, after.turns - before.turns) == (5, 5 * LEDGERS)
        await lane.stop(5.0)
