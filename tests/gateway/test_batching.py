"""Lanes: many small requests, few calls, and everyone hears what became of theirs."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import numpy as np
import pytest

from actors import messages as m
from actors import payment_lane
from actors.lane import RequestSystem
from actors.payment_lane import Payment, PaymentLane
from actors.system import System
from esplanade.core.errors import EsplanadeError, Fault, LimitExceeded, Unavailable
from esplanade.core.ids import Address
from gateway import batching
from gateway.batching import MoveBatcher
from gateway.metrics import GatewayMetrics
from spatial.columns import LEFT, PositionColumns


class Calls:
    """A System that records `take` and `ask`, and fails or waits when told."""

    def __init__(self) -> None:
        self.takes: list[tuple[str, str | None, int | None, dict[int, tuple[int, float, float]]]] = []
        self.asks: list[m.Payments] = []
        self.error: Exception | None = None
        self.gate: asyncio.Event | None = None

    async def take(self, tenant: str, venue: str, columns: PositionColumns, *, source: str | None, tick: int | None) -> None:
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        people = zip(columns.subject.tolist(), columns.level.tolist(), columns.x_m.tolist(), columns.y_m.tolist(), strict=True)
        self.takes.append((venue, source, tick, {subject: (level, x, y) for subject, level, x, y in people}))

    ask_soon = RequestSystem.ask_soon

    async def ask(self, address: Address, command: m.Command, **_: Any) -> m.Reply:
        assert isinstance(command, m.Payments)
        self.asks.append(command)
        if self.error is not None:
            raise self.error
        subject = np.frombuffer(command.subject, "<u4")
        assert {f"{who % m.LEDGERS}" for who in subject.tolist()} == {address.id}
        amount = np.frombuffer(command.amount, "<u4")
        refused = amount > 100
        return m.Settled(result=refused.astype(np.uint8).tobytes(), codes=("exceeds_balance",), balance=(100 - amount.astype("<i8")).tobytes())


class Outcomes:
    def __init__(self) -> None:
        self.of: dict[str, EsplanadeError | None] = {}

    def __call__(self, name: str) -> batching.Outcome:
        def outcome(error: EsplanadeError | None) -> None:
            assert name not in self.of, "answered twice"
            self.of[name] = error

        return outcome


def lanes(tee: Any = None) -> tuple[Calls, MoveBatcher, Outcomes, GatewayMetrics]:
    calls, metrics = Calls(), GatewayMetrics()
    return calls, MoveBatcher(cast(System, calls), metrics, tee), Outcomes(), metrics


async def test_rows_of_one_venue_source_and_tick_go_in_one_call_and_the_newest_of_a_subject_wins() -> None:
    calls, moves, outcome, _ = lanes()
    moves.add("demo", "v", None, None, 1, (0, 1.0, 1.0), outcome("a"))
    moves.add("demo", "v", None, None, 2, (0, 2.0, 2.0), outcome("b"))
    moves.add("demo", "v", None, None, 1, (LEFT, 0.0, 0.0), outcome("c"))
    moves.add("demo", "v", "crowd", 7, 1, (1, 3.0, 3.0), outcome("d"))
    moves.add("demo", "w", None, None, 1, (0, 4.0, 4.0), outcome("e"))
    await moves.stop(5.0)
    assert sorted(calls.takes, key=str) == [
        ("v", "crowd", 7, {1: (1, 3.0, 3.0)}),
        ("v", None, None, {1: (LEFT, 0.0, 0.0), 2: (0, 2.0, 2.0)}),
        ("w", None, None, {1: (0, 4.0, 4.0)}),
    ]
    assert outcome.of == dict.fromkeys("abcde")


async def test_rows_that_come_while_a_call_is_under_way_go_in_the_next() -> None:
    calls, moves, outcome, _ = lanes()
    calls.gate = asyncio.Event()
    moves.add("demo", "v", None, None, 1, (0, 1.0, 1.0), outcome("a"))
    await asyncio.sleep(2 * batching.MOVE_WAIT_S)
    for i in range(10):
        moves.add("demo", "v", None, None, 10 + i, (0, 1.0, 1.0), outcome(str(i)))
    assert outcome.of == {}
    calls.gate.set()
    await moves.stop(5.0)
    assert [len(take[3]) for take in calls.takes] == [1, 10]
    assert len(outcome.of) == 11


@pytest.mark.parametrize(("error", "kind"), [(Unavailable("away"), Unavailable), (RuntimeError("broken"), Fault)])
async def test_when_the_host_fails_every_row_hears_of_it_and_the_lane_goes_on(error: Exception, kind: type[EsplanadeError]) -> None:
    calls, moves, outcome, _ = lanes()
    calls.error = error
    moves.add("demo", "v", None, None, 1, (0, 1.0, 1.0), outcome("a"))
    moves.add("demo", "v", None, None, 2, (0, 1.0, 1.0), outcome("b"))
    await moves.stop(5.0)
    assert [type(outcome.of[name]) for name in "ab"] == [kind, kind]
    calls.error = None
    moves.add("demo", "v", None, None, 1, (0, 1.0, 1.0), outcome("c"))
    await moves.stop(5.0)
    assert outcome.of["c"] is None


async def test_a_full_lane_refuses_and_another_venue_does_not_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "MAX_LANE_ROWS", 3)
    _, moves, outcome, _ = lanes()
    for i in range(3):
        moves.add("demo", "v", None, None, i, (0, 1.0, 1.0), outcome(str(i)))
    with pytest.raises(LimitExceeded):
        moves.add("demo", "v", None, None, 9, (0, 1.0, 1.0), outcome("x"))
    moves.add("demo", "w", None, None, 9, (0, 1.0, 1.0), outcome("y"))
    await moves.stop(5.0)
    assert set(outcome.of) == {"0", "1", "2", "y"}


async def test_a_recorder_that_fails_stops_nobody_and_is_counted() -> None:
    class Broken:
        def rows(self, *_: Any) -> None:
            raise OSError("disk full")

    _, moves, outcome, metrics = lanes(Broken())
    moves.add("demo", "v", None, None, 1, (0, 1.0, 1.0), outcome("a"))
    await moves.stop(5.0)
    assert outcome.of == {"a": None}
    assert metrics.value("esplanade_gateway_tee_failures_total") == 1


def payment(subject: int, amount: int) -> Payment:
    return Payment(bytes([subject]) * 16, subject, 0, amount)


async def test_payments_to_one_ledger_go_in_one_command_and_each_hears_its_own_result() -> None:
    calls = Calls()
    pays = PaymentLane(cast(System, calls))
    results = await asyncio.gather(
        *(pays.pay("demo", "v", "EUR", 5, payment(subject, amount)) for subject, amount in [(1, 10), (9, 200), (17, 30), (2, 40)])
    )
    assert results == [(None, 90), ("exceeds_balance", -100), (None, 70), (None, 60)]
    assert sorted(len(command.key) // 16 for command in calls.asks) == [1, 3]


async def test_payments_of_another_tick_currency_venue_or_tenant_go_apart() -> None:
    calls = Calls()
    pays = PaymentLane(cast(System, calls))
    await asyncio.gather(
        pays.pay("demo", "v", "EUR", 5, payment(1, 1)),
        pays.pay("demo", "v", "EUR", 6, payment(1, 2)),
        pays.pay("demo", "v", "CHF", 5, payment(1, 3)),
        pays.pay("demo", "w", "EUR", 5, payment(1, 4)),
        pays.pay("other", "v", "EUR", 5, payment(1, 5)),
    )
    assert len(calls.asks) == 5


async def test_payments_without_a_tick_ask_for_it_once_a_batch_and_hear_if_it_cannot_be_told() -> None:
    calls, asked = Calls(), []

    async def tick_of(tenant: str, venue: str) -> int:
        asked.append((tenant, venue))
        if venue == "away":
            raise Unavailable("away")
        return 7

    pays = PaymentLane(cast(System, calls), tick_of=tick_of)
    results = await asyncio.gather(*(pays.pay("demo", "v", "EUR", None, payment(8, i)) for i in range(10)))
    assert results == [(None, 100 - i) for i in range(10)]
    assert ([command.tick for command in calls.asks], asked) == ([7], [("demo", "v")])
    results = await asyncio.gather(*(pays.pay("demo", "away", "EUR", None, payment(8, i)) for i in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [Unavailable] * 3


async def test_more_payments_than_fit_go_in_several_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payment_lane, "MAX_ROWS", 4)
    calls = Calls()
    pays = PaymentLane(cast(System, calls))
    results = await asyncio.gather(*(pays.pay("demo", "v", "EUR", 5, payment(8, i)) for i in range(10)))
    assert results == [(None, 100 - i) for i in range(10)]
    assert [len(command.key) // 16 for command in calls.asks] == [4, 4, 2]


async def test_a_ledger_that_is_away_is_said_to_each() -> None:
    calls = Calls()
    calls.error = Unavailable("away")
    pays = PaymentLane(cast(System, calls))
    results = await asyncio.gather(*(pays.pay("demo", "v", "EUR", 5, payment(1, i)) for i in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [Unavailable] * 3


async def test_when_the_lane_is_given_up_everyone_hears_of_it_those_behind_the_batch_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payment_lane, "MAX_ROWS", 2)

    class Never(Calls):
        async def ask(self, address: Address, command: m.Command, **_: Any) -> m.Reply:
            await asyncio.Event().wait()
            raise AssertionError

    pays = PaymentLane(cast(System, Never()))
    asked = [asyncio.create_task(pays.pay("demo", "v", "EUR", 5, payment(8, i))) for i in range(5)]
    await asyncio.sleep(0.01)
    await pays.stop(0.01)
    async with asyncio.timeout(10):
        results = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(result) for result in results] == [Unavailable] * 5
