"""What every broker promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from esplanade.core.errors import InvalidInput, Unavailable
from esplanade.storage.broker import MAX_PENDING_MESSAGES, MAX_TTL_S, MAX_VALUE_BYTES, Broker, Subscription

Brokers = tuple[Broker, Broker]


async def take(messages: AsyncIterator[tuple[str, bytes]], n: int) -> list[tuple[str, bytes]]:
    return [await asyncio.wait_for(anext(messages), 20) for _ in range(n)]


async def take_all(subscription: Subscription) -> list[tuple[str, bytes]]:
    return [message async for message in subscription]


async def ask_until_lost(subscription: Subscription) -> None:
    """The flood arrives behind our backs; whoever asks the subscription anything is told once it was too much."""
    while True:
        await subscription.add(["flood"])
        await asyncio.sleep(0)


async def test_a_subscriber_gets_what_is_published_on_its_channels_in_order(brokers: Brokers) -> None:
    first, second = brokers
    subscription = await second.subscribe()
    await subscription.add(["order:a", "order:b"])
    await first.publish([("order:a", b"%d" % n) for n in range(1_500)] + [("order:other", b"not mine"), ("order:b", bytes(range(256)))])
    got = await take(aiter(subscription), 1_501)
    assert got == [("order:a", b"%d" % n) for n in range(1_500)] + [("order:b", bytes(range(256)))]
    await subscription.close()


async def test_publications_of_one_publisher_keep_their_order_when_handed_over_at_once(brokers: Brokers) -> None:
    first, second = brokers
    subscription = await second.subscribe()
    await subscription.add(["burst"])
    await asyncio.gather(*(first.publish([("burst", b"%d" % n)]) for n in range(200)))
    assert await take(aiter(subscription), 200) == [("burst", b"%d" % n) for n in range(200)]
    await subscription.close()


async def test_nothing_is_delivered_after_a_channel_is_removed(brokers: Brokers) -> None:
    first, second = brokers
    subscription = await second.subscribe()
    await subscription.add(["removed", "kept"])
    await subscription.remove(["removed"])
    await first.publish([("removed", b"x"), ("kept", b"y")])
    assert await take(aiter(subscription), 1) == [("kept", b"y")]
    await subscription.close()


async def test_channels_are_added_while_somebody_reads(brokers: Brokers) -> None:
    first, second = brokers
    subscription = await second.subscribe()
    reading = asyncio.create_task(take(aiter(subscription), 2))
    for channel in ("late:1", "late:2"):
        await subscription.add([channel])
        await first.publish([(channel, b"x")])
    assert await reading == [("late:1", b"x"), ("late:2", b"x")]
    await subscription.add([])
    await subscription.close()


async def test_each_subscription_gets_its_own_copy(brokers: Brokers) -> None:
    first, second = brokers
    subscriptions = [await first.subscribe(), await second.subscribe(), await second.subscribe()]
    for subscription in subscriptions:
        await subscription.add(["copies"])
    await first.publish([("copies", b"x")])
    assert [await take(aiter(subscription), 1) for subscription in subscriptions] == [[("copies", b"x")]] * 3
    for subscription in subscriptions:
        await subscription.close()


async def test_a_closed_subscription_ends_its_reader_and_takes_no_more_channels(brokers: Brokers) -> None:
    subscription = await brokers[0].subscribe()
    await subscription.add(["closed"])
    reading = asyncio.create_task(take_all(subscription))
    await asyncio.sleep(0)
    await subscription.close()
    assert await asyncio.wait_for(reading, 20) == []
    with pytest.raises(Unavailable):
        await subscription.add(["more"])


async def test_a_reader_too_far_behind_is_told_to_start_over_and_others_do_not_notice(brokers: Brokers) -> None:
    first, second = brokers
    slow, quick = await second.subscribe(), await first.subscribe()
    await slow.add(["flood"])
    await quick.add(["calm"])
    batch = [("flood", b"x")] * 8_192
    for _ in range(MAX_PENDING_MESSAGES // len(batch) + 1):
        await first.publish(batch)
    await first.publish([("calm", b"y")])
    assert await take(aiter(quick), 1) == [("calm", b"y")]

    with pytest.raises(Unavailable, match="subscribe anew"):
        await ask_until_lost(slow)
    with pytest.raises(Unavailable, match="subscribe anew"):
        await take(aiter(slow), 1)
    await slow.close()
    await quick.close()


async def test_values_are_kept_until_they_expire(brokers: Brokers) -> None:
    first, second = brokers
    await first.put("value:a", b"1", ttl_s=60)
    await first.put("value:a", bytes(range(256)), ttl_s=60)
    await first.put("value:gone", b"2", ttl_s=0.001)
    assert await second.get("value:a") == bytes(range(256))
    assert await second.get("value:never") is None
    async with asyncio.timeout(20):
        while await second.get("value:gone") is not None:
            await asyncio.sleep(0.001)
    assert await second.keys("value:") == ["value:a"]


async def test_keys_takes_the_prefix_literally(brokers: Brokers) -> None:
    first, second = brokers
    for key in ("lit*:1", "lit*:2", "lit:3", "lit[a]:4", "lita:5"):
        await first.put(key, b"x", ttl_s=60)
    assert await second.keys("lit*:") == ["lit*:1", "lit*:2"]
    assert await second.keys("lit[a]") == ["lit[a]:4"]
    assert await second.keys("lit?") == []


@pytest.mark.parametrize(
    ("value", "ttl_s"), [(b"x", 0.0), (b"x", -1.0), (b"x", MAX_TTL_S + 1), (b"x", float("nan")), (bytes(MAX_VALUE_BYTES + 1), 1.0)]
)
async def test_a_value_out_of_bounds_is_refused(brokers: Brokers, value: bytes, ttl_s: float) -> None:
    with pytest.raises(InvalidInput):
        await brokers[0].put("refused", value, ttl_s=ttl_s)
    assert await brokers[1].get("refused") is None
