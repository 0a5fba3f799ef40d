"""Single payments, gathered into batches by themselves: what comes while a ledger's batch is under way goes with the next one. Owns the queues; waits for no timer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

import numpy as np

from actors import messages
from actors.messages import LEDGERS, Payments, Rejected
from actors.system import System
from esplanade.core.errors import EsplanadeError, Fault, LimitExceeded, Unavailable
from esplanade.core.ids import Address

_log = logging.getLogger("esplanade.actors.payment_lane")

MAX_ROWS: Final = 8_190
MAX_WAITING: Final = 65_536
"""Payments of one lane that wait; beyond, a payment is refused, to be sent again."""


class Payment(NamedTuple):
    """`key`: 16 bytes; `unit`: index into Venue.units; `amount`: minor units."""

    key: bytes
    subject: int
    unit: int
    amount: int


class Outcome(NamedTuple):
    """`code`: None when settled, else why not; `balance`: what the wallet can spend."""

    code: str | None
    balance: int


Settled = Callable[["Outcome | EsplanadeError"], None]
"""Called once, with what became of a payment or what was raised in its place. Must not raise."""


class _Place(NamedTuple):
    tenant: str
    venue: str
    currency: str
    tick: int | None
    ledger: int


TickOf = Callable[[str, str], Awaitable[int]]
"""The last closed tick of a tenant's venue. Raises what `System.clock` raises."""


class PaymentLane:
    """Payments to the ledgers of a system, one batch a ledger and tick under way. A payment is safe to repeat under its key. `told`: called for each batch.

    Payments without a tick are of the venue's own clock when their batch goes: one question for all of it, to `tick_of` (the system, where that is not said).
    """

    def __init__(self, system: System, *, told: Callable[[], None] = lambda: None, tick_of: TickOf | None = None) -> None:
        self._system = system
        self._tick_of = tick_of or self._asked_tick
        self._told = told
        self._waiting: dict[tuple[str, str, str, int | None, int], list[tuple[Payment, Settled]]] = {}  # by the fields of their _Place
        self._tasks: set[asyncio.Task[None]] = set()

    async def pay(self, tenant: str, venue: str, currency: str, tick: int | None, payment: Payment) -> Outcome:
        """Settle a payment; answers once durable. Raises what `System.ask` raises, LimitExceeded where too many wait."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def settled(outcome: Outcome | EsplanadeError) -> None:
            if future.done():
                return  # who asked has gone
            if isinstance(outcome, EsplanadeError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        self.pay_soon(tenant, venue, currency, tick, payment, settled)
        return await future

    def pay_soon(self, tenant: str, venue: str, currency: str, tick: int | None, payment: Payment, settled: Settled) -> None:
        """As `pay`, without a task for each: `settled` is called with what `pay` would return or raise. Raises LimitExceeded."""
        fields = (tenant, venue, currency, tick, payment.subject % LEDGERS)
        waiting = self._waiting.get(fields)
        if waiting is None:
            place = _Place(*fields)
            waiting = self._waiting[place] = []
            task = asyncio.ensure_future(self._run(place, waiting))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if len(waiting) >= MAX_WAITING:
            raise LimitExceeded(f"{MAX_WAITING} payments wait for ledger {fields[-1]}; send again with the same key")
        waiting.append((payment, settled))

    async def _run(self, place: _Place, waiting: list[tuple[Payment, Settled]]) -> None:
        try:
            while waiting:
                batch = waiting[:MAX_ROWS]
                del waiting[:MAX_ROWS]
                outcomes: Sequence[Outcome | EsplanadeError]
                try:
                    outcomes = await self._settle(place, [payment for payment, _ in batch])
                except EsplanadeError as error:
                    outcomes = [error] * len(batch)
                except asyncio.CancelledError:
                    batch += waiting  # those who wait behind it too
                    waiting.clear()
                    outcomes = [Unavailable("the payment was given up here; send it again with the same key")] * len(batch)
                except Exception as error:
                    _log.exception("payments_failed", extra={"tenant": place.tenant, "venue": place.venue})
                    outcomes = [Fault(f"payment lane: {type(error).__name__}: {error}")] * len(batch)
                for (_, settled), outcome in zip(batch, outcomes, strict=True):
                    settled(outcome)
        finally:
            del self._waiting[place]

    async def _settle(self, place: _Place, payments: list[Payment]) -> list[Outcome]:
        self._told()
        tick = await self._tick_of(place.tenant, place.venue) if place.tick is None else place.tick
        keys, subjects, units, amounts = zip(*payments, strict=True)
        command = Payments(
            tick=tick, venue=place.venue, currency=place.currency, key=b"".join(keys), subject=np.array(subjects, "<u4").tobytes(),
            unit=np.array(units, "<u2").tobytes(), amount=np.array(amounts, "<u4").tobytes(),
        )  # fmt: skip
        address = Address("ledger", place.tenant, str(place.ledger))
        reply = await self._system.ask(address, command)  # each row's own key makes a retry safe
        if isinstance(reply, Rejected):
            return [Outcome(reply.code, 0)] * len(payments)
        if not isinstance(reply, messages.Settled) or len(reply.result) != len(payments):
            raise Fault(f"{address} answered {type(reply).__name__} to {len(payments)} payments")
        balances = np.frombuffer(reply.balance, "<i8").tolist()
        return list(map(Outcome, [reply.codes[code - 1] if code else None for code in reply.result], balances))

    async def _asked_tick(self, tenant: str, venue: str) -> int:
        return (await self._system.clock(tenant, venue)).tick

    async def stop(self, timeout_s: float) -> None:
        """Let what waits go, for a while; then give up."""
        if self._tasks:
            _, late = await asyncio.wait(list(self._tasks), timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
