"""Single payments, gathered into batches by themselves: what comes while a ledger's batch is under way goes with the next one. Owns the queues; waits for no timer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from actors.messages import LEDGERS, Payments, Rejected, Settled
from actors.system import System
from esplanade.core.errors import EsplanadeError, Fault, LimitExceeded
from esplanade.core.ids import Address

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


class _Place(NamedTuple):
    tenant: str
    venue: str
    currency: str
    ledger: int


@dataclass(slots=True)
class _Lane:
    waiting: list[tuple[Payment, asyncio.Future[Outcome]]]
    task: asyncio.Task[None] | None = None
    tick: int = 0


class PaymentLane:
    """Payments to the ledgers of a system, one batch a ledger under way. A payment is safe to repeat under its key."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._lanes: dict[_Place, _Lane] = {}

    async def pay(self, tenant: str, venue: str, currency: str, tick: int, payment: Payment) -> Outcome:
        """Settle a payment; answers once durable. Raises what `System.ask` raises, LimitExceeded where too many wait."""
        place = _Place(tenant, venue, currency, payment.subject % LEDGERS)
        lane = self._lanes.get(place)
        if lane is None:
            lane = self._lanes[place] = _Lane([])
        if len(lane.waiting) >= MAX_WAITING:
            raise LimitExceeded(f"{MAX_WAITING} payments wait for ledger {place.ledger}; send again with the same key")
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        lane.waiting.append((payment, future))
        lane.tick = max(lane.tick, tick)
        if lane.task is None:
            lane.task = asyncio.ensure_future(self._run(place, lane))
        return await future

    async def _run(self, place: _Place, lane: _Lane) -> None:
        while lane.waiting:
            batch = lane.waiting[:MAX_ROWS]
            del lane.waiting[:MAX_ROWS]
            try:
                outcomes = await self._settle(place, lane.tick, [payment for payment, _ in batch])
            except BaseException as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error if isinstance(error, EsplanadeError) else Fault(f"payment lane: {type(error).__name__}: {error}"))
                if not isinstance(error, Exception):
                    raise
                continue
            for (_, future), outcome in zip(batch, outcomes, strict=True):
                if not future.done():
                    future.set_result(outcome)
        del self._lanes[place]

    async def _settle(self, place: _Place, tick: int, payments: list[Payment]) -> list[Outcome]:
        keys, subjects, units, amounts = zip(*payments, strict=True)
        command = Payments(
            tick=tick, venue=place.venue, currency=place.currency, key=b"".join(keys), subject=np.array(subjects, "<u4").tobytes(),
            unit=np.array(units, "<u2").tobytes(), amount=np.array(amounts, "<u4").tobytes(),
        )  # fmt: skip
        reply = await self._system.ask(Address("ledger", place.tenant, str(place.ledger)), command)
        if isinstance(reply, Rejected):
            return [Outcome(reply.code, 0)] * len(payments)
        if not isinstance(reply, Settled) or len(reply.result) != len(payments):
            raise Fault(f"ledger/{place.tenant}/{place.ledger} answered {type(reply).__name__} to {len(payments)} payments")
        balances = np.frombuffer(reply.balance, "<i8").tolist()
        return [Outcome(reply.codes[code - 1] if code else None, balance) for code, balance in zip(reply.result, balances, strict=True)]

    async def stop(self) -> None:
        """Let what waits go."""
        await asyncio.gather(*(lane.task for lane in list(self._lanes.values()) if lane.task is not None), return_exceptions=True)
