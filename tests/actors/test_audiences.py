"""Offers with terms in the position host against the stated rule, person by person; and why anybody got one or did not."""

from __future__ import annotations

import asyncio
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pytest

from actors.audiences import ON_THE_WAY_TICKS, TERMS_TICKS
from actors.edit_book import EditBook
from actors.events import EventBody, Pushed, encode_event
from actors.messages import CreateOffer, Done, Explain, Explanation, GetZone, Rejected, SetAccess, SetTraits, ZoneState
from actors.positions import HostSettings, PositionHost
from actors.traits import Traits
from esplanade.core.ids import Address
from spatial.audience import held_out
from spatial.columns import LEFT
from spatial.offers import STALE_TICKS, Everyone, Inside, Offer, Terms, Within
from spatial.plan import anchor_of, shape
from spatial.reach import ReachField
from spatial.routing import Router
from spatial.zone_shapes import DrawnZone, Hours, Open
from tests.actors.parkside import rows, u4
from tests.actors.stage import stage
from tests.actors.test_positions_oracle import BOOK, crowd, feed


def offer(offer_id: str, audience: Within | Inside | Everyone, terms: Terms, **more: int) -> Offer:
    return Offer(
        id=offer_id, unit_id={"a": "shop-00", "b": "shop-11", "c": "shop-02"}[offer_id[0]], title="t", audience=audience, terms=terms, **more
    )


OFFERS = {
    one.id: one
    for one in (
        offer("a-near", Inside(), Terms(within_s=16.0, hold_out=0.3, priority=5), cap=2, cooldown_ticks=40),
        offer("a-wide", Inside(), Terms(within_s=30.0, density_per_m2=0.05, priority=1)),
        offer("b-some", Within(radius_m=18.0), Terms(segments=0b110, languages=("de", "fr"))),
        offer("b-few", Everyone(), Terms(budget=5, priority=9), starts_tick=35, ends_tick=120),
        offer("c-quiet", Inside(), Terms(quiet=(Open(0.0, 6.0, 10.0),))),
        Offer(id="plain", unit_id="shop-01", title="t", audience=Within(radius_m=6.0)),
    )
}
TRAITS = Traits()
TRAITS.set(np.arange(1, 120, 7, dtype=np.uint32), np.full(17, 0b010, np.uint64), "de")
TRAITS.set(np.arange(1, 60, 14, dtype=np.uint32), np.full(5, 0b001, np.uint64), "en")


@dataclass
class Standing:
    zones: dict[str, DrawnZone] = field(default_factory=dict)
    traits: Traits = field(default_factory=lambda: TRAITS)
    closed: frozenset[str] = frozenset()
    edits: EditBook = field(default_factory=EditBook)
    standing: int = 1


def make_host(standing: Standing) -> PositionHost:
    return PositionHost(BOOK, lambda: (1, OFFERS), epoch=1, pseudonym_key=bytes(64), settings=HostSettings(dwell_ticks=7), standing=standing)


def pushed(events: list[EventBody]) -> set[tuple[str, int]]:
    found = set()
    for event in events:
        if isinstance(event, Pushed):
            who = zip(np.frombuffer(event.offer, "<u2").tolist(), np.frombuffer(event.subject, "<u4").tolist(), strict=True)
            found |= {(event.offers[o], s) for o, s in who}
    return found


def test_every_second_says_what_the_rule_says_person_by_person() -> None:
    host = make_host(Standing())
    host.start(0.0)
    host.open_source("crowd", 0, 0.0)
    reach = ReachField(Router.build(BOOK.venue))
    grounds = {unit.id: shape(unit.polygon).area for unit in BOOK.venue.units}
    segments = dict(zip(TRAITS.subject.tolist(), TRAITS.segments.tolist(), strict=True))
    language = dict(zip(TRAITS.subject.tolist(), TRAITS.language.tolist(), strict=True))
    last: dict[int, tuple[int, int, float, float]] = {}
    gone: set[int] = set()
    made: dict[tuple[str, int], list[int]] = {}
    total = 0
    for tick, columns in enumerate(crowd(21, 260, 40)):
        for s, lv, x, y in zip(columns.subject.tolist(), columns.level.tolist(), columns.x_m.tolist(), columns.y_m.tolist(), strict=True):
            (gone.add if lv == LEFT else gone.discard)(s)
            if lv != LEFT:
                last[s] = tick, lv, x, y
        got = {(o, s) for o, s in pushed(feed(host, tick, columns)) if o != "plain"}
        expected: set[tuple[str, int]] = set()
        present = {s for s in last if s not in gone and tick - last[s][0] < STALE_TICKS}
        taken: set[int] = set()
        sent: dict[str, int] = {}
        before = {key: list(times) for key, times in made.items()}
        for one in sorted((o for o in OFFERS.values() if o.id != "plain"), key=lambda o: (-o.terms.priority, o.id)):  # type: ignore[union-attr]
            terms = one.terms
            assert isinstance(terms, Terms)
            if tick % TERMS_TICKS or not one.starts_tick <= tick < one.ends_tick:
                continue
            candidates = []
            for s in sorted(last):
                _, lv, x, y = last[s]
                level, ax, ay = anchor_of(BOOK.venue, one.unit_id)
                match one.audience:
                    case Within(radius_m):
                        placed = s in present and lv == level and (x - ax) ** 2 + (y - ay) ** 2 <= radius_m**2
                    case Inside():
                        placed = s in present and 0 <= x <= 40 and 0 <= y <= 30
                    case Everyone():
                        placed = True
                times = before.get((one.id, s), [])
                seconds = 0.0
                if terms.within_s is not None:
                    seconds = float(reach.seconds(one.unit_id, np.array([lv]), np.array([x]), np.array([y]))[0]) if s in present else math.inf
                if (
                    placed and len(times) < one.cap and (not times or tick - times[-1] >= one.cooldown_ticks)
                    and not held_out(one.id, terms.hold_out, np.array([s]))[0]
                    and not any(Hours(q.from_s, q.until_s, q.every_s).hold(tick * 0.1) for q in terms.quiet)
                    and (terms.segments == 0 or segments.get(s, 0) & terms.segments) and (not terms.languages or language.get(s, "") in terms.languages)
                    and math.isfinite(seconds) and (terms.within_s is None or seconds <= terms.within_s) and s not in taken
                ):  # fmt: skip
                    candidates.append((seconds, s))
            candidates.sort()
            if terms.density_per_m2 is not None:
                x0, y0, x1, y1 = shape(next(u.polygon for u in BOOK.venue.units if u.id == one.unit_id)).bounds
                level = anchor_of(BOOK.venue, one.unit_id)[0]
                here = {s for s in present if last[s][1] == level and x0 <= last[s][2] <= x1 and y0 <= last[s][3] <= y1}
                coming = {
                    s for (o, s), times in before.items()
                    if OFFERS[o].unit_id == one.unit_id and OFFERS[o].starts_tick <= tick < OFFERS[o].ends_tick and tick - times[-1] < ON_THE_WAY_TICKS
                }  # fmt: skip
                room = int(terms.density_per_m2 * grounds[one.unit_id] + 1e-9) - len(here) - len((coming & present) - here) - sent.get(one.unit_id, 0)
                candidates = candidates[: max(0, room)]
            if terms.budget is not None:
                candidates = candidates[: terms.budget - sum(len(times) for (o, _), times in before.items() if o == one.id)]
            for _, s in candidates:
                taken.add(s)
                sent[one.unit_id] = sent.get(one.unit_id, 0) + 1
                made.setdefault((one.id, s), []).append(tick)
                expected.add((one.id, s))
        assert got == expected, f"tick {tick}"
        total += len(got)
    assert {o for o, _ in made} == set(OFFERS) - {"plain"}
    assert total > 40


@pytest.mark.parametrize("crash_at", [37, 88, 151])
def test_a_crash_changes_no_push(crash_at: int) -> None:
    recorded = crowd(22, 200, 30)
    made: list[list[tuple[str, bytes]]] = []
    for crash in (None, crash_at):
        host = make_host(Standing())
        durable = host.start(0.0).events + host.open_source("crowd", 0, 0.0).events
        tick = 0
        while tick < len(recorded):
            durable += feed(host, tick, recorded[tick])
            tick += 1
            if tick == crash:
                crash = None
                host = make_host(Standing())
                for event in durable:
                    host.apply(event)
                durable += host.start(0.0).events
                tick = host.poll(0.0).publish[0][1].tick + 1  # type: ignore[union-attr]
        made.append([encode_event(event) for event in durable])
        loaded = make_host(Standing())
        loaded.load(host.save())
        assert loaded.crowd.save() == host.crowd.save()
        assert loaded.rules.save(loaded.crowd) == host.rules.save(host.crowd)
    assert made[0] == made[1]


MALL = Address("mall", "demo", "parkside")
FAR = Offer(id="far", unit_id="shop-00", title="t", audience=Inside(), terms=Terms(within_s=8.0))
GERMAN = Offer(id="german", unit_id="shop-00", title="t", audience=Inside(), terms=Terms(languages=("de",)))
NEAR = Offer(id="near", unit_id="shop-00", title="t", audience=Within(radius_m=3.0))


async def explained(at: object, offer_id: str, subject: int) -> Explanation:
    told = await at.system.ask(MALL, Explain(offer_id=offer_id, subject=subject))  # type: ignore[attr-defined]
    assert isinstance(told, Explanation), told
    return told


async def test_each_push_and_suppression_says_why() -> None:
    async with stage() as at:
        for one in (FAR, GERMAN, NEAR):
            assert await at.system.ask(MALL, CreateOffer(offer=one)) == Done()
        assert await at.system.ask(MALL, SetTraits(subject=u4(5), segments=bytes(8), language="de")) == Done()
        await at.system.take("demo", "parkside", rows((5, 0, 7.0, 19.5), (6, 0, 38.0, 2.0)), source=None, tick=None)
        for _ in range(12):
            await at.poll(0.1)
        told = await explained(at, "far", 5)
        assert (told.outcome, told.pushes) == ("pushed", 1)
        assert "1 of at most 1 pushes so far" in told.message
        assert (await explained(at, "far", 6)).outcome == "too_far"
        assert "more than 8 s" in (await explained(at, "far", 6)).message
        assert (await explained(at, "german", 5)).outcome in ("pushed", "outranked", "due")
        assert (await explained(at, "german", 6)).outcome == "language"
        assert (await explained(at, "near", 5)).outcome == "pushed"
        assert (await explained(at, "near", 6)).outcome == "elsewhere"
        assert (await explained(at, "far", 99)).outcome == "unseen"
        nothing = await at.system.ask(MALL, Explain(offer_id="none", subject=5))
        assert isinstance(nothing, Rejected)
        assert nothing.code == "offer_not_found"


async def test_the_first_offer_by_walking_time_holds_up_its_venue_alone_until_the_times_are_made_aside() -> None:
    async with stage() as at:
        [shard] = at.system.shards
        await at.system.take("demo", "parkside", rows((5, 0, 7.0, 19.5)), source=None, tick=None)
        await at.poll(0.1)
        await at.system.ask(MALL, CreateOffer(offer=FAR))
        begun = threading.Event()
        free = threading.Event()
        await at.system.take("demo", "parkside", rows((5, 0, 7.0, 19.5)), source=None, tick=None)
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        blocked = asyncio.get_running_loop().run_in_executor(None, lambda: (begun.set(), free.wait(60)))  # the one thread that there is
        for _ in range(3 * TERMS_TICKS):
            at.clock.advance(0.1)
            shard.poll()
            await asyncio.sleep(0)
        held = (await at.system.clock("demo", "parkside")).tick
        assert (held + 1) % TERMS_TICKS == 0, "it waits where the offer would be looked at"
        state = await at.system.ask(Address("zone", "demo", "parkside:shop-00"), GetZone())
        assert isinstance(state, ZoneState), "whoever asks is answered meanwhile"
        free.set()
        await blocked
        for _ in range(TERMS_TICKS):
            await at.poll(0.1)
        assert (await at.system.clock("demo", "parkside")).tick > held
        assert (await explained(at, "far", 5)).outcome == "pushed"


async def test_a_closed_shop_holds_its_offers_back_from_the_next_second_on() -> None:
    async with stage() as at:
        await at.system.ask(MALL, SetAccess(close=("shop-00",)))
        await at.system.ask(MALL, CreateOffer(offer=FAR))
        await at.system.take("demo", "parkside", rows((5, 0, 7.0, 19.5)), source=None, tick=None)
        for _ in range(12):
            await at.poll(0.1)
        assert (await explained(at, "far", 5)).outcome == "no_way"
        await at.system.ask(MALL, SetAccess(open=("shop-00",)))
        for _ in range(12):
            await at.poll(0.1)
        assert (await explained(at, "far", 5)).outcome == "pushed"


def test_an_offer_without_terms_is_stored_as_it_always_was() -> None:
    assert b"terms" not in msgspec.msgpack.encode(NEAR)
    assert msgspec.json.decode(msgspec.json.encode(FAR), type=Offer) == FAR
