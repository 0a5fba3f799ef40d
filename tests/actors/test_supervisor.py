"""The supervisor over shards in this process: what hangs is found, whether it owns anything or not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actors.directory import Directory, encode_leases, owner_name
from actors.shard import Shard, ShardSettings
from actors.supervisor import Supervisor, SupervisorSettings
from esplanade.core.clock import RealClock
from esplanade.core.errors import Unavailable
from esplanade.core.ids import PARTITIONS
from esplanade.storage.memory import MemoryBroker, MemoryCatalogue, MemoryHub, MemoryJournal, MemoryStore

LEASE_S = 0.4
LIMIT_S = 60.0


class Child:
    """A shard that runs as a process would: it can hang, and be ended, whereupon another start of it takes its place."""

    def __init__(self, name: str, store: MemoryStore) -> None:
        self.name = name
        self.starts = 0
        self.kills = 0
        self._store = store
        self._gone = asyncio.Event()
        self._runs = asyncio.Event()

    async def begin(self) -> None:
        self.starts += 1
        clock = RealClock()
        self.shard = Shard(
            name=self.name, owner=owner_name(self.name, str(self.starts)), journal=MemoryJournal(self._store), catalogue=MemoryCatalogue(clock),
            broker=MemoryBroker(MemoryHub(clock)), clock=clock, secret=b"s" * 32, settings=ShardSettings(lease_ttl_ms=round(LEASE_S * 1000)),
        )  # fmt: skip
        await self.shard.start()
        self._gone = asyncio.Event()
        self._runs.set()

    async def hang(self) -> None:
        self._runs.clear()
        await self.shard.stop()

    async def call(self, method: str, *arguments: Any) -> Any:
        gone = self._gone
        waiting = [asyncio.ensure_future(self._runs.wait()), asyncio.ensure_future(gone.wait())]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        if gone.is_set():
            raise Unavailable(f"{self.name} is away")
        if method == "owner":
            return self.shard.owner
        done = await getattr(self.shard, method)(*arguments)
        return encode_leases(done) if method == "take" else done

    async def ended(self) -> None:
        await self._gone.wait()

    async def kill(self) -> None:
        self.kills += 1
        gone = self._gone
        await self.shard.stop()
        await self.begin()
        gone.set()


async def test_a_hung_spare_and_a_hung_owner_are_each_ended_once_and_replaced() -> None:
    """A spare holds no lease that could run out: it was never found, and whoever died next had no heir."""
    store = MemoryStore(RealClock())
    children = [Child(f"shard-{i}", store) for i in range(3)]
    for child in children:
        await child.begin()
    journal = MemoryJournal(store)
    supervisor = Supervisor(list(children), Directory(), journal, RealClock(), SupervisorSettings(wanted=2, spares=1, lease_ttl_s=LEASE_S))

    async def owners() -> set[str]:
        return {lease.owner for lease in await journal.leases()}

    async with asyncio.timeout(LIMIT_S):
        await supervisor.start()
        assert await owners() == {"shard-0@1", "shard-1@1"}
        await children[2].hang()
        while children[2].starts < 2:
            await asyncio.sleep(0.02)
        assert [child.kills for child in children] == [0, 0, 1]
        await children[0].hang()
        while "shard-0@1" in await owners() or children[0].starts < 2:
            await asyncio.sleep(0.02)
        await supervisor.settled()
        assert "shard-1@1" in await owners()
        assert len(await journal.leases()) == PARTITIONS
        assert [child.kills for child in children] == [1, 0, 1]
    await supervisor.stop()
    for child in children:
        await child.shard.stop()


async def test_a_drained_shard_without_heirs_is_not_settled_until_one_comes() -> None:
    store = MemoryStore(RealClock())
    children = [Child(f"shard-{i}", store) for i in range(2)]
    for child in children:
        await child.begin()
    journal = MemoryJournal(store)
    supervisor = Supervisor([children[0]], Directory(), journal, RealClock(), SupervisorSettings(wanted=1, spares=0, lease_ttl_s=LIMIT_S))
    async with asyncio.timeout(LIMIT_S):
        await supervisor.start()
        supervisor.settings.leaving.add("shard-0")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await supervisor.settled()
        supervisor.add(children[1])
        await supervisor.settled()
        assert {lease.owner for lease in await journal.leases()} == {"shard-1@1"}
    await supervisor.stop()
    for child in children:
        await child.shard.stop()
