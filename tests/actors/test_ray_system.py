"""The system on real Ray, PostgreSQL and Redis: a shard is killed under payments, and a venue under its source."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import msgspec
import psutil
import psycopg
import pytest

from actors.directory import shard_name
from actors.messages import LEDGERS, Books, GetBooks, GetZone, Payments, Settled, TopUps, ZoneState
from actors.ray_system import ProcessHandle, RayNode, RaySystem, spawn, start_ray
from actors.topics import Body, Publication, Rewind, TickClosed, channel
from esplanade.core.errors import NotFound, Unavailable
from esplanade.core.ids import Address, partition_of
from esplanade.processes import ServiceConfig
from esplanade.storage.broker import Subscription
from esplanade.storage.postgres_catalogue import PostgresCatalogue
from esplanade.storage.postgres_migrate import migrate
from esplanade.storage.redis import RedisBroker
from tests.actors.parkside import document, keys, rows, u2, u4
from tests.services_fixtures import database_url

pytestmark = pytest.mark.services

SHARDS = 2
DECODE = msgspec.msgpack.Decoder(Publication).decode
DECODE_BODY: Callable[[bytes], Body] = msgspec.msgpack.Decoder(Body).decode


@pytest.fixture(scope="module")
def urls(postgres_server_url: str, redis_url: str) -> Iterator[tuple[str, str]]:
    with psycopg.connect(postgres_server_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE actors")
        migrate(database_url(postgres_server_url, "actors"))
        yield database_url(postgres_server_url, "actors"), redis_url
        connection.execute("DROP DATABASE actors WITH (FORCE)")


@dataclass
class Cluster:
    node: RayNode
    shards: list[ProcessHandle]


@pytest.fixture(scope="module")
def cluster(urls: tuple[str, str]) -> Iterator[Cluster]:
    node = start_ray(processes=SHARDS)
    config = ServiceConfig(
        postgres_url=urls[0], redis_url=urls[1], shards=SHARDS, host="127.0.0.1", gateway_port=0, api_port=0, local_sign_in=False,
        allowed_origins=(), console=None, max_connections=1, lease_ttl_s=5.0, tick_deadline_s=10.0,
    )  # fmt: skip
    try:
        yield Cluster(node, [spawn("esplanade.processes:ShardProcess", shard_name(i), config, i) for i in range(SHARDS)])
        pids = node.pids()
        listening = [c.laddr for pid in pids for c in psutil.Process(pid).net_connections(kind="inet") if c.status == psutil.CONN_LISTEN]
        assert listening
        assert all(address.ip.removeprefix("::ffff:") == "127.0.0.1" for address in listening), "Ray listens on loopback only"
    finally:
        node.stop()
    assert not [pid for pid in pids if psutil.pid_exists(pid)], "no process of Ray outlives its node"


@pytest.fixture
async def system(cluster: Cluster, urls: tuple[str, str]) -> RaySystem:
    catalogue = await PostgresCatalogue.open(urls[0])
    await catalogue.add_tenant("demo", "Demo")
    await catalogue.put_venue("demo", document())
    await catalogue.close()
    return RaySystem([shard.name for shard in cluster.shards])


async def replaced(shard: ProcessHandle, pid: int) -> None:
    """Returns when another process has taken the actor's place."""
    while True:
        try:
            if await shard.pid() != pid:
                return
        except Unavailable:
            pass
        await asyncio.sleep(0.05)


async def test_a_shard_killed_under_payments_loses_nothing_acked_and_doubles_nothing(system: RaySystem, cluster: Cluster) -> None:
    async def books() -> list[Books]:
        found = [await system.ask(Address("ledger", "demo", str(i)), GetBooks(), deadline_s=60) for i in range(LEDGERS)]
        return [book for book in found if isinstance(book, Books)]

    subjects = list(range(64))
    for subject in subjects:
        top = TopUps(tick=0, key=keys(10**6 + subject), subject=u4(subject), amount=u4(10_000), currency="EUR")
        await system.ask(Address("ledger", "demo", str(subject % LEDGERS)), top, deadline_s=60)

    shard = cluster.shards[0]
    pid = await shard.pid()
    acked: list[int] = []
    enough, killed = asyncio.Event(), asyncio.Event()

    async def shopper(subject: int) -> None:
        """Pays one cent at a time, each with a key of its own, retried until it is acked, until well after the kill."""
        ledger = Address("ledger", "demo", str(subject % LEDGERS))
        after = 0
        for i in range(2000):
            number = subject * 10_000 + i
            payment = Payments(tick=i, venue="parkside", key=keys(number), subject=u4(subject), unit=u2(0), amount=u4(1), currency="EUR")
            reply = await system.ask(ledger, payment, deadline_s=60)
            assert isinstance(reply, Settled)
            assert reply.result == b"\0"
            acked.append(number)
            if len(acked) == 500:
                enough.set()
            after += killed.is_set()
            if after >= 20:
                return

    async def killer() -> None:
        await enough.wait()
        os.kill(pid, signal.SIGKILL)
        killed.set()
        await replaced(shard, pid)

    await asyncio.gather(killer(), *(shopper(subject) for subject in subjects))
    assert await shard.pid() != pid
    totals = await books()
    assert sum(book.tills["EUR"] for book in totals) == len(acked) == sum(book.payments for book in totals)
    assert [book.total["EUR"] for book in totals] == [0] * LEDGERS
    profiles = await system.profile()
    assert [profile["shard"] for profile in profiles] == ["shard-0", "shard-1"]


async def test_a_position_host_killed_rewinds_its_source_and_nobody_enters_twice(system: RaySystem, cluster: Cluster, urls: tuple[str, str]) -> None:
    owner = cluster.shards[partition_of(Address("positions", "demo", "parkside")) % SHARDS]
    async with AsyncExitStack() as stack:
        broker = await RedisBroker.open(urls[1])
        stack.push_async_callback(broker.close)
        clock = await broker.subscribe()
        stack.push_async_callback(clock.close)
        await clock.add([channel("demo", "venue/parkside/clock")])

        async def hear(subscription: Subscription) -> AsyncIterator[Body]:
            async for _, message in subscription:
                yield DECODE_BODY(DECODE(message).body)

        await system.open_source("demo", "parkside", "sim", first_tick=0)

        async def send(tick: int) -> None:
            await system.take("demo", "parkside", rows((5, 0, 7.0, 19.0)), source="sim", tick=tick)
            await system.watermark("demo", "parkside", "sim", tick=tick, rows=1)

        for tick in range(75):
            await send(tick)
        heard = hear(clock)
        async for body in heard:
            if isinstance(body, TickClosed) and body.tick == 74:
                break
        pid = await owner.pid()
        os.kill(pid, signal.SIGKILL)
        async for body in heard:
            if isinstance(body, Rewind):
                break
        assert isinstance(body, Rewind)
        assert body.tick == 50
        for tick in range(body.tick + 1, 90):
            await send(tick)
        async for body in heard:
            if isinstance(body, TickClosed) and body.tick == 89:
                break
        zone = await system.ask(Address("zone", "demo", "parkside:front"), GetZone(), deadline_s=30)
        assert isinstance(zone, ZoneState)
        assert (zone.inside, zone.entries) == (1, 1)


async def test_an_error_keeps_its_class_across_processes(system: RaySystem) -> None:
    with pytest.raises(NotFound):
        await system.clock("demo", "nowhere")
