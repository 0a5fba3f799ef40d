"""Single payments, gathered into batches by themselves: those of one turn of the loop go together, and what comes while a ledger's batch is under way goes with the next one.
Owns the queues; waits for no timer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, NamedTuple

from actors import messages
from actors.messages import LEDGERS, Payments, Rejected, Reply
from actors.system import System, settle
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


class _Queue:
    """Payments of one place. It is there as long as a batch of it is under way, or may be made in this turn of the loop or the next."""

    __slots__ = ("address", "place", "under_way", "waiting")

    def __init__(self, place: _Place) -> None:
        self.place = place
        self.address = Address("ledger", place.tenant, str(place.ledger))
        self.waiting: list[tuple[Payment, Settled]] = []
        self.under_way: list[tuple[Payment, Settled]] = []


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
        self._queues: dict[tuple[str, str, str, int | None, int], _Queue] = {}
        self._ready: list[_Queue] = []  # whose next batch is made soon
        self._asking: set[asyncio.Task[None]] = set()  # for ticks
        self._idle = asyncio.Event()
        self._idle.set()

    async def pay(self, tenant: str, venue: str, currency: str, tick: int | None, payment: Payment) -> Outcome:
        """Settle a payment; answers once durable. Raises what `System.ask` raises, LimitExceeded where too many wait."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.pay_soon(tenant, venue, currency, tick, payment, partial(settle, future))
        return await future

    def pay_soon(self, tenant: str, venue: str, currency: str, tick: int | None, payment: Payment, settled: Settled) -> None:
        """As `pay`, without a task for each: `settled` is called with what `pay` would return or raise. Raises LimitExceeded."""
        place = (tenant, venue, currency, tick, payment.subject % LEDGERS)
        queue = self._queues.get(place)
        if queue is None:
            queue = self._queues[place] = _Queue(_Place(*place))
            self._idle.clear()
            self._send_soon(queue)
        if len(queue.waiting) >= MAX_WAITING:
            raise LimitExceeded(f"{MAX_WAITING} payments wait for ledger {queue.place.ledger}; send again with the same key")
        queue.waiting.append((payment, settled))

    def _send_soon(self, queue: _Queue) -> None:
        """In the next turn of the loop but one: those who hear in this turn of a payment that is settled pay again in the next, and go along."""
        if not self._ready:
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._send_ready)
        self._ready.append(queue)

    def _send_ready(self) -> None:
        """All that are ready, so that the system carries them together."""
        ready, self._ready = self._ready, []
        for queue in ready:
            self._send(queue)

    def _send(self, queue: _Queue) -> None:
        if not queue.waiting:
            if self._queues.get(queue.place) is queue:  # none that came after this one was given up
                del self._queues[queue.place]
            if not self._queues:
                self._idle.set()
            return
        queue.under_way, queue.waiting = queue.waiting[:MAX_ROWS], queue.waiting[MAX_ROWS:]
        self._told()
        if queue.place.tick is not None:
            self._ask(queue, queue.place.tick)
            return
        task = asyncio.ensure_future(self._ask_at_tick(queue))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _ask_at_tick(self, queue: _Queue) -> None:
        batch = queue.under_way
        try:
            tick = await self._tick_of(queue.place.tenant, queue.place.venue)
        except EsplanadeError as error:
            self._answered(queue, batch, error)
        except Exception as error:
            self._answered(queue, batch, self._broken(queue, error))
        else:
            self._ask(queue, tick)

    def _ask(self, queue: _Queue, tick: int) -> None:
        """Each row's own key makes a retry safe."""
        batch, place = queue.under_way, queue.place
        try:
            keys, subjects, units, amounts = zip(*[payment for payment, _ in batch], strict=True)
            n = len(batch)
            command = Payments(
                tick=tick, venue=place.venue, currency=place.currency, key=b"".join(keys), subject=struct.pack(f"<{n}I", *subjects),
                unit=struct.pack(f"<{n}H", *units), amount=struct.pack(f"<{n}I", *amounts),
            )  # fmt: skip
            self._system.ask_soon(queue.address, command, partial(self._answered, queue, batch))
        except Exception as error:
            self._answered(queue, batch, self._broken(queue, error))

    def _answered(self, queue: _Queue, batch: list[tuple[Payment, Settled]], reply: Reply | EsplanadeError) -> None:
        if queue.under_way is not batch:
            return  # given up here meanwhile
        queue.under_way = []
        self._send_soon(queue)
        if isinstance(reply, messages.Settled) and len(reply.balance) == 8 * len(reply.result) == 8 * len(batch):
            codes = reply.codes
            balances = struct.unpack(f"<{len(batch)}q", reply.balance)
            for (_, settled), code, balance in zip(batch, reply.result, balances, strict=True):
                settled(Outcome(codes[code - 1] if code else None, balance))
        elif isinstance(reply, Rejected):
            for _, settled in batch:
                settled(Outcome(reply.code, 0))
        else:
            error = reply if isinstance(reply, EsplanadeError) else Fault(f"{queue.address} answered {type(reply).__name__} to {len(batch)} payments")
            for _, settled in batch:
                settled(error)

    def _broken(self, queue: _Queue, error: Exception) -> Fault:
        _log.error("payments_failed", exc_info=error, extra={"tenant": queue.place.tenant, "venue": queue.place.venue})
        return Fault(f"payment lane: {type(error).__name__}: {error}")

    async def _asked_tick(self, tenant: str, venue: str) -> int:
        return (await self._system.clock(tenant, venue)).tick

    async def stop(self, timeout_s: float) -> None:
        """Let what waits go, for a while; then give up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        for task in list(self._asking):
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)
        given_up = Unavailable("the payment was given up here; send it again with the same key")
        given, self._queues = list(self._queues.values()), {}
        self._idle.set()
        for queue in given:
            batch, queue.under_way, queue.waiting = [*queue.under_way, *queue.waiting], [], []
            for _, settled in batch:
                settled(given_up)
