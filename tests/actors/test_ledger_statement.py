"""Statements from the journal: every movement of an account with its running balance, in pages, by day, and equal to what the ledger says."""

from __future__ import annotations

import numpy as np
import pytest

from actors import ledger_codes as c
from actors.ledger_statement import Cursor, Line, Statement, statement
from actors.messages import Accounts, CloseDay, Command, GetAccount, Payments, TopUps
from actors.saga import TransferCourier
from esplanade.core.errors import Fault, InvalidInput
from esplanade.core.ids import Address, partition_of
from esplanade.storage.journal import Append, Event
from tests.actors.ledger_model import HOLD, MOVE, POST, REFUND, Row
from tests.actors.parkside import keys, u2, u4
from tests.actors.stage import Stage, stage
from tests.actors.test_ledger_model import command_of
from tests.actors.test_saga import freeze, send, top_up

LEDGER = Address("ledger", "demo", "0")
WALLET, TILL, OUT = c.WALLET << 60 | 8, c.TILL << 60, c.OUTSIDE << 60


async def ask(at: Stage, *commands: Command) -> None:
    for command in commands:
        await at.system.ask(LEDGER, command)


def pay(key: int, amount: int) -> Payments:
    return Payments(tick=1, venue="parkside", key=keys(key), subject=u4(8), unit=u2(0), amount=u4(amount), currency="EUR")


async def read(at: Stage, account: int = WALLET, **more: object) -> Statement:
    return await statement(at.journals[0], LEDGER, account, "EUR", venue="parkside", **more)  # type: ignore[arg-type]


def short(lines: tuple[Line, ...]) -> list[tuple[str, int, int]]:
    return [(line.what, line.amount, line.balance) for line in lines]


async def test_every_kind_of_movement_is_a_line_with_its_balance() -> None:
    async with stage() as at:
        await ask(
            at, top_up(1, 8, 100), pay(2, 30), command_of([Row(3, MOVE, ("wallet", 8), ("outside", 0), 10), Row(4, HOLD, ("wallet", 8), ("till", 0), 20)]),
            command_of([Row(5, POST, amount=15, reference=4), Row(6, REFUND, amount=5, reference=2)]), send((7, 8, 16, 1), (8, 8, 9, 2)),
        )  # fmt: skip
        await at.system.ask(Address("ledger", "demo", "1"), freeze(9))
        await TransferCourier(at.system).carry("demo", 0)
        found = await read(at)
        assert short(found.lines) == [
            ("top_up", 100, 100), ("payment", -30, 70), ("move", -10, 60), ("post", -15, 45), ("refund", 5, 50), ("move", -1, 49), ("send", -2, 47),
            ("came_back", 2, 49),
        ]  # fmt: skip
        assert (found.opening, found.closing, found.next) == (0, 49, None)
        assert [line.other for line in found.lines[:3]] == [OUT, TILL, OUT]
        assert short((await read(at, TILL)).lines) == [("payment", 30, 30), ("post", 15, 45), ("refund", -5, 40)]
        assert (await read(at, OUT)).closing == -90
        assert (await read(at, c.TRANSIT << 60 | 1)).closing == 0


async def test_pages_follow_each_other_without_a_gap_and_across_a_restart() -> None:
    async with stage() as at:
        rows = 7
        await ask(at, top_up(1, 8, 100))
        for batch in range(3):
            key = [10 + rows * batch + i for i in range(rows)]
            await ask(
                at,
                Payments(
                    tick=1, venue="parkside", key=keys(*key), subject=u4(*[8] * rows), unit=u2(*[0] * rows), amount=u4(*[1] * rows), currency="EUR"
                ),
            )
        whole = await read(at)
        await at.restart()
        lines: list[Line] = []
        after: Cursor | None = None
        while True:
            page = await read(at, after=after, limit=4)
            lines += page.lines
            if page.next is None:
                break
            after = page.next
        assert tuple(lines) == whole.lines
        assert page.closing == whole.closing == 100 - 3 * rows


async def test_a_day_opens_with_what_the_day_before_carried_forward() -> None:
    async with stage() as at:
        await ask(at, top_up(1, 8, 100), pay(2, 30), CloseDay(day=0, next_day=5), pay(3, 20), CloseDay(day=5, next_day=6), pay(4, 10))
        days = [await read(at, day=day) for day in (0, 5, 6)]
        assert [(d.opening, short(d.lines), d.closing) for d in days] == [
            (0, [("top_up", 100, 100), ("payment", -30, 70)], 70), (70, [("payment", -20, 50)], 50), (50, [("payment", -10, 40)], 40),
        ]  # fmt: skip
        page = await read(at, day=0, limit=1)
        assert short((await read(at, day=0, after=page.next)).lines) == [("payment", -30, 70)]


async def test_a_close_that_is_not_what_the_movements_say_is_a_fault() -> None:
    async with stage() as at:
        await ask(at, top_up(1, 8, 100), CloseDay(day=0, next_day=1))
        journal, partition = at.journals[0], partition_of(LEDGER)
        segments = [segment async for segment in journal.read("demo", partition)]
        closed = segments[-1].events[-1]
        forged = Event(
            closed.entity, closed.version + 1, closed.type, closed.body.replace(np.array([100], "<i8").tobytes(), np.array([99], "<i8").tobytes())
        )
        await journal.flush([Append("demo", partition, segments[-1].epoch, segments[-1].position + 1, [forged])])
        with pytest.raises(Fault, match="the journal is damaged"):
            await read(at)


async def test_statements_agree_with_the_accounts() -> None:
    """Random money among three wallets and a till: the last line is what the ledger says."""
    rng = np.random.default_rng(3)
    async with stage() as at:
        await ask(at, *(top_up(i + 1, subject, 500) for i, subject in enumerate((0, 8, 16))))
        accounts = [("wallet", 0), ("wallet", 8), ("wallet", 16), ("till", 0), ("outside", 0)]
        for batch in range(20):
            rows = []
            for i in range(10):
                debit, credit = (accounts[j] for j in rng.permutation(5)[:2])
                rows.append(Row(1000 + 10 * batch + i, MOVE, debit, credit, int(rng.integers(1, 90))))
            await ask(at, command_of(rows))
        for account in (c.WALLET << 60, WALLET, c.WALLET << 60 | 16, TILL, OUT):
            reply = await at.system.ask(LEDGER, GetAccount(account=account, venue="parkside"))
            assert isinstance(reply, Accounts)
            assert (await read(at, account, limit=8190)).closing == reply.accounts["EUR"].balance


async def test_an_account_without_movements_and_a_limit_out_of_range() -> None:
    async with stage() as at:
        await ask(at, TopUps(tick=0, key=keys(1), subject=u4(8), amount=u4(5), currency="CHF"))
        assert await read(at) == Statement(0, 0, (), None)
        with pytest.raises(InvalidInput):
            await read(at, limit=0)
