"""The hub over a real PostgreSQL and a real Redis: what the memory drivers let us believe holds there too."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
import redis.asyncio

from actors import topics as t
from esplanade.storage.journal import Append, OutboxEntry
from esplanade.storage.postgres import PostgresJournal
from esplanade.storage.redis import RedisBroker
from gateway import frames as f
from gateway.auth import TopicName
from gateway.hub import Hub
from gateway.presence import REPEAT_S
from tests.gateway.mall import until
from tests.gateway.test_hub import Reader, World, stats

pytestmark = pytest.mark.services


class RealWorld(World):
    """As `World`, with a tenant of its own in the shared Redis and messages that take time."""

    def __init__(self, journal: PostgresJournal, broker: RedisBroker) -> None:
        super().__init__()
        self.real = journal
        self.redis = broker
        self.hub = Hub(system=self.system, journal=journal, broker=broker, clock=self.clock, metrics=self.metrics)  # type: ignore[arg-type]

    async def durable(self, topic: str, body: t.Body, *, publish: bool = True) -> None:
        [lease] = await self.real.acquire([0], "test", ttl_ms=60_000)
        append = Append("demo", 0, lease.epoch, (await self.real.heads(0)).get("demo", 0) + 1, ())
        [entry] = await self.real.flush([append], [OutboxEntry("demo", topic, msgspec.msgpack.encode(body))])
        if publish:
            await self.publish(topic, body, entry.epoch, entry.offset)

    async def publish(self, topic: str, body: t.Body, epoch: int = 0, offset: int = 0) -> None:
        message = msgspec.msgpack.encode(t.Publication(topic, epoch, offset, msgspec.msgpack.encode(body)))
        await self.redis.publish([(t.channel("demo", topic), message)])


async def test_pushes_gaps_resumes_and_a_lost_redis_connection(postgres_url: str, redis_url: str) -> None:
    journal, broker = await PostgresJournal.open(postgres_url), await RedisBroker.open(redis_url)
    world = RealWorld(journal, broker)
    await world.hub.start()
    admin = redis.asyncio.Redis.from_url(redis_url, protocol=2)
    try:
        seven = Reader(7)
        await world.attach(seven)
        await world.join(seven, "venue/v/stats", 10.0)
        await world.pushes(1, [(0, 7), (1, 8)])
        await until(lambda: seven.ticks("push") == [1])
        await world.publish("venue/v/stats", stats(1))
        await until(lambda: seven.ticks("stats") == [1])
        await world.pushes(2, [(0, 7)], publish=False)
        await world.pushes(3, [(0, 7)])
        await until(lambda: seven.ticks("push") == [1, 2, 3])
        await admin.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        await world.pushes(4, [(0, 7)])
        await until(lambda: seven.ticks("push") == [1, 2, 3, 4])
        await until(lambda: world.metrics.value("esplanade_gateway_broker_losses_total") >= 1)
        world.clock.advance(1.0)
        async with asyncio.timeout(20):
            while seven.ticks("stats") == [1]:
                await world.publish("venue/v/stats", stats(2))
                await asyncio.sleep(0.05)
        eight = Reader(7)
        assert await world.attach(eight, resume=f.Place(*seven_place(seven, 2)))
        assert eight.ticks("push") == [3, 4]
        stranger = Reader(7)
        assert not await world.attach(stranger, resume=f.Place(99, 1))
    finally:
        await world.hub.stop()
        await admin.aclose()
        await broker.close()
        await journal.close()


def seven_place(reader: Reader, tick: int) -> tuple[int, int]:
    """Where the push of a tick stands."""
    [place] = [frame["place"] for frame in reader.frames if frame["op"] == "push" and frame["tick"] == tick]
    return place["epoch"], place["offset"]


async def test_who_reads_a_topic_is_known_over_a_real_redis_and_gone_with_its_gateway(postgres_url: str, redis_url: str) -> None:
    journal, brokers = await PostgresJournal.open(postgres_url), [await RedisBroker.open(redis_url) for _ in range(2)]
    world = RealWorld(journal, brokers[0])
    one, two = (
        Hub(system=world.system, journal=journal, broker=broker, clock=world.clock, metrics=world.metrics, name=name)  # type: ignore[arg-type]
        for name, broker in zip(("one", "two"), brokers, strict=True)
    )
    topic = "venue/v/scene/hall"
    try:
        for hub in (one, two):
            await hub.start()
        desk, phone = Reader(9, "operator"), Reader(7)
        for hub, reader in ((one, desk), (two, phone)):
            await hub.join(reader, tenant="demo", topic=topic, name=TopicName.parse(topic), rate_hz=2.0)
            reader.session.topics[topic] = 2.0
        async with asyncio.timeout(20):
            while (told := await one.presence.answer(desk, f.GetMembers(seq=1, topic=topic, watch=True))).count != 2:
                world.clock.advance(REPEAT_S)
        assert {member.client for member in told.members} == {"7:c", "9:c"}
        await two.stop()
        await until(lambda: any(frame["op"] == "members_changed" and frame["count"] == 1 for frame in desk.frames))
    finally:
        await one.stop()
        await two.stop()
        for broker in brokers:
            await broker.close()
        await journal.close()
