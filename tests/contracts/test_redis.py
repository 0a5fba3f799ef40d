"""What only a real Redis can show: losing the connection, and being at the limit of memory."""

from __future__ import annotations

import asyncio
import shutil

import pytest

from esplanade.core.errors import InvalidInput, LimitExceeded, Unavailable
from esplanade.storage.broker import MAX_VALUE_BYTES
from esplanade.storage.embedded import REDIS_SETTINGS, start_redis
from esplanade.storage.redis import RedisBroker
from tests.services_fixtures import open_folder

pytestmark = pytest.mark.services


async def test_losing_redis_is_told_to_readers_and_publishers_and_the_broker_recovers() -> None:
    folder = open_folder()
    server = start_redis(folder)
    try:
        broker = await RedisBroker.open(server.url)
        subscription = await broker.subscribe()
        await subscription.add(["a"])
        await broker.publish([("a", b"before")])
        messages = aiter(subscription)
        assert await asyncio.wait_for(anext(messages), 20) == ("a", b"before")
        server.stop()
        with pytest.raises(Unavailable, match="subscribe anew"):
            await asyncio.wait_for(anext(messages), 20)
        for refused in (
            broker.publish([("a", b"lost")]),
            broker.subscribe(),
            broker.get("k"),
            broker.put("k", b"v", ttl_s=1),
            subscription.add(["b"]),
        ):
            with pytest.raises(Unavailable):
                await asyncio.wait_for(refused, 20)
        await subscription.close()

        server = start_redis(folder)
        again = await broker.subscribe()
        await again.add(["a"])
        await broker.publish([("a", b"after")])
        assert await asyncio.wait_for(anext(aiter(again)), 20) == ("a", b"after")
        await again.close()
        await broker.close()
    finally:
        server.stop()
        shutil.rmtree(folder)


async def test_at_the_memory_limit_values_are_refused_and_publishing_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REDIS_SETTINGS, "maxmemory", "4mb")
    folder = open_folder()
    server = start_redis(folder)
    try:
        broker = await RedisBroker.open(server.url)
        await broker.put("first", b"kept", ttl_s=600)
        puts = [broker.put(f"big:{n}", bytes(MAX_VALUE_BYTES), ttl_s=600) for n in range(8)]
        outcomes = await asyncio.gather(*puts, return_exceptions=True)
        assert any(isinstance(outcome, LimitExceeded) for outcome in outcomes)
        assert await broker.get("first") == b"kept"  # refused, not evicted
        subscription = await broker.subscribe()
        await subscription.add(["a"])
        await broker.publish([("a", b"x")])
        assert await asyncio.wait_for(anext(aiter(subscription)), 20) == ("a", b"x")
        await subscription.close()
        await broker.close()
    finally:
        server.stop()
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("url", "error"), [("nonsense", InvalidInput), ("unix:///nowhere/redis.sock", Unavailable), ("redis://127.0.0.1:1", Unavailable)]
)
async def test_a_url_that_leads_nowhere_is_refused(url: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        await RedisBroker.open(url)
