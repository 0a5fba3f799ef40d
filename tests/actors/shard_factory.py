"""What the composition root does for a shard, for tests with real services: drivers, shard, start."""

from __future__ import annotations

import os
import secrets

from actors.directory import partitions_of, shard_name
from actors.shard import Shard
from actors.warm_up import warm_up
from esplanade.core.clock import RealClock
from esplanade.storage.postgres import PostgresJournal
from esplanade.storage.postgres_catalogue import PostgresCatalogue
from esplanade.storage.redis import RedisBroker


async def make_shard(index: int, shards: int, postgres_url: str, redis_url: str) -> Shard:
    warm_up()
    journal, catalogue = await PostgresJournal.open(postgres_url), await PostgresCatalogue.open(postgres_url)
    shard = Shard(
        name=shard_name(index),
        owner=f"{shard_name(index)}:{os.getpid()}:{secrets.token_hex(4)}",
        partitions=partitions_of(index, shards),
        journal=journal,
        catalogue=catalogue,
        broker=await RedisBroker.open(redis_url),
        clock=RealClock(),
        secret=await catalogue.secret("pseudonyms", secrets.token_bytes(32)),
        pid=os.getpid(),
    )
    await shard.start()
    return shard
