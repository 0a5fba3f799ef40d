"""Hands publications to the broker, in order, without holding up turns.

Owns a bounded queue. At its limit, or while the broker is away, publications are dropped and counted: ephemeral ones are replaced by newer ones, durable ones are
refilled from the outbox by whoever sees the gap in offsets. Nothing is dropped silently, nothing waits for the broker.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

from actors.ledger import LedgerState
from actors.partition_log import PartitionLog
from actors.topics import PaymentStats
from esplanade.core.errors import EsplanadeError
from esplanade.storage.broker import Broker

MAX_QUEUED: Final = 4_096
MAX_QUEUED_BYTES: Final = 64 * 2**20
_AT_ONCE: Final = 256


class Publisher:
    def __init__(self, broker: Broker) -> None:
        self.sent = 0
        self.dropped = 0
        self._broker = broker
        self._queue: deque[tuple[str, bytes]] = deque()
        self._bytes = 0
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def send(self, channel: str, message: bytes, durable: bool) -> None:
        """Queue a publication; a durable one finds room by dropping the oldest."""
        if len(self._queue) >= MAX_QUEUED or self._bytes + len(message) > MAX_QUEUED_BYTES:
            self.dropped += 1
            if not durable or not self._queue:
                return
            self._bytes -= len(self._queue.popleft()[1])
        self._queue.append((channel, message))
        self._bytes += len(message)
        self._idle.clear()
        self._work.set()

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            await self._work.wait()
            self._work.clear()
            while self._queue:
                chunk = [self._queue.popleft() for _ in range(min(_AT_ONCE, len(self._queue)))]
                self._bytes -= sum(len(message) for _, message in chunk)
                try:
                    await self._broker.publish(chunk)
                    self.sent += len(chunk)
                except EsplanadeError:
                    self.dropped += len(chunk)
            self._idle.set()

    async def drained(self) -> None:
        await self._idle.wait()


def payment_stats(shard: str, logs: Iterable[PartitionLog]) -> Iterator[tuple[PartitionLog, PaymentStats]]:
    """One a tenant that has ledgers in these logs, with one of those logs."""
    by_tenant: dict[str, tuple[PartitionLog, list[LedgerState]]] = {}
    for log in logs:
        states = [entity.state for entity in log.ledgers]
        if log.live and states:
            by_tenant.setdefault(log.tenant, (log, []))[1].extend(states)
    for _, (log, states) in sorted(by_tenant.items()):
        volume: dict[str, int] = {}
        for state in states:
            for currency, amount in state.volume.items():
                volume[currency] = volume.get(currency, 0) + amount
        yield log, PaymentStats(
            shard=shard, payments=sum(state.payments for state in states), refused=sum(state.refused for state in states), volume=volume
        )  # fmt: skip
