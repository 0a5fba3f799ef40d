"""Reads for callers who allow staleness: one turn answers all who ask the same within the time that they allow. A hot wallet, mall or zone is then read once in that
time, however many ask.

Owns replies of reads, each no newer than what is durable, since it was a reply of `System.ask`, and no older than its asking. At MAX_HELD the reply used longest ago is dropped. What
changes state never comes here.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

from actors import messages as m
from actors.system import System
from esplanade.core.clock import SystemClock
from esplanade.core.ids import Address
from gateway.metrics import GatewayMetrics

MAX_HELD: Final = 8_192
MAX_STALE_MS: Final = 60_000

Read = m.GetBalance | m.GetAccount | m.GetBooks | m.GetOffers | m.GetParking | m.GetZone


class StaleReads:
    def __init__(self, system: System, clock: SystemClock, metrics: GatewayMetrics) -> None:
        self._system = system
        self._clock = clock
        self._metrics = metrics
        self._held: OrderedDict[tuple[Address, Read], tuple[float, asyncio.Task[m.Reply]]] = OrderedDict()
        self._asking: set[asyncio.Task[m.Reply]] = set()

    def __len__(self) -> int:
        return len(self._held)

    async def ask(self, address: Address, command: Read, *, stale_ms: int) -> m.Reply:
        """A reply that was durable at some moment of the last `stale_ms`: a held one, that of a read under way, or a new one. 0 asks anew. Raises what `System.ask` raises."""
        if stale_ms <= 0:
            return await self._system.ask(address, command)
        key = (address, command)
        now_s = self._clock.monotonic_s()
        held = self._held.get(key)
        if held is not None and now_s - held[0] <= stale_ms / 1000:
            self._metrics.count("esplanade_gateway_stale_reads_total", label="held")
            self._held.move_to_end(key)
            return await asyncio.shield(held[1])
        self._metrics.count("esplanade_gateway_stale_reads_total", label="asked")
        task = asyncio.ensure_future(self._system.ask(address, command))
        self._asking.add(task)
        self._held[key] = now_s, task
        self._held.move_to_end(key)
        if len(self._held) > MAX_HELD:
            self._held.popitem(last=False)

        def answered(done: asyncio.Task[m.Reply]) -> None:
            self._asking.discard(done)
            failed = done.cancelled() or done.exception() is not None or isinstance(done.result(), m.Rejected)
            if failed and self._held.get(key, (0.0, None))[1] is done:
                del self._held[key]  # a failure is told to those who wait for it, and to nobody later

        task.add_done_callback(answered)
        return await asyncio.shield(task)

    async def stop(self) -> None:
        """Give up what is under way."""
        asking = list(self._asking)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
