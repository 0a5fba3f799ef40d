"""Snapshots beside flushes: how many are on their way at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from actors.flusher import MAX_SNAPSHOT_BYTES_AT_ONCE, SNAPSHOTS_AT_ONCE, Flusher
from esplanade.core.clock import RealClock
from esplanade.storage.journal import Event, Snapshot
from esplanade.storage.memory import MemoryJournal, MemoryStore


class _Log:
    """A log of which a snapshot is always due, of a given size."""

    def __init__(self, partition: int, size: int) -> None:
        self.tenant, self.partition, self.epoch, self.position = "demo", partition, 1, 0
        self.size = size
        self.grown = 0

    def grow(self, events: int, size: int, now_s: float) -> None:
        self.grown += events

    def snapshot_due(self, now_s: float) -> bytes | None:
        return bytes(self.size)


class _Disk(MemoryJournal):
    """Keeps snapshots when it is told to."""

    def __init__(self) -> None:
        super().__init__(MemoryStore(RealClock()))
        self.go = asyncio.Event()
        self.under_way: list[int] = []
        self.most = 0

    async def put_snapshot(self, snapshot: Snapshot) -> None:
        self.under_way.append(snapshot.partition)
        self.most = max(self.most, len(self.under_way))
        await self.go.wait()
        await super().put_snapshot(snapshot)
        self.under_way.remove(snapshot.partition)


@contextlib.asynccontextmanager
async def _flushing() -> AsyncIterator[tuple[_Disk, Flusher]]:
    disk = _Disk()
    await disk.acquire(range(8), "a", ttl_ms=60_000)
    flusher = Flusher(disk, monotonic_s=RealClock().monotonic_s, lost=lambda *_: None, send=lambda *_: None)
    running = asyncio.create_task(flusher.run())
    try:
        yield disk, flusher
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _flush(flusher: Flusher, logs: list[_Log]) -> None:
    for log in logs:
        flusher.append(log, [Event(f"mall/demo/{log.partition}", log.position + 1, "offer_created.v1", b"")])
    assert await asyncio.gather(*(flusher.settled(log) for log in logs)) == [None] * len(logs)


async def test_of_large_snapshots_one_is_on_its_way_and_the_others_are_due_again() -> None:
    async with _flushing() as (disk, flusher):
        logs = [_Log(partition, MAX_SNAPSHOT_BYTES_AT_ONCE) for partition in range(3)]
        await _flush(flusher, logs)
        await _flush(flusher, logs)
        assert len(disk.under_way) == 1, "a second flush makes none beside it"
        assert [log.grown for log in logs] == [2, 2, 2], "and loses no count"
        disk.go.set()
        await flusher.drained()
        await _flush(flusher, logs)
        await flusher.drained()
        assert (disk.most, len(disk.store.snapshots), flusher.counts.snapshots) == (1, 1, 2)


async def test_small_snapshots_leave_connections_for_others() -> None:
    async with _flushing() as (disk, flusher):
        logs = [_Log(partition, 1_000) for partition in range(8)]
        await _flush(flusher, logs)
        await asyncio.sleep(0)
        disk.go.set()
        await flusher.drained()
        assert disk.most == SNAPSHOTS_AT_ONCE
        assert len(disk.store.snapshots) == flusher.counts.snapshots == len(logs)
