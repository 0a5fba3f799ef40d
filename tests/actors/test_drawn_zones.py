"""Zones drawn while the venue lives: from the next tick on, as the stated rule says, and the same after crashes at any point."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pytest
import shapely

from actors.edit_book import EditBook
from actors.events import EventBody, ZonesAdopted, ZonesCrossed, ZonesPending, encode_event
from actors.messages import DrawZone, EraseZone, GetZone, GetZones, Rejected, Zones, ZoneState
from actors.positions import CHECKPOINT_TICKS, HostSettings, PositionHost
from actors.traits import Traits
from esplanade.core.errors import InvalidInput
from esplanade.core.ids import Address
from spatial.columns import LEFT
from spatial.drawn_zones import check_zone, outline
from spatial.fence_watch import CROSS, DWELL, ENTER, EXIT
from spatial.offers import STALE_TICKS
from spatial.zone_shapes import Along, Circle, DrawnZone, InUnit, Open, Polygon
from tests.actors.parkside import rows, venue
from tests.actors.stage import stage
from tests.actors.test_positions_oracle import BOOK, OFFERS, crowd, feed

SQUARE = Polygon(((((5.0, 5.0), (15.0, 5.0), (15.0, 15.0), (5.0, 15.0)),),))
WIDE = Polygon(((((-2.0, -2.0), (42.0, -2.0), (42.0, 16.0), (-2.0, 16.0)),),))
ZONES = {
    zone.id: check_zone(zone, BOOK.venue)
    for zone in (
        DrawnZone(id="square", name="Square", level=0, shape=SQUARE, dwell_s=0.7),
        DrawnZone(id="round", name="Round", level=1, shape=Circle(20.0, 10.0, 6.5)),
        DrawnZone(id="lane", name="Lane", level=0, shape=Along(((0.0, 18.0), (30.0, 18.0)), 1.5), dwell_s=2.0),
        DrawnZone(id="shop", name="In the shop", level=0, shape=InUnit("shop-01")),
        DrawnZone(id="calm", name="Calm", level=0, shape=WIDE, margin_m=1.0, confirm_s=0.4, dwell_s=0.9),
        DrawnZone(id="sure", name="Sure", level=1, shape=Circle(20.0, 10.0, 6.5), least=0.8, accuracy_m=2.0, cross=True),
    )
}


@dataclass
class Standing:
    """What a mall would have in force."""

    zones: dict[str, DrawnZone] = field(default_factory=dict)
    standing: int = 0
    traits: Traits = field(default_factory=Traits)
    closed: frozenset[str] = frozenset()
    edits: EditBook = field(default_factory=EditBook)

    def now(self, zones: Mapping[str, DrawnZone]) -> None:
        if self.zones != zones:
            self.zones, self.standing = dict(zones), self.standing + 1


def make_host(standing: Standing) -> PositionHost:
    settings = HostSettings(dwell_ticks=7)
    return PositionHost(BOOK, lambda: (1, OFFERS), epoch=1, pseudonym_key=bytes(64), settings=settings, standing=standing)


def told(events: list[EventBody]) -> list[tuple[int, str, int, int]]:
    """(tick, zone, subject, kind)."""
    found = []
    for event in events:
        if isinstance(event, ZonesCrossed):
            zone, subject = np.frombuffer(event.zone, "<u2").tolist(), np.frombuffer(event.subject, "<u4").tolist()
            found += [(event.tick, event.zones[z], s, k) for k, z, s in zip(event.kind, zone, subject, strict=True)]
    return found


@pytest.mark.parametrize("seed", range(3))
def test_every_tick_says_what_shapely_says_from_the_tick_of_the_drawing(seed: int) -> None:
    """Plain zones, drawn at tick 20, one erased at 90: brute force over everyone present."""
    plain = {name: ZONES[name] for name in ("square", "round", "lane", "shop")}
    standing = Standing()
    host = make_host(standing)
    host.start(0.0)
    host.open_source("crowd", 0, 0.0)
    grounds = {name: outline(zone) for name, zone in plain.items()}
    last: dict[int, tuple[int, int, float, float]] = {}
    gone: set[int] = set()
    inside: dict[str, dict[int, tuple[int, bool]]] = {}
    total = 0
    for tick, columns in enumerate(crowd(seed, 160, 30)):
        standing.now({} if tick < 20 else plain if tick < 90 else {name: zone for name, zone in plain.items() if name != "lane"})
        observed = set()
        for s, lv, x, y in zip(columns.subject.tolist(), columns.level.tolist(), columns.x_m.tolist(), columns.y_m.tolist(), strict=True):
            observed.add(s)
            if lv == LEFT:
                gone.add(s)
            else:
                gone.discard(s)
                last[s] = tick, lv, x, y
        present = {s for s in last if s not in gone and tick - last[s][0] < STALE_TICKS}
        expected = []
        for name in standing.zones:
            if name not in inside:
                inside[name] = {}
                looked_at = present | observed
            else:
                looked_at = observed
            for s in sorted(looked_at):
                _, lv, x, y = last.get(s, (0, 255, 0.0, 0.0))
                now = s in present and lv == plain[name].level and _covers(plain[name], grounds[name], x, y)
                held = inside[name].get(s)
                if held is not None and not now:
                    del inside[name][s]
                    expected.append((tick, name, s, EXIT))
                if held is None and now:
                    inside[name][s] = held = tick, False
                    expected.append((tick, name, s, ENTER))
                dwell_s = plain[name].dwell_s
                if now and held is not None and not held[1] and dwell_s is not None and tick - held[0] >= round(dwell_s * 10):
                    inside[name][s] = held[0], True
                    expected.append((tick, name, s, DWELL))
        got = told(feed(host, tick, columns))
        assert sorted(got) == sorted(expected), f"tick {tick}"
        total += len(got)
        for name in standing.zones:
            state = host.zone_state(name)
            assert state is not None
            assert state.inside == len(inside[name])
    assert total > 60
    assert host.zone_state("lane") is None


def _covers(zone: DrawnZone, ground: shapely.Geometry, x: float, y: float) -> bool:
    match zone.shape:
        case Circle(cx, cy, r):
            return (x - cx) ** 2 + (y - cy) ** 2 <= r * r
        case Along(line, r):
            return bool(shapely.LineString(line).distance(shapely.Point(x, y)) <= r)
        case _:
            return bool(shapely.covers(ground, shapely.Point(x, y)))


@pytest.mark.parametrize("seed", range(5))
def test_crashes_at_any_point_change_no_event(seed: int) -> None:
    """Zones with margins, confirming times, probabilities and crossings come and go; sources send everything after the Rewind again."""
    chance = random.Random(2000 + seed)
    ticks = 230
    recorded = crowd(300 + seed, ticks, 30)

    def drawn(tick: int) -> dict[str, DrawnZone]:
        named = {"square", "round"} if tick < 60 else set(ZONES) if tick < 150 else set(ZONES) - {"round"}
        zones = {name: ZONES[name] for name in named} if tick >= 10 else {}
        if tick >= 110 and "calm" in zones:
            zones["calm"] = msgspec.structs.replace(zones["calm"], margin_m=0.5)
        return zones

    standing = Standing()
    without = make_host(standing)
    whole = without.start(0.0).events + without.open_source("crowd", 0, 0.0).events
    for tick, columns in enumerate(recorded):
        standing.now(drawn(tick))
        whole += feed(without, tick, columns)
    assert {kind for _, _, _, kind in told(whole)} >= {ENTER, EXIT}
    if seed == 0:
        assert {zone for _, zone, _, _ in told(whole)} == set(ZONES)
        assert {kind for _, _, _, kind in told(whole)} == {ENTER, EXIT, CROSS, DWELL}
        assert any(isinstance(event, ZonesPending) and event.subject for event in whole)

    standing = Standing()
    host = make_host(standing)
    durable = host.start(0.0).events + host.open_source("crowd", 0, 0.0).events
    pending: list[EventBody] = []
    snapshot: tuple[int, bytes] | None = None
    tick, newest_closed, crashes = 0, -1, 0
    while tick < ticks:
        standing.now(drawn(max(tick, newest_closed)))
        pending += feed(host, tick, recorded[tick])
        if chance.random() < 0.3:
            durable, pending = durable + pending, []
            newest_closed = max(newest_closed, host.buffer.closed)
            if chance.random() < 0.2:
                snapshot = len(durable), host.save()
        tick += 1
        if chance.random() < 0.06:
            crashes += 1
            pending = []
            host = make_host(standing)
            first = 0
            if snapshot is not None:
                first = snapshot[0]
                host.load(snapshot[1])
            for event in durable[first:]:
                host.apply(event)
            pending += host.start(0.0).events
            back = host.poll(0.0).publish[0][1].tick  # type: ignore[union-attr]
            assert newest_closed - back <= CHECKPOINT_TICKS
            tick = back + 1
    durable += pending
    assert crashes > 2
    assert [encode_event(event) for event in durable] == [encode_event(event) for event in whole]
    assert host.save() == without.save()


def test_a_venue_without_drawn_zones_journals_what_it_always_did() -> None:
    plain, asked = (
        make_host(Standing()),
        PositionHost(BOOK, lambda: (1, OFFERS), epoch=1, pseudonym_key=bytes(64), settings=HostSettings(dwell_ticks=7)),
    )
    made: list[list[bytes]] = []
    for host in (plain, asked):
        events = host.start(0.0).events + host.open_source("crowd", 0, 0.0).events
        for tick, columns in enumerate(crowd(5, 120, 20)):
            events += feed(host, tick, columns)
        made.append([body for _, body in map(encode_event, events)])
        assert not any(isinstance(event, ZonesAdopted | ZonesCrossed) for event in events)
    assert made[0] == made[1]


def test_a_zone_drawn_before_the_first_source_begins_counts_though_the_clock_goes_back() -> None:
    standing = Standing({"square": ZONES["square"]}, 1)
    host = make_host(standing)
    host.start(0.0)
    for k in range(1, 40):
        assert host.ready(0.1 * k + 0.01)
        host.close(0.1 * k + 0.01)
    host.open_source("crowd", 3, 9.0)
    assert host.buffer.closed == 2
    assert told(feed(host, 3, rows((5, 0, 7.0, 7.0)))) == [(3, "square", 5, ENTER)]


def test_a_zone_on_a_level_that_the_document_lacks_is_left_out() -> None:
    host = make_host(Standing({"square": ZONES["square"], "attic": msgspec.structs.replace(ZONES["square"], id="attic", level=9)}, 1))
    host.start(0.0)
    host.open_source("crowd", 0, 0.0)
    assert told(feed(host, 0, rows((5, 0, 7.0, 7.0)))) == [(0, "square", 5, ENTER)]


async def test_a_zone_is_drawn_counted_kept_through_a_death_and_erased() -> None:
    mall, zone = Address("mall", "demo", "parkside"), Address("zone", "demo", "parkside:square")
    async with stage() as at:
        await at.system.take("demo", "parkside", rows((5, 0, 7.0, 7.0), (6, 0, 30.0, 7.0)), source=None, tick=None)
        await at.poll(0.1)
        await at.system.ask(mall, DrawZone(zone=ZONES["square"]))
        await at.poll(0.1)
        state = await at.system.ask(zone, GetZone())
        assert isinstance(state, ZoneState)
        assert (state.inside, state.entries, state.ground_m2) == (1, 1, 100.0)
        await at.restart()
        await at.poll(0.1)
        await at.system.take("demo", "parkside", rows((5, 0, 8.0, 8.0), (6, 0, 8.0, 7.0)), source=None, tick=None)
        await at.poll(0.1)
        state = await at.system.ask(zone, GetZone())
        assert isinstance(state, ZoneState)
        assert (state.inside, state.entries, state.exits) == (2, 2, 0), "nobody enters a second time"
        assert await at.system.ask(mall, GetZones(level=0, box=(14.0, 14.0, 20.0, 20.0))) == Zones(zones=(ZONES["square"],))
        assert await at.system.ask(mall, GetZones(level=1, box=(14.0, 14.0, 20.0, 20.0))) == Zones(zones=())
        await at.system.ask(mall, EraseZone(zone_id="square"))
        await at.poll(0.1)
        gone = await at.system.ask(zone, GetZone())
        assert isinstance(gone, Rejected)
        assert gone.code == "zone_not_found"


NAN = float("nan")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"level": 2}, "levels 0 to 1"),
        ({"id": "front"}, "under another"),
        ({"id": "a/b"}, "zone id"),
        ({"shape": Polygon(((((0.0, 0.0), (4.0, 4.0), (4.0, 0.0), (0.0, 4.0)),),))}, "do not cross"),
        ({"shape": Polygon(((((0.0, 0.0), (4.0, 4.0), (8.0, 8.0)),),))}, "draw"),
        ({"shape": Polygon(((((0.0, 0.0), (0.5, 0.0), (0.5, 0.5)),),))}, "0.12 m2"),
        ({"shape": Polygon(((((0.0, 0.0), (0.0, 0.0), (0.5, 0.5)),),))}, "three different"),
        ({"shape": Polygon(())}, "without rings"),
        ({"shape": Polygon(((((0.0, NAN), (4.0, 4.0), (4.0, 0.0)),),))}, "finite"),
        ({"shape": Polygon((((*((float(i), float(i * i)) for i in range(10_001)),),),))}, "at most 10000"),
        ({"shape": Circle(0.0, float("inf"), 3.0)}, "finite"),
        ({"shape": Circle(0.0, 0.0, 0.0)}, "radius"),
        ({"shape": Along(((1.0, 1.0), (1.0, 1.0)), 2.0)}, "two or more"),
        ({"shape": InUnit("attic")}, "attic"),
        ({"shape": InUnit("shop-11")}, "is on level 1"),
        ({"hours": (Open(10.0, 5.0),)}, "end after they begin"),
    ],
)
def test_a_zone_that_cannot_be_says_why(change: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        check_zone(msgspec.structs.replace(ZONES["square"], **change), venue())
