"""Small requests into large calls: moves of many sessions into position columns, single payments into batches.

A lane is what must go in order: a venue's positions (newest wins), a ledger's payments. It waits a few milliseconds after its first row,
sends, and gathers what comes meanwhile. A full lane refuses.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np

from actors import messages as m
from actors.system import System
from esplanade.core.errors import EsplanadeError, Fault, LimitExceeded
from esplanade.core.ids import Address
from gateway.metrics import GatewayMetrics
from spatial.columns import MAX_ROWS, PositionColumns

_log = logging.getLogger("esplanade.gateway.batching")

MOVE_WAIT_S: Final = 0.005
PAY_WAIT_S: Final = 0.002
MAX_LANE_ROWS: Final = 100_000
MAX_PAY_ROWS: Final = 1_024
"""Payments in one batch; a fuller lane sends several."""
MAX_PAY_LANE: Final = 16_384

Outcome = Callable[[EsplanadeError | None], None]
PayOutcome = Callable[["tuple[str | None, int] | EsplanadeError"], None]
"""Called once with (code of the refusal or None, balance), or with what was raised in its place."""


class Tee(Protocol):
    """Gets every column frame and coalesced batch that the position host took. Must not block; keeps its own queue, with a limit."""

    def rows(self, tenant: str, venue: str, source: str | None, tick: int | None, columns: PositionColumns) -> None: ...


def tee_rows(
    tee: Tee | None, metrics: GatewayMetrics, tenant: str, venue: str, source: str | None, tick: int | None, columns: PositionColumns
) -> None:
    """Hand rows to the recorder; its failure is counted and stops nobody."""
    metrics.count("esplanade_gateway_position_rows_total", len(columns))
    metrics.count("esplanade_gateway_position_batches_total")
    if tee is not None:
        try:
            tee.rows(tenant, venue, source, tick, columns)
        except Exception:
            metrics.count("esplanade_gateway_tee_failures_total")
            _log.exception("tee_failed")


@dataclass(slots=True)
class _Group:
    """Rows of one (source, tick): the newest of each subject."""

    rows: dict[int, tuple[int, float, float]] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)


@dataclass(slots=True)
class _Lane:
    groups: dict[tuple[str | None, int | None], _Group] = field(default_factory=dict)
    waiting: int = 0
    busy: bool = False


class MoveBatcher:
    """Moves of all sessions into one `System.take` a (venue, source, tick) and few milliseconds."""

    def __init__(self, system: System, metrics: GatewayMetrics, tee: Tee | None) -> None:
        self._system = system
        self._metrics = metrics
        self._tee = tee
        self._lanes: dict[tuple[str, str], _Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def add(
        self, tenant: str, venue: str, source: str | None, tick: int | None, subject: int, row: tuple[int, float, float], outcome: Outcome
    ) -> None:
        """Queue a row (level, x, y). `outcome` is called once: with None when the host has taken it. Raises LimitExceeded."""
        lane = self._lanes.setdefault((tenant, venue), _Lane())
        if lane.waiting >= MAX_LANE_ROWS:
            raise LimitExceeded(f"venue {venue}: {lane.waiting} positions wait for its host already; send again later")
        group = lane.groups.get((source, tick))
        if group is None:
            group = lane.groups[(source, tick)] = _Group()
        group.rows[subject] = row
        group.outcomes.append(outcome)
        lane.waiting += 1
        if not lane.busy:
            lane.busy = True
            task = asyncio.ensure_future(self._run(tenant, venue, lane))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, tenant: str, venue: str, lane: _Lane) -> None:
        await asyncio.sleep(MOVE_WAIT_S)
        while lane.groups:
            groups, lane.groups, lane.waiting = lane.groups, {}, 0
            for (source, tick), group in groups.items():
                await self._take(tenant, venue, source, tick, group)
        lane.busy = False
        del self._lanes[(tenant, venue)]

    async def _take(self, tenant: str, venue: str, source: str | None, tick: int | None, group: _Group) -> None:
        n = len(group.rows)
        subject = np.fromiter(group.rows.keys(), np.uint32, n)
        level = np.fromiter((row[0] for row in group.rows.values()), np.uint8, n)
        x_m = np.fromiter((row[1] for row in group.rows.values()), np.float32, n)
        y_m = np.fromiter((row[2] for row in group.rows.values()), np.float32, n)
        failure: EsplanadeError | None = None
        for start in range(0, n, MAX_ROWS):
            part = slice(start, start + MAX_ROWS)
            columns = PositionColumns(subject[part], level[part], x_m[part], y_m[part])
            try:
                await self._system.take(tenant, venue, columns, source=source, tick=tick)
                tee_rows(self._tee, self._metrics, tenant, venue, source, tick, columns)
            except EsplanadeError as error:
                failure = error
            except Exception:
                _log.exception("take_failed", extra={"tenant": tenant, "venue": venue})
                failure = Fault(f"positions for venue {venue} failed inside the server; it is logged")
        for outcome in group.outcomes:
            outcome(failure)

    async def stop(self, timeout_s: float) -> None:
        """Let what is queued go, for a while; then give up."""
        if self._tasks:
            _, late = await asyncio.wait(list(self._tasks), timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class Payment:
    """A single payment. `unit`: index into Venue.units."""

    key: bytes
    subject: int
    unit: int
    amount: int


_PayLane = tuple[str, str, int, str, int]
"""tenant, venue, ledger, currency, tick"""


class PayBatcher:
    """Single payments to one ledger into one command: those of PAY_WAIT_S, then those that came while the last command was under way."""

    def __init__(self, system: System, metrics: GatewayMetrics) -> None:
        self._system = system
        self._metrics = metrics
        self._lanes: dict[_PayLane, list[tuple[Payment, PayOutcome]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def pay(self, tenant: str, venue: str, currency: str, tick: int, payment: Payment) -> tuple[str | None, int]:
        """(None, balance) when settled, else (code of the refusal, balance). Raises what `System.ask` raises."""
        future: asyncio.Future[tuple[str | None, int]] = asyncio.get_running_loop().create_future()

        def told(outcome: tuple[str | None, int] | EsplanadeError) -> None:
            if future.done():
                return  # who asked has gone
            if isinstance(outcome, EsplanadeError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        self.pay_soon(tenant, venue, currency, tick, payment, told)
        return await future

    def pay_soon(self, tenant: str, venue: str, currency: str, tick: int, payment: Payment, then: PayOutcome) -> None:
        """As `pay`, without a task: `then` is called with what `pay` would return or raise. Raises LimitExceeded."""
        key = (tenant, venue, payment.subject % m.LEDGERS, currency, tick)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = []
            task = asyncio.ensure_future(self._run(key, lane))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if len(lane) >= MAX_PAY_LANE:
            raise LimitExceeded(f"{len(lane)} payments wait for one ledger already; send again with the same key")
        lane.append((payment, then))

    async def _run(self, key: _PayLane, lane: list[tuple[Payment, PayOutcome]]) -> None:
        """One batch at a time: what comes while it is under way makes the next, which is then the larger the busier the ledger is."""
        try:
            await asyncio.sleep(PAY_WAIT_S)
            while lane:
                rows = lane[:MAX_PAY_ROWS]
                del lane[:MAX_PAY_ROWS]
                await self._pay(key, rows)
        finally:
            del self._lanes[key]

    async def _pay(self, key: _PayLane, rows: list[tuple[Payment, PayOutcome]]) -> None:
        try:
            results = await self._ask(key, [payment for payment, _ in rows])
        except EsplanadeError as error:
            for _, then in rows:
                then(error)
        except Exception:
            _log.exception("payments_failed", extra={"tenant": key[0], "venue": key[1]})
            for _, then in rows:
                then(Fault("the payment failed inside the server; it is logged: ask for the statement, or send again with the same key"))
        else:
            for (_, then), result in zip(rows, results, strict=True):
                then(result)

    async def _ask(self, key: _PayLane, payments: list[Payment]) -> list[tuple[str | None, int]]:
        tenant, venue, ledger, currency, tick = key
        command = m.Payments(
            tick=tick,
            venue=venue,
            key=b"".join(p.key for p in payments),
            subject=np.array([p.subject for p in payments], "<u4").tobytes(),
            unit=np.array([p.unit for p in payments], "<u2").tobytes(),
            amount=np.array([p.amount for p in payments], "<u4").tobytes(),
            currency=currency,
        )
        self._metrics.count("esplanade_gateway_payment_batches_total")
        reply = await self._system.ask(Address("ledger", tenant, str(ledger)), command)  # each row's own key makes a retry safe
        if isinstance(reply, m.Rejected):
            return [(reply.code, 0)] * len(payments)
        if not isinstance(reply, m.Settled) or len(reply.result) != len(payments):
            raise Fault(f"ledger/{tenant}/{ledger} answered {type(reply).__name__} to {len(payments)} payments")
        balance = np.frombuffer(reply.balance, "<i8").tolist()
        return [(None if code == 0 else reply.codes[code - 1], after) for code, after in zip(reply.result, balance, strict=True)]

    async def stop(self, timeout_s: float) -> None:
        if self._tasks:
            _, late = await asyncio.wait(list(self._tasks), timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
