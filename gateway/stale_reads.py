"""Reads for callers who allow staleness: one turn answers all who ask the same within the time that they allow. A hot wallet, mall or zone is then read once in that
time, however many ask.

Owns replies of reads, each no newer than what is durable, since it was a reply of the system, and no older than its asking. At MAX_HELD the reply used longest ago is dropped. What
changes state never comes here.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from functools import partial
from typing import Final

from actors import messages as m
from actors.system import System, Then, settle
from esplanade.core.clock import SystemClock
from esplanade.core.errors import EsplanadeError, Unavailable
from esplanade.core.ids import Address
from gateway.metrics import GatewayMetrics

MAX_HELD: Final = 8_192
MAX_STALE_MS: Final = 60_000

Read = m.GetBalance | m.GetAccount | m.GetBooks | m.GetOffers | m.GetParking | m.GetZone


class _Held:
    """A read: when it was asked, its reply once there is one, and who waits for it until then."""

    __slots__ = ("asked_s", "reply", "waiting")

    def __init__(self, asked_s: float, first: Then) -> None:
        self.asked_s = asked_s
        self.reply: m.Reply | None = None
        self.waiting: list[Then] = [first]


class StaleReads:
    def __init__(self, system: System, clock: SystemClock, metrics: GatewayMetrics) -> None:
        self._system = system
        self._clock = clock
        self._metrics = metrics
        self._held: OrderedDict[tuple[Address, Read], _Held] = OrderedDict()
        self._asking: set[_Held] = set()

    def __len__(self) -> int:
        return len(self._held)

    async def ask(self, address: Address, command: Read, *, stale_ms: int) -> m.Reply:
        """A reply that was durable at some moment of the last `stale_ms`: a held one, that of a read under way, or a new one. 0 asks anew. Raises what `System.ask` raises."""
        if stale_ms <= 0:
            return await self._system.ask(address, command)
        future: asyncio.Future[m.Reply] = asyncio.get_running_loop().create_future()
        self.ask_soon(address, command, partial(settle, future), stale_ms=stale_ms)
        return await future

    def ask_soon(self, address: Address, command: Read, then: Then, *, stale_ms: int) -> None:
        """As `ask`, without a task: `then` is called with what `ask` would return or raise, at once where that is held."""
        if stale_ms <= 0:
            self._system.ask_soon(address, command, then)
            return
        key = (address, command)
        now_s = self._clock.monotonic_s()
        held = self._held.get(key)
        if held is not None and now_s - held.asked_s <= stale_ms / 1000:
            self._metrics.count("esplanade_gateway_stale_reads_total", label="held")
            self._held.move_to_end(key)
            if held.reply is None:
                held.waiting.append(then)
            else:
                then(held.reply)
            return
        self._metrics.count("esplanade_gateway_stale_reads_total", label="asked")
        held = self._held[key] = _Held(now_s, then)
        self._held.move_to_end(key)
        if len(self._held) > MAX_HELD:
            self._held.popitem(last=False)
        self._asking.add(held)
        self._system.ask_soon(address, command, partial(self._arrived, key, held))

    def _arrived(self, key: tuple[Address, Read], held: _Held, outcome: m.Reply | EsplanadeError) -> None:
        self._asking.discard(held)
        if not isinstance(outcome, EsplanadeError | m.Rejected):
            held.reply = outcome
        elif self._held.get(key) is held:
            del self._held[key]  # a failure is told to those who wait for it, and to nobody later
        waiting, held.waiting = held.waiting, []
        for then in waiting:
            then(outcome)

    def stop(self) -> None:
        """Give up what is under way."""
        gone = Unavailable("the gateway stops: ask again elsewhere")
        for held in list(self._asking):
            waiting, held.waiting = held.waiting, []
            for then in waiting:
                then(gone)
