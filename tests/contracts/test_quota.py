"""What every quota store promises: processes together never take more than the limit within a window."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from esplanade.core.clock import RealClock
from esplanade.core.errors import InvalidInput, Unavailable
from esplanade.storage.quota import MemoryQuota, Quota, RedisQuota

Both = tuple[Quota, Quota]


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.services)])
async def quotas(request: pytest.FixtureRequest) -> AsyncIterator[Both]:
    if request.param == "memory":
        shared = MemoryQuota(RealClock())
        yield shared, shared
        return
    url = request.getfixturevalue("redis_url")
    both = await RedisQuota.open(url), await RedisQuota.open(url)
    yield both
    for one in both:
        await one.close()


def key() -> str:
    return f"test-{os.urandom(8).hex()}"


async def test_no_more_than_the_limit_is_granted_however_many_ask_at_once(quotas: Both) -> None:
    name = key()
    granted = await asyncio.gather(*(quotas[i % 2].take(name, 30, limit=1000, window_s=600) for i in range(50)))
    assert sum(granted) == 1000
    assert set(granted) <= {0, 10, 30}
    assert await quotas[0].take(key(), 30, limit=1000, window_s=600) == 30


async def test_a_window_ends(quotas: Both) -> None:
    name = key()
    assert await quotas[0].take(name, 5, limit=5, window_s=0.2) == 5
    async with asyncio.timeout(20):
        while not await quotas[1].take(name, 5, limit=5, window_s=0.2):
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(("wanted", "limit", "window_s"), [(0, 5, 1.0), (1, 0, 1.0), (1, 1, 0.0), (1, 1, 1e9)])
async def test_what_is_no_quota_is_refused(quotas: Both, wanted: int, limit: int, window_s: float) -> None:
    with pytest.raises(InvalidInput):
        await quotas[0].take(key(), wanted, limit=limit, window_s=window_s)


async def test_a_store_that_is_away_says_so() -> None:
    quota = await RedisQuota.open("redis://127.0.0.1:1/0")
    with pytest.raises(Unavailable):
        await quota.take("x", 1, limit=1, window_s=1)
    await quota.close()
