"""What runs in the process of a shard."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import uuid
from typing import Final

from actors.allotment_courier import AllotmentCourier
from actors.directory import encode_leases, owner_name, shard_name
from actors.partition_log import BEHAVIOURS, Behaviours
from actors.positions import HostSettings
from actors.process_memory import ProcessMemory
from actors.ray_system import RaySystem
from actors.saga import TransferCourier
from actors.shard import Shard, ShardSettings
from actors.system import FollowingSystem
from actors.warm_up import warm_up
from esplanade.core import tracing
from esplanade.core.clock import RealClock
from esplanade.identities import open_keyring
from esplanade.service_config import GC_YOUNG, ServiceConfig, begin_logs, settle_collector
from esplanade.storage.postgres import PostgresJournal
from esplanade.storage.postgres_catalogue import PostgresCatalogue
from esplanade.storage.postgres_keys import PostgresSubjectKeys
from esplanade.storage.redis import RedisBroker

_log = logging.getLogger("esplanade.shard_process")

PSEUDONYM_KEY: Final = "pseudonym-key"


def hosted(config: ServiceConfig, index: int) -> ShardProcess:
    """Factory, run inside the process."""
    return ShardProcess(config, index, system=RaySystem())


class ShardProcess:
    """A shard with its own connections, standing by until the supervisor has it take partitions. `frame` is what gateways call.

    With a `system` to ask other entities, it carries the transfers and takes of its own.
    """

    def __init__(self, config: ServiceConfig, index: int, behaviours: Behaviours = BEHAVIOURS, system: FollowingSystem | None = None) -> None:
        self._config = config
        self._behaviours = behaviours
        self._system = system
        self._courier: TransferCourier | None = None
        self._attending: list[asyncio.Task[None]] = []
        self._index = index
        self._shard: Shard | None = None
        self._journal: PostgresJournal | None = None
        self._catalogue: PostgresCatalogue | None = None
        self._broker: RedisBroker | None = None
        self._keys: PostgresSubjectKeys | None = None

    async def start(self) -> None:
        config = self._config
        begin_logs(shard_name(self._index), config)
        tracing.start(shard_name(self._index), os.environ)
        await asyncio.to_thread(warm_up)  # compiled kernels, before a turn needs one
        self._journal = await PostgresJournal.open(config.postgres_url, warm=True)
        self._catalogue = await PostgresCatalogue.open(config.postgres_url)
        self._broker = await RedisBroker.open(config.redis_url)
        self._keys = await PostgresSubjectKeys.open(config.postgres_url)
        name = shard_name(self._index)
        self._shard = Shard(
            name=name,
            owner=owner_name(name, uuid.uuid4().hex[:12]),
            journal=self._journal,
            catalogue=self._catalogue,
            broker=self._broker,
            clock=RealClock(),
            secret=await self._catalogue.secret(PSEUDONYM_KEY, os.urandom(32)),
            settings=ShardSettings(
                lease_ttl_ms=round(config.lease_ttl_s * 1000),
                max_memory_bytes=config.shard_memory_mib * 2**20,
                host=HostSettings(deadline_s=config.tick_deadline_s, speed_m_s=config.max_speed_m_s),
            ),
            pid=os.getpid(),
            node=socket.gethostname(),
            behaviours=self._behaviours,
            keyring=await open_keyring(self._keys, self._catalogue, config.master_key),
            memory=ProcessMemory(),
        )
        await self._shard.start()
        if self._system is not None:
            await self._system.follow(self._journal, self._broker)
            self._courier = TransferCourier(self._system)
            self._attending = [
                asyncio.create_task(self._courier.attend(self._shard.under_way)),
                asyncio.create_task(AllotmentCourier(self._system, RealClock()).attend(self._shard.open_allotments)),
            ]
            for task in self._attending:
                task.add_done_callback(_told)
        settle_collector(GC_YOUNG)

    async def frame(self, data: bytes) -> bytes:
        return await self.shard.frame(data)

    async def owner(self) -> str:
        """Its name in the lease table, another one at each start."""
        return self.shard.owner

    async def take(self, partitions: list[int]) -> bytes:
        """Take partitions over; returns the leases (`encode_leases`)."""
        return encode_leases(await self.shard.take(partitions))

    async def release(self, partitions: list[int]) -> None:
        await self.shard.release(partitions)

    async def profile(self) -> dict[str, object]:
        profile = self.shard.profile()
        if self._courier is not None:
            profile.transfers_finished, profile.transfer_failures = self._courier.finished, self._courier.failures
        return profile.as_dict()

    @property
    def shard(self) -> Shard:
        assert self._shard is not None, "start() comes first"
        return self._shard

    async def stop(self) -> None:
        for task in self._attending:
            task.cancel()
        await asyncio.gather(*self._attending, return_exceptions=True)
        if self._shard is not None:
            await self._shard.stop()
        if self._system is not None:
            await self._system.stop()
        for held in (self._broker, self._keys, self._catalogue, self._journal):
            if held is not None:
                await held.close()
        await asyncio.to_thread(tracing.stop)


def _told(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        _log.error("courier_failed", exc_info=task.exception())
