"""Readers of durable topics who choose: by filter, and what they are owed when they are slow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgpack
import msgspec
import pytest

from actors import topics as t
from gateway import frames as f
from gateway import policies
from gateway.filters import Where
from gateway.metrics import Snapshot
from gateway.session import Join, Send, Session
from spatial.offers import Everyone, Offer
from tests.gateway.mall import until
from tests.gateway.test_hub import Reader, World, settle

OFFERS = "venue/v/offers"
KEPT = 20


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(policies, "MAX_KEPT", KEPT)
    world = World()
    await world.hub.start()
    await settle()
    yield world
    await world.hub.stop()


def changed(offer: str, *, ended: bool = False, unit: str = "u") -> t.OfferChanged:
    return t.OfferChanged(venue="v", offer=Offer(id=offer, unit_id=unit, title=offer, audience=Everyone()), ended=ended)


def told(reader: Reader) -> list[tuple[str, int]]:
    return [(frame["offer"]["id"], frame["place"]["offset"]) for frame in reader.frames if frame["op"] == "offer_state"]


def where(*tests: dict[str, Any]) -> Any:
    return msgspec.convert(tests, Where)


async def test_a_filter_holds_for_what_comes_and_for_what_was_missed(world: World) -> None:
    plain, choosy = Reader(1), Reader(2)
    await world.join(plain, OFFERS, 2.0)
    await world.join(choosy, OFFERS, 2.0, where=where({"field": "offer.unit_id", "in": ["u-3"]}))
    for i, unit in enumerate(["u-1", "u-3", "u-2", "u-3"]):
        await world.durable(OFFERS, changed(f"o{i}", unit=unit))
    assert told(plain) == [("o0", 1), ("o1", 2), ("o2", 3), ("o3", 4)]
    assert told(choosy) == [("o1", 2), ("o3", 4)]
    back = Reader(3)
    joined = await world.join(back, OFFERS, 2.0, resume=f.Place(1, 2), where=where({"field": "offer.unit_id", "in": ["u-3"]}))
    assert joined.missed is not None
    assert told(back) == [("o3", 4)]
    await world.join(choosy, OFFERS, 2.0)  # again without a filter: everything, once
    await world.durable(OFFERS, changed("o5", unit="u-9"))
    assert told(choosy) == [("o1", 2), ("o3", 4), ("o5", 5)]


async def test_a_filter_of_an_ephemeral_topic_holds(world: World) -> None:
    reader = Reader(1, "operator")
    await world.join(reader, "venue/v/zone/z", 10.0, where=where({"field": "inside", "at_least": 10}))
    for i, inside in enumerate([3, 12, 4]):
        world.clock.advance(1.0)
        body = t.ZoneCounts(venue="v", zone="z", tick=i, inside=inside, entries=0, exits=0, dwells=0, crossed=0, stayed_s=0.0, ground_m2=1.0)
        await world.publish("venue/v/zone/z", body)
    assert [frame["inside"] for frame in reader.frames] == [12]


async def test_a_slow_reader_who_keeps_the_latest_gets_the_newest_of_each_offer(world: World) -> None:
    reader = Reader(1)
    await world.join(reader, OFFERS, 2.0, policy="keep_latest")
    reader.behind = 10**6
    for i in range(30):
        await world.durable(OFFERS, changed(f"o{i % 3}", ended=i >= 27))
    assert told(reader) == []
    reader.behind = 0
    await until(lambda: len(told(reader)) == 3)
    assert told(reader) == [("o0", 28), ("o1", 29), ("o2", 30)]
    assert all(frame["ended"] for frame in reader.frames)
    await world.durable(OFFERS, changed("o9"))
    assert told(reader)[-1] == ("o9", 31), "at once again"


async def test_a_slow_reader_who_drops_the_oldest_hears_how_many(world: World) -> None:
    reader = Reader(1)
    await world.join(reader, OFFERS, 2.0, policy="drop_oldest")
    reader.behind = 10**6
    for i in range(KEPT + 5):
        await world.durable(OFFERS, changed(f"o{i}"))
    reader.behind = 0
    await until(lambda: len(told(reader)) == KEPT)
    assert reader.frames[0] == {"op": "skipped", "topic": OFFERS, "count": 5}
    assert [offset for _, offset in told(reader)] == list(range(6, KEPT + 6))


async def test_one_who_is_always_slow_is_owed_so_much_and_no_more(world: World) -> None:
    reader = Reader(1)
    await world.join(reader, OFFERS, 2.0, policy="keep_latest")
    reader.behind = 10**6
    for i in range(KEPT + 5):
        await world.durable(OFFERS, changed(f"o{i}"))
    await asyncio.sleep(0.2)
    assert reader.frames == []
    counters = msgspec.msgpack.decode(world.metrics.snapshot("p", []), type=Snapshot).counters
    assert sum(value for _, label, value in counters if label == "policy") == 5
    world.hub.drop(reader)
    reader.behind = 0
    await asyncio.sleep(0.1)
    assert reader.frames == [], "who is gone is owed nothing"


@pytest.mark.parametrize(
    ("topic", "more", "named"),
    [
        ("venue/v/scene/s", {"policy": "drop_oldest"}, "disconnect"),
        ("venue/v/anchors", {"policy": "keep_latest"}, "disconnect or drop_oldest"),
        ("venue/v/stats", {"policy": "disconnect"}, "keep_latest"),
        ("venue/v/parking", {"where": [{"field": "offer.id", "equals": "a"}]}, "free"),
        ("venue/v/dots/0", {"where": [{"field": "tick", "below": 1}], "view": {"x0": 0, "y0": 0, "x1": 1, "y1": 1}}, "view and where"),
    ],
)
def test_what_a_topic_does_not_have_is_refused_with_what_it_has(topic: str, more: dict[str, Any], named: str) -> None:
    session = session_of()
    [action] = session.receive(msgpack.packb({"op": "subscribe", "seq": 1, "topic": topic} | more), 0.0)
    assert isinstance(action, Send)
    assert isinstance(action.frame, f.Error)
    assert (action.frame.code, named in action.frame.message) == ("invalid", True), action.frame.message
    [action] = session.receive(msgpack.packb({"op": "subscribe", "seq": 2, "topic": topic}), 0.0)
    assert isinstance(action, Join), "and nothing of it stays"


def session_of() -> Session:
    return Reader(1, "operator").session
