"""A shard or several on memory drivers, for tests: one database, catalogue and broker, shards that can be killed and started anew."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from actors.directory import owner_name, partitions_of, shard_name
from actors.local_system import LocalSystem
from actors.process_memory import Memory
from actors.shard import Shard, ShardSettings
from actors.topics import Body, Publication, channel
from esplanade.core.clock import ManualClock
from esplanade.storage.memory import MemoryBroker, MemoryCatalogue, MemoryHub, MemoryJournal, MemoryStore, MemorySubjectKeys, MemorySubscription
from esplanade.storage.sealing import Keyring
from tests.actors.parkside import document

_PUBLICATION = msgspec.msgpack.Decoder(Publication)
_BODY: msgspec.msgpack.Decoder[Body] = msgspec.msgpack.Decoder(Body)


class Stage:
    def __init__(self, *, shards: int = 1, settings: ShardSettings | None = None) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(self.clock)
        self.catalogue = MemoryCatalogue(self.clock)
        self.hub = MemoryHub(self.clock)
        self.broker = MemoryBroker(self.hub)
        self.keys = MemorySubjectKeys()
        self.keyring = Keyring(self.keys, b"m" * 32, os.urandom)
        self.settings = settings or ShardSettings()
        self.memory: Memory | None = None
        self.count = shards
        self.journals: list[MemoryJournal] = []
        self.system = LocalSystem([])
        self._starts = 0
        self._heard: list[Heard] = []

    def _make(self, index: int) -> Shard:
        self._starts += 1
        journal = MemoryJournal(self.store)
        if index < len(self.journals):
            self.journals[index] = journal
        else:
            self.journals.append(journal)
        return Shard(
            name=shard_name(index),
            owner=owner_name(shard_name(index), str(self._starts)),
            partitions=partitions_of(index, self.count),
            journal=journal,
            catalogue=self.catalogue,
            broker=self.broker,
            clock=self.clock,
            secret=b"s" * 32,
            settings=self.settings,
            keyring=self.keyring,
            memory=self.memory,
        )

    async def start(self) -> None:
        await self.catalogue.add_tenant("demo", "Demo")
        await self.catalogue.put_venue("demo", document())
        await self.catalogue.put_venue("demo", document("festival", "field"))
        for index in range(self.count):
            self.system.shards.append(self._make(index))
            await self.system.shards[index].start(background=False)

    async def restart(self, index: int = 0) -> None:
        """Kill a shard where it stands (nothing more reaches the journal from it) and start another in its place."""
        dead = self.system.shards[index]
        await self.journals[index].close()
        self.system.shards[index] = self._make(index)
        await self.system.shards[index].start(background=False)
        await dead.stop()

    async def settle(self) -> None:
        """Let everything run that can."""
        for shard in self.system.shards:
            await shard.replayed()
        for _ in range(30):
            await asyncio.sleep(0)

    async def poll(self, seconds: float = 0.0) -> None:
        self.clock.advance(seconds)
        for shard in self.system.shards:
            shard.poll()
        await self.settle()

    async def listen(self, *topics: str) -> Heard:
        subscription = await self.broker.subscribe()
        await subscription.add([channel("demo", topic) for topic in topics])
        self._heard.append(Heard(subscription))
        return self._heard[-1]


class Heard:
    """What came on a subscription so far."""

    def __init__(self, subscription: MemorySubscription) -> None:
        self._messages = aiter(subscription)
        self._next: asyncio.Future[tuple[str, bytes]] | None = None

    async def all(self) -> list[tuple[Publication, Any]]:
        found: list[tuple[Publication, Any]] = []
        while True:
            if self._next is None:
                self._next = asyncio.ensure_future(anext(self._messages))
            for _ in range(50):
                await asyncio.sleep(0)
            if not self._next.done():
                return found
            _, message = self._next.result()
            self._next = None
            publication = _PUBLICATION.decode(message)
            found.append((publication, _BODY.decode(publication.body)))

    async def close(self) -> None:
        if self._next is not None:
            self._next.cancel()
            await asyncio.gather(self._next, return_exceptions=True)


@asynccontextmanager
async def stage(*, shards: int = 1, settings: ShardSettings | None = None) -> AsyncIterator[Stage]:
    made = Stage(shards=shards, settings=settings)
    await made.start()
    try:
        yield made
    finally:
        for shard in made.system.shards:
            await shard.stop()
        for heard in made._heard:
            await heard.close()
