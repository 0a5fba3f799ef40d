"""A whole service in this process for tests of runs: shards as objects, memory drivers, a real gateway on loopback. The load generator's processes are real."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from actors.directory import partitions_of, shard_of
from actors.local_system import LocalSystem
from actors.shard import Shard, ShardSettings
from esplanade.core.clock import RealClock
from esplanade.core.ids import Address, partition_of
from esplanade.storage.memory import MemoryBroker, MemoryCatalogue, MemoryHub, MemoryJournal, MemoryStore
from gateway.auth import Signer, Verifier
from gateway.server import GatewayServer
from scenarios.recording_tee import RecordingTee
from scenarios.runner import Services, local_recording

SEED = bytes(range(32))
SHARDS = 2


@dataclass(slots=True)
class House:
    services: Services
    system: LocalSystem
    journal: MemoryJournal


@asynccontextmanager
async def house() -> AsyncIterator[House]:
    """Everything started; all of it stopped on exit."""
    clock = RealClock()
    store, hub, catalogue = MemoryStore(clock), MemoryHub(clock), MemoryCatalogue(clock)
    starts = 0
    fenced: list[Shard] = []

    def shard(number: int) -> Shard:
        nonlocal starts
        starts += 1
        return Shard(
            name=f"shard-{number}",
            owner=f"shard-{number}.{starts}",
            partitions=partitions_of(number, SHARDS),
            journal=MemoryJournal(store),
            catalogue=catalogue,
            broker=MemoryBroker(hub),
            clock=clock,
            secret=SEED,
            settings=ShardSettings(),
        )

    system = LocalSystem([shard(i) for i in range(SHARDS)])
    for one in system.shards:
        await one.start()
    tee = RecordingTee()
    signer = Signer(SEED)
    gateway = GatewayServer(system, MemoryJournal(store), MemoryBroker(hub), catalogue, Verifier(signer.public_key), signer, clock, tee=tee)
    port = await gateway.start()

    async def kill(address: Address) -> str:
        """A fresh shard takes over from the one that hosts an address, without a farewell: the old one finds itself fenced off."""
        number = shard_of(partition_of(address), SHARDS)
        fenced.append(system.shards[number])
        fresh = shard(number)
        await fresh.start()
        system.shards[number] = fresh
        return fresh.name

    start, finish = local_recording(tee)
    services = Services(
        ws_url=f"ws://127.0.0.1:{port}",
        signing_seed=SEED,
        catalogue=catalogue,
        journal=MemoryJournal(store),
        clock=clock,
        profile=system.profile,
        start_recording=start,
        finish_recording=finish,
        kill_shard=kill,
        versions={"world": "one process, memory drivers"},
    )
    try:
        yield House(services, system, MemoryJournal(store))
    finally:
        await gateway.stop()
        for one in [*system.shards, *fenced]:
            await one.stop()
        tee.close()
