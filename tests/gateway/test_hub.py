"""The hub over the memory journal and broker: gaps, losses, resumes, conflation, and who gets which push."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import msgpack
import msgspec
import numpy as np
import pytest

from actors import topics as t
from actors.system import System, VenueClock
from esplanade.core.clock import ManualClock
from esplanade.core.errors import LimitExceeded, Unavailable
from esplanade.storage.journal import Append, OutboxEntry
from esplanade.storage.memory import MemoryBroker, MemoryHub, MemoryJournal, MemoryStore
from gateway import channels as channels_module
from gateway import frames as f
from gateway import hub as hub_module
from gateway.auth import Identity, TopicName
from gateway.hub import Hub, Joined
from gateway.metrics import GatewayMetrics
from gateway.permissions import Role
from gateway.session import Action, Send, Session
from spatial.offers import Everyone, Offer
from tests.gateway.mall import until

OFFERS = (Offer(id="a", unit_id="u", title="A", audience=Everyone()), Offer(id="b", unit_id="u", title="B", audience=Everyone(), flash=True))
TOPIC = "venue/v/pushes"


class Watched:
    """The two calls that the hub makes of a System."""

    def __init__(self) -> None:
        self.watched: list[dict[str, float]] = []
        self.now = VenueClock(tick=5, epoch=1, driven=True, late_rows=0, late_ticks=0)

    async def watch(self, tenant: str, venue: str, topics: dict[str, float]) -> None:
        self.watched.append(topics)

    async def clock(self, tenant: str, venue: str) -> VenueClock:
        return self.now


class Reader:
    """A peer that keeps what is written to it."""

    def __init__(self, subject: int, role: Role = "shopper", source: str | None = None) -> None:
        self.session = Session(f"s{subject}", "msgpack", 0.0)
        self.session.receive(msgpack.packb({"op": "hello", "client": "c"}), 0.0)
        self.session.admit(Identity(subject, "demo", role, source, 1e12), now=0.0, now_ms=0)
        self.frames: list[dict[str, Any]] = []
        self.behind = 0

    def perform(self, actions: list[Action]) -> None:
        for action in actions:
            assert isinstance(action, Send)
            self.write(self.session.codec.encode(action.frame))

    def write(self, encoded: bytes) -> None:
        self.frames.append(msgpack.unpackb(encoded))

    def backlog(self) -> int:
        return self.behind

    def ids(self) -> list[str]:
        return [frame["id"] for frame in self.frames if frame["op"] == "push"]

    def ticks(self, op: str) -> list[int]:
        return [frame["tick"] for frame in self.frames if frame["op"] == op]


class World:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(self.clock)
        self.journal = MemoryJournal(self.store)
        self.broker = MemoryBroker(MemoryHub(self.clock))
        self.system = Watched()
        self.metrics = GatewayMetrics()
        self.hub = Hub(system=cast(System, self.system), journal=self.journal, broker=self.broker, clock=self.clock, metrics=self.metrics)

    async def pushes(self, tick: int, rows: list[tuple[int, int]], *, publish: bool = True, topic: str = TOPIC) -> None:
        """Make a batch of (offer index, subject) rows durable, and publish it unless the broker is to lose it."""
        body = t.PushBatch(
            venue="v",
            tick=tick,
            offers=OFFERS,
            offer=np.array([o for o, _ in rows], "<u2").tobytes(),
            subject=np.array([s for _, s in rows], "<u4").tobytes(),
        )
        await self.durable(topic, body, publish=publish)

    async def durable(self, topic: str, body: t.Body, *, publish: bool = True) -> None:
        [lease] = await self.journal.acquire([0], "test", ttl_ms=10_000)
        append = Append("demo", 0, lease.epoch, (await self.journal.heads(0)).get("demo", 0) + 1, ())
        [entry] = await self.journal.flush([append], [OutboxEntry("demo", topic, msgspec.msgpack.encode(body))])
        if publish:
            await self.publish(topic, body, entry.epoch, entry.offset)

    async def publish(self, topic: str, body: t.Body, epoch: int = 0, offset: int = 0) -> None:
        message = msgspec.msgpack.encode(t.Publication(topic, epoch, offset, msgspec.msgpack.encode(body)))
        await self.broker.publish([(t.channel("demo", topic), message)])
        await settle()

    async def attach(self, reader: Reader, *, resume: f.Place | None = None, client: str = "c") -> bool:
        identity = reader.session.identity
        assert identity is not None
        history = await self.hub.attach(
            reader, tenant="demo", venue="v", subject=identity.subject, feed=identity.role == "feed", source=identity.source, client=client, resume=resume
        )  # fmt: skip
        if history:
            self.hub.replay(reader, "v", history)
        return history is not None

    async def join(self, reader: Reader, topic: str, rate_hz: float, **more: Any) -> Joined:
        joined = await self.hub.join(reader, tenant="demo", topic=topic, name=TopicName.parse(topic), rate_hz=rate_hz, **more)
        for frame in joined.missed or ():
            reader.write(reader.session.codec.encode(frame))
        return joined


async def settle() -> None:
    """Let everything that can run without time passing run."""
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    await world.hub.start()
    await settle()
    yield world
    await world.hub.stop()


# --- pushes -----------------------------------------------------------------------------------------------------------


async def test_a_push_reaches_its_subject_and_nobody_else(world: World) -> None:
    seven, eight = Reader(7), Reader(8)
    await world.attach(seven)
    await world.attach(eight)
    await world.pushes(10, [(0, 7), (1, 9), (1, 7)])
    assert seven.ids() == ["a.7.10", "b.7.10"]
    assert [frame["kind"] for frame in seven.frames] == ["NEARBY", "NEW_OFFER"]
    assert seven.frames[0]["place"] == {"epoch": 1, "offset": 1}
    assert eight.frames == []


async def test_every_session_of_a_subject_gets_its_pushes(world: World) -> None:
    phone, watch = Reader(7), Reader(7)
    await world.attach(phone)
    await world.attach(watch)
    await world.pushes(10, [(0, 7)])
    assert phone.ids() == watch.ids() == ["a.7.10"]
    world.hub.drop(watch)
    await world.pushes(11, [(0, 7)])
    assert phone.ids() == ["a.7.10", "a.7.11"]
    assert watch.ids() == ["a.7.10"]


async def test_another_tenants_pushes_stay_away(world: World) -> None:
    seven = Reader(7)
    await world.attach(seven)
    body = t.PushBatch(venue="v", tick=1, offers=OFFERS, offer=b"\0\0", subject=np.array([7], "<u4").tobytes())
    message = msgspec.msgpack.encode(t.Publication(TOPIC, 1, 1, msgspec.msgpack.encode(body)))
    await world.broker.publish([(t.channel("other", TOPIC), message)])
    await settle()
    assert seven.frames == []


async def test_a_publication_that_comes_twice_is_delivered_once(world: World) -> None:
    seven = Reader(7)
    await world.attach(seven)
    await world.pushes(10, [(0, 7)])
    body = t.PushBatch(venue="v", tick=10, offers=OFFERS, offer=b"\0\0", subject=np.array([7], "<u4").tobytes())
    await world.publish(TOPIC, body, 1, 1)
    assert seven.ids() == ["a.7.10"]


async def test_a_gap_is_refilled_from_the_journal_in_order(world: World) -> None:
    seven = Reader(7)
    await world.attach(seven)
    await world.pushes(10, [(0, 7)])
    await world.pushes(11, [(0, 7)], publish=False)
    await world.pushes(12, [(0, 7)], publish=False)
    assert seven.ticks("push") == [10]
    await world.pushes(13, [(0, 7)])
    assert seven.ticks("push") == [10, 11, 12, 13]
    await world.pushes(14, [(0, 7)])
    assert seven.ticks("push") == [10, 11, 12, 13, 14]


async def test_the_last_publication_lost_is_found_by_the_poll(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seven = Reader(7)
    await world.attach(seven)
    await world.pushes(10, [(0, 7)], publish=False)
    await until(lambda: seven.ticks("push") == [10])


async def test_losing_the_broker_delays_and_never_loses(world: World) -> None:
    seven = Reader(7)
    await world.attach(seven)
    world.broker.available = False
    world.broker.hub.lose_connections()
    await settle()
    await world.pushes(10, [(0, 7)], publish=False)
    await until(lambda: seven.ticks("push") == [10])  # the journal alone
    await world.pushes(11, [(0, 7)], publish=False)
    world.broker.available = True
    await until(lambda: len(world.broker.hub.subscriptions) == 1)
    await until(lambda: seven.ticks("push") == [10, 11])
    await world.pushes(12, [(0, 7)])
    await until(lambda: seven.ticks("push") == [10, 11, 12])
    assert world.metrics.value("esplanade_gateway_broker_losses_total") >= 1


async def test_an_unreadable_publication_is_counted_and_hurts_nobody(world: World) -> None:
    seven = Reader(7)
    await world.attach(seven)
    await world.broker.publish([(t.channel("demo", TOPIC), b"\xc1"), (t.channel("demo", "venue/v/clock"), b"junk")])
    await world.pushes(10, [(0, 7)])
    assert seven.ids() == ["a.7.10"]
    assert world.metrics.value("esplanade_gateway_unreadable_publications_total") == 2


# --- resume -----------------------------------------------------------------------------------------------------------


async def test_resume_sends_exactly_the_missed_ones_from_the_ring(world: World) -> None:
    other, seven = Reader(8), Reader(7)
    await world.attach(other)
    for tick in range(1, 6):
        await world.pushes(tick, [(0, 7), (0, 8)])
    assert await world.attach(seven, resume=f.Place(1, 2))
    assert seven.ticks("push") == [3, 4, 5]
    await world.pushes(6, [(0, 7)])
    assert seven.ticks("push") == [3, 4, 5, 6]


async def test_resume_sends_exactly_the_missed_ones_from_the_journal(world: World) -> None:
    for tick in range(1, 6):
        await world.pushes(tick, [(0, 7), (1, 8)], publish=False)
    seven = Reader(7)
    assert await world.attach(seven, resume=f.Place(1, 2))
    await world.pushes(6, [(0, 7)])
    assert seven.ticks("push") == [3, 4, 5, 6]


async def test_resume_beyond_the_ring_reads_the_journal(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "RING_BATCHES", 3)
    monkeypatch.setattr(channels_module, "PAGE", 2)
    first = Reader(8)
    await world.attach(first)
    for tick in range(1, 11):
        await world.pushes(tick, [(0, 7)])
    for after in range(11):
        again = Reader(7)
        assert await world.attach(again, resume=f.Place(1, after))
        assert again.ticks("push") == list(range(after + 1, 11))


async def test_resume_from_a_place_that_never_was_or_is_gone_is_said_plainly(world: World) -> None:
    await world.pushes(1, [(0, 7)], publish=False)
    for place in (f.Place(1, 99), f.Place(9, 1), f.Place(0, 0)):
        seven = Reader(7)
        assert not await world.attach(seven, resume=place)
        await world.pushes(2, [(0, 7)])
        assert seven.ticks("push") == [2]
        world.hub.drop(seven)


async def test_resume_too_far_back_is_said_plainly(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "MAX_RESUME", 3)
    for tick in range(1, 6):
        await world.pushes(tick, [(0, 7)], publish=False)
    assert not await world.attach(Reader(7), resume=f.Place(1, 0))
    assert await world.attach(Reader(7), resume=f.Place(1, 2))


async def test_a_new_epoch_of_the_topic_goes_on(world: World) -> None:
    seven = Reader(7)
    await world.attach(seven)
    await world.pushes(1, [(0, 7)])
    world.store.forget_topic("demo", TOPIC)
    await world.pushes(2, [(0, 7)], publish=False)
    await world.pushes(3, [(0, 7)])
    await until(lambda: seven.ticks("push") == [1, 2, 3])


async def test_sessions_of_a_subject_are_bounded(world: World) -> None:
    for _ in range(hub_module.MAX_SESSIONS_OF_SUBJECT):
        await world.attach(Reader(7))
    with pytest.raises(LimitExceeded):
        await world.attach(Reader(7))


async def test_a_connection_that_ended_meanwhile_is_not_registered(world: World) -> None:
    seven = Reader(7)
    seven.session.lost()
    await world.attach(seven)
    assert not world.hub.is_in(seven, "v")
    await world.join(seven, "venue/v/stats", 2.0)
    assert world.hub.subscriptions() == 0


async def test_attaching_while_the_journal_is_away_fails_and_works_later(world: World) -> None:
    await world.journal.close()
    with pytest.raises(Unavailable):
        await world.attach(Reader(7))
    world.journal._closed = False
    seven = Reader(7)
    await world.attach(seven)
    await world.pushes(1, [(0, 7)])
    assert seven.ticks("push") == [1]


# --- feeds ------------------------------------------------------------------------------------------------------------


async def test_a_feed_gets_rows_of_the_subjects_it_sent_columns_of(world: World) -> None:
    feed = Reader(1, "feed", "crowd")
    await world.attach(feed)
    world.hub.speak_for(feed, "v", np.array([7, 9, 70_000, 2**30 + 5], np.uint32))
    await world.pushes(10, [(0, 6), (0, 7), (1, 9), (1, 70_000), (1, 70_001), (0, 2**30 + 5)])
    [frame] = feed.frames
    assert frame["op"] == "push_columns"
    assert np.frombuffer(frame["subject"], "<u4").tolist() == [7, 9, 70_000, 2**30 + 5]
    assert [frame["offers"][i] for i in np.frombuffer(frame["offer"], "<u2")] == ["a", "b", "b", "a"]
    await world.pushes(11, [(0, 6)])
    assert len(feed.frames) == 1


async def test_a_feed_that_comes_back_resumes_with_its_subjects(world: World) -> None:
    feed = Reader(1, "feed", "crowd")
    await world.attach(feed, client="sim")
    world.hub.speak_for(feed, "v", np.array([7], np.uint32))
    await world.pushes(1, [(0, 7)])
    feed.session.lost()
    world.hub.drop(feed)
    await world.pushes(2, [(0, 7), (0, 8)])
    again = Reader(1, "feed", "crowd")
    assert await world.attach(again, resume=f.Place(1, 1), client="sim")
    assert again.ticks("push_columns") == [2]
    stranger = Reader(1, "feed", "crowd")
    assert not await world.attach(stranger, resume=f.Place(1, 1), client="another")


async def test_a_rewind_reaches_sources_and_readers_of_the_clock_at_once(world: World) -> None:
    feed, walker, shopper, watcher = Reader(1, "feed", "crowd"), Reader(2, source="crowd"), Reader(3), Reader(4, "operator")
    for reader in (feed, walker, shopper):
        await world.attach(reader)
    await world.join(watcher, "venue/v/clock", 0.1)
    await world.publish("venue/v/clock", t.TickClosed(venue="v", tick=9, epoch=1, late_rows=0))
    await world.publish("venue/v/clock", t.Rewind(venue="v", tick=8, epoch=2))
    assert [reader.ticks("rewind") for reader in (feed, walker, shopper, watcher)] == [[8], [8], [], [8]]


async def test_a_rewind_lost_with_the_broker_is_made_up_for(world: World) -> None:
    feed = Reader(1, "feed", "crowd")
    await world.attach(feed)
    await world.publish("venue/v/clock", t.TickClosed(venue="v", tick=9, epoch=1, late_rows=0))
    world.system.now = VenueClock(tick=9, epoch=2, driven=True, late_rows=0, late_ticks=0)
    world.broker.hub.lose_connections()
    await until(lambda: feed.ticks("rewind") == [9])


# --- topics -----------------------------------------------------------------------------------------------------------


def stats(tick: int, zones: dict[str, int] | None = None) -> t.VenueStats:
    return t.VenueStats(venue="v", tick=tick, inside=(1,), pushes=0, entries=0, exits=0, dwells=0, tick_ms=0.0, zones=zones or {})


async def test_the_newest_wins_at_the_rate_each_asked_for(world: World) -> None:
    quick, slow = Reader(1, "operator"), Reader(2, "operator")
    await world.join(quick, "venue/v/stats", 10.0)
    await world.join(slow, "venue/v/stats", 1.0)
    for tick in range(21):
        await world.publish("venue/v/stats", stats(tick))
        world.clock.advance(0.1)
    assert quick.ticks("stats") == list(range(21))
    assert slow.ticks("stats") == [0, 10, 20]


async def test_the_last_state_arrives_though_nothing_comes_after_it(world: World) -> None:
    reader = Reader(1, "operator")
    await world.join(reader, "venue/v/stats", 10.0)
    await world.publish("venue/v/stats", stats(1))
    await world.publish("venue/v/stats", stats(2))
    await world.publish("venue/v/stats", stats(3))
    assert reader.ticks("stats") == [1]
    world.clock.advance(0.1)
    await until(lambda: reader.ticks("stats") == [1, 3])


async def test_a_reader_that_is_behind_is_left_out_and_gets_the_newest_later(world: World) -> None:
    reader, other = Reader(1, "operator"), Reader(2, "operator")
    for one in (reader, other):
        await world.join(one, "venue/v/stats", 10.0)
    reader.behind = 10**9
    for tick in range(3):
        await world.publish("venue/v/stats", stats(tick))
        world.clock.advance(0.1)
    assert (reader.ticks("stats"), other.ticks("stats")) == ([], [0, 1, 2])
    reader.behind = 0
    world.clock.advance(0.1)
    await until(lambda: reader.ticks("stats") == [2])
    assert world.metrics.value("esplanade_gateway_conflated_total", "slow") >= 3


async def test_small_counts_are_blank_for_shoppers_and_not_for_operators(world: World) -> None:
    shopper, operator = Reader(1), Reader(2, "operator")
    for reader in (shopper, operator):
        await world.join(reader, "venue/v/density/0", 10.0)
        await world.join(reader, "venue/v/stats", 10.0)
    count = np.array([0, 1, 2, 3], "<u2").tobytes()
    await world.publish("venue/v/density/0", t.Density(venue="v", level=0, tick=1, x0_m=0.0, y0_m=0.0, cell_m=5.0, cols=2, rows=2, count=count))
    await world.publish("venue/v/stats", stats(1, {"u-1": 2, "u-2": 3}))
    assert [np.frombuffer(reader.frames[0]["count"], "<u2").tolist() for reader in (shopper, operator)] == [[0, 0, 0, 3], [0, 1, 2, 3]]
    assert [reader.frames[1]["zones"] for reader in (shopper, operator)] == [{"u-2": 3}, {"u-1": 2, "u-2": 3}]


async def test_payments_are_summed_over_shards(world: World) -> None:
    reader = Reader(1, "operator")
    await world.join(reader, "payments", 10.0)
    await world.publish("payments", t.PaymentStats(shard="one", payments=2, refused=1, volume={"EUR": 100}))
    world.clock.advance(0.2)
    await world.publish("payments", t.PaymentStats(shard="two", payments=3, refused=0, volume={"EUR": 50, "CHF": 7}))
    world.clock.advance(0.2)
    await world.publish("payments", t.PaymentStats(shard="one", payments=4, refused=1, volume={"EUR": 200}))
    assert [frame["payments"] for frame in reader.frames] == [2, 5, 7]
    assert reader.frames[-1]["volume"] == {"EUR": 250, "CHF": 7}


async def test_offers_and_parking_are_never_conflated(world: World) -> None:
    reader = Reader(1)
    await world.join(reader, "venue/v/offers", 0.1)
    await world.join(reader, "venue/v/parking", 0.1)
    for ended in (False, True):
        await world.durable("venue/v/offers", t.OfferChanged(venue="v", offer=OFFERS[0], ended=ended))
    await world.durable("venue/v/parking", t.ParkingChanged(venue="v", total=9, free=3), publish=False)
    await world.durable("venue/v/parking", t.ParkingChanged(venue="v", total=9, free=2))
    assert [frame["ended"] for frame in reader.frames if frame["op"] == "offer_state"] == [False, True]
    assert [frame["free"] for frame in reader.frames if frame["op"] == "parking"] == [3, 2]


async def test_an_offer_that_ends_takes_its_unacked_pushes_with_it(world: World) -> None:
    seven = Reader(7)
    await world.attach(seven)
    await world.pushes(10, [(0, 7), (1, 7)])
    assert seven.session.pending == 2
    await world.durable("venue/v/offers", t.OfferChanged(venue="v", offer=OFFERS[0], ended=True))
    assert seven.session.pending == 1


async def test_the_system_hears_which_topics_are_read_and_how_fast(world: World) -> None:
    one, two = Reader(1, "operator"), Reader(2, "operator")
    await world.join(one, "venue/v/dots/0", 2.0)
    await world.join(two, "venue/v/dots/0", 5.0)
    await world.join(two, "venue/v/offers", 5.0)
    await until(lambda: world.system.watched[-1:] == [{"venue/v/dots/0": 5.0}])


async def test_a_channel_nobody_uses_is_left(world: World) -> None:
    reader = Reader(1, "operator")
    await world.attach(reader)
    await world.join(reader, "venue/v/dots/0", 2.0)
    reader.session.lost()
    world.hub.drop(reader)
    [subscription] = world.broker.hub.subscriptions
    world.clock.advance(channels_module.IDLE_S + 1)
    await until(lambda: not subscription._channels)
    late = Reader(1, "operator")
    await world.attach(late)
    await world.pushes(3, [(0, 1)])
    assert late.ticks("push") == [3]


async def test_unsubscribing_ends_it(world: World) -> None:
    reader = Reader(1, "operator")
    await world.join(reader, "venue/v/stats", 10.0)
    world.hub.part(reader, "venue/v/stats")
    world.hub.part(reader, "venue/v/stats")
    await world.publish("venue/v/stats", stats(1))
    assert reader.frames == []
    assert world.hub.subscriptions() == 0


# --- topics resumed ---------------------------------------------------------------------------------------------------


def free(n: int) -> t.ParkingChanged:
    return t.ParkingChanged(venue="v", total=9, free=n)


async def test_a_durable_topic_is_resumed_after_its_place_once_and_in_order(world: World) -> None:
    first = Reader(1)
    assert (await world.join(first, "venue/v/parking", 2.0)).place == f.Place(1, 0)
    for n in range(1, 4):
        await world.durable("venue/v/parking", free(n))
    assert [(frame["free"], frame["place"]) for frame in first.frames] == [(n, {"epoch": 1, "offset": n}) for n in range(1, 4)]
    world.hub.drop(first)
    await world.durable("venue/v/parking", free(4), publish=False)
    again = Reader(1)
    joined = await world.join(again, "venue/v/parking", 2.0, resume=f.Place(1, 2))
    await world.durable("venue/v/parking", free(5))
    assert [frame["free"] for frame in again.frames] == [3, 4, 5]
    assert joined.missed is not None


async def test_a_hundred_that_come_back_to_four_places_cost_four_reads_of_the_journal_at_most(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each had its own query; a gateway that was killed let its phones in for as long as the database took."""
    for n in range(1, 8):
        await world.durable("venue/v/parking", free(n), publish=False)
    reads: list[int] = []
    published = world.journal.published

    async def counted(tenant: str, topic: str, *, epoch: int, after: int, limit: int) -> Any:
        reads.append(after)
        await asyncio.sleep(0)
        return await published(tenant, topic, epoch=epoch, after=after, limit=limit)

    monkeypatch.setattr(world.journal, "published", counted)
    readers = [Reader(i) for i in range(100)]
    await asyncio.gather(*(world.join(one, "venue/v/parking", 2.0, resume=f.Place(1, 2 + i % 4)) for i, one in enumerate(readers)))
    await world.durable("venue/v/parking", free(8))
    assert all([frame["free"] for frame in one.frames] == list(range(3 + i % 4, 9)) for i, one in enumerate(readers))
    assert 1 <= len(reads) <= 4, "the others were answered by what those brought"


async def test_what_is_kept_for_those_who_come_back_is_bounded_and_the_journal_has_the_rest(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels_module, "RECENT", 3)
    await world.join(Reader(0), "venue/v/parking", 2.0)
    for n in range(1, 8):
        await world.durable("venue/v/parking", free(n))
    for after in (0, 3, 4, 5, 7):
        reader = Reader(1 + after)
        await world.join(reader, "venue/v/parking", 2.0, resume=f.Place(1, after))
        assert [frame["free"] for frame in reader.frames] == list(range(after + 1, 8))
    channel = world.hub._channels.find("demo", "venue/v/parking")
    assert channel is not None
    assert len(channel.recent.held) == 3


async def test_a_publication_that_cannot_be_read_stands_in_the_way_of_no_resume(world: World) -> None:
    """It raised out of the resume, and the subscription was never answered."""
    await world.durable("venue/v/parking", free(1), publish=False)
    await world.durable("venue/v/parking", cast(t.Body, {"t": "parking", "venue": 5}), publish=False)
    await world.durable("venue/v/parking", free(3), publish=False)
    reader = Reader(1)
    await world.join(reader, "venue/v/parking", 2.0, resume=f.Place(1, 0))
    assert [frame["free"] for frame in reader.frames] == [1, 3]
    assert world.metrics.value("esplanade_gateway_unreadable_publications_total") == 1


@pytest.mark.parametrize("place", [f.Place(1, 99), f.Place(9, 1), f.Place(0, 7)])
async def test_a_place_that_never_was_is_not_resumed_and_the_topic_goes_on(world: World, place: f.Place) -> None:
    await world.durable("venue/v/parking", free(1), publish=False)
    reader = Reader(1)
    joined = await world.join(reader, "venue/v/parking", 2.0, resume=place)
    assert (joined.missed, joined.place) == (None, f.Place(1, 1))
    await world.durable("venue/v/parking", free(2))
    assert [frame["free"] for frame in reader.frames] == [2]


async def test_what_comes_in_one_turn_goes_out_together_and_not_to_who_comes_after(world: World) -> None:
    early, late = Reader(1), Reader(2)
    written: list[tuple[int, int]] = []

    def to_all(peers: Any, frames: list[bytes], codec: Any) -> None:
        written.append((len(peers), len(frames)))
        hub_module.one_by_one(peers, frames, codec)

    world.hub._to_all = to_all
    await world.join(early, "venue/v/parking", 2.0)
    await world.join(late, "venue/v/offers", 2.0)  # opens nothing anew below
    channel = world.hub._channels.find("demo", "venue/v/parking")
    assert channel is not None
    for n in (1, 2, 3):
        world.hub.durable(channel, (1, n), free(n))
    assert early.frames == []
    await world.join(late, "venue/v/parking", 2.0)
    world.hub.durable(channel, (1, 4), free(4))
    await settle()
    assert ([frame["free"] for frame in early.frames], [frame["free"] for frame in late.frames]) == ([1, 2, 3, 4], [4])
    assert written == [(1, 3), (2, 1)]


# --- views ------------------------------------------------------------------------------------------------------------

DOTS = "venue/v/dots/0"


def people(tick: int, *places: tuple[int, float, float]) -> t.Dots:
    columns = list(zip(*sorted(places), strict=True))
    return t.Dots(
        venue="v", level=0, tick=tick, pseudonym=np.array(columns[0], "<u4").tobytes(), x=np.array(columns[1], "<f4").tobytes(),
        y=np.array(columns[2], "<f4").tobytes(),
    )  # fmt: skip


async def test_who_looks_at_a_part_is_told_what_changes_in_it(world: World) -> None:
    whole, part = Reader(1, "operator"), Reader(2, "operator")
    await world.join(whole, DOTS, 10.0)
    await world.join(part, DOTS, 10.0, view=f.View(0, 0, 10, 10))
    for tick, x in enumerate((1.0, 1.0, 2.0, 20.0)):
        await world.publish(DOTS, people(tick, (1, x, 1.0), (2, 5.0, 5.0), (3, 50.0, 5.0)))
        world.clock.advance(0.1)
    assert whole.ticks("dots") == [0, 1, 2, 3]
    assert part.ticks("dots_view") == [0, 2, 3]
    assert [np.frombuffer(frame["pseudonym"], "<u4").tolist() for frame in part.frames] == [[1, 2], [1], []]
    assert [np.frombuffer(frame.get("left", b""), "<u4").tolist() for frame in part.frames] == [[], [], [1]]
    await world.join(part, DOTS, 10.0, view=f.View(0, 0, 60, 10))
    world.hub.latest(part, DOTS)
    assert np.frombuffer(part.frames[-1]["pseudonym"], "<u4").tolist() == [1, 3]
    await world.join(part, DOTS, 10.0)
    world.hub.latest(part, DOTS)
    assert part.frames[-1]["op"] == "dots"


async def test_who_draws_slowly_gets_the_present_when_it_has_drawn(world: World) -> None:
    reader = Reader(1, "operator")
    await world.join(reader, DOTS, 10.0, view=f.View(0, 0, 100, 10))
    await world.publish(DOTS, people(0, (1, 0.0, 1.0)))
    world.hub.saw(reader, DOTS, 1)
    for tick in range(1, 20):
        world.clock.advance(0.1)
        await world.publish(DOTS, people(tick, (1, tick, 1.0)))
    assert reader.ticks("dots_view") == [0, 1, 2, 3, 4]
    world.clock.advance(0.1)
    world.hub.saw(reader, DOTS, 5)
    assert reader.ticks("dots_view")[-1] == 19
    assert world.metrics.value("esplanade_gateway_conflated_total", "unseen") == 15
    world.hub.saw(reader, "venue/v/stats", 5)  # not subscribed: nothing to say


async def test_a_frame_above_the_allowance_puts_the_next_one_off(world: World) -> None:
    reader = Reader(1, "operator")
    await world.join(reader, DOTS, 10.0, view=f.View(0, 0, 100, 100), bytes_per_s=500)
    rng = np.random.default_rng(1)
    for tick in range(100):
        places = rng.uniform(0, 100, (500, 2))
        await world.publish(DOTS, people(tick, *((i, float(x), float(y)) for i, (x, y) in enumerate(places))))
        world.clock.advance(0.1)
    sent = sum(len(msgpack.packb(frame)) for frame in reader.frames)
    largest = max(len(msgpack.packb(frame)) for frame in reader.frames)
    assert sent <= 500 * 10 + largest
    assert len(reader.frames) > 5
