"""The position host against slow, obvious rules, and against itself after crashes."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
import pytest
import shapely

from actors.events import Dwelt, EventBody, Pushed, Transitions, encode_event
from actors.positions import CHECKPOINT_TICKS, HostSettings, PositionHost
from actors.venue_book import VenueBook
from spatial.columns import LEFT, PositionColumns
from spatial.offers import STALE_TICKS, Everyone, Inside, Offer, Within
from spatial.plan import anchor_of
from tests.actors.parkside import document, rows

BOOK = VenueBook.read(document())
SETTINGS = HostSettings(dwell_ticks=7)

OFFERS = {
    offer.id: offer
    for offer in (
        Offer(id="near", unit_id="shop-00", title="near", audience=Within(radius_m=6.0), cap=2, cooldown_ticks=15),
        Offer(id="near-late", unit_id="shop-11", title="late", audience=Within(radius_m=9.0), starts_tick=30, ends_tick=90, cap=3, cooldown_ticks=5),
        Offer(id="flash", unit_id="shop-02", title="flash", audience=Inside(), starts_tick=40, ends_tick=80, cap=2, cooldown_ticks=3, flash=True),
        Offer(id="all", unit_id="shop-01", title="all", audience=Everyone(), starts_tick=25, cap=1),
        Offer(id="always", unit_id="shop-01", title="always", audience=Inside(), cap=255, cooldown_ticks=0),
    )
}


def make_host() -> PositionHost:
    return PositionHost(BOOK, lambda: (1, OFFERS), epoch=1, pseudonym_key=bytes(64), settings=SETTINGS)


def crowd(seed: int, ticks: int, people: int) -> list[PositionColumns]:
    """Random walkers who come, go, leave, fall silent, and report at rates of their own."""
    chance = random.Random(seed)
    at = {s: (chance.randrange(2), chance.uniform(-5, 45), chance.uniform(-5, 35)) for s in range(people)}
    every = {s: chance.choice([1, 1, 3, 10]) for s in at}
    away: dict[int, int] = {}
    made = []
    for tick in range(ticks):
        people_now = []
        for s in at:
            if away.get(s, 0) > tick:
                continue
            level, x, y = at[s]
            x, y = x + chance.uniform(-1.5, 1.5), y + chance.uniform(-1.5, 1.5)
            if chance.random() < 0.05:
                x, y = round(x), 20.0  # on borders too
            if chance.random() < 0.02:
                level = 1 - level
            at[s] = (level, x, y)
            if chance.random() < 0.02:
                away[s] = tick + chance.choice([5, 20, STALE_TICKS + 10])
                if chance.random() < 0.5:
                    people_now.append((s * 7 + 1, LEFT, 0.0, 0.0))
                continue
            if tick % every[s] == s % every[s]:
                people_now.append((s * 7 + 1, level, x, y))
        chance.shuffle(people_now)
        made.append(rows(*people_now))
    return made


@dataclass
class Oracle:
    """The rules of `spatial.offers`, in the words of the module docstring, with Shapely and dictionaries."""

    last: dict[int, tuple[int, int, float, float]] = field(default_factory=dict)  # subject -> (tick, level, x, y) of the last observation
    gone: set[int] = field(default_factory=set)
    seen: set[int] = field(default_factory=set)
    member: dict[int, dict[int, int]] = field(default_factory=dict)
    eligible: dict[str, set[int]] = field(default_factory=dict)
    pushed: dict[tuple[str, int], list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        venue = BOOK.venue
        level = {item.id: i for i, item in enumerate(venue.levels)}
        shapes = [(level[u.level_id], u.polygon) for u in venue.units] + [(level[z.level_id], z.polygon) for z in venue.zones]
        shapes += [(i, item.outline) for i, item in enumerate(venue.levels)]
        self.fences = [(lv, shapely.MultiPolygon([shapely.Polygon(p[0], p[1:]) for p in polygon])) for lv, polygon in shapes]

    def tick(self, tick: int, columns: PositionColumns) -> tuple[set[tuple[int, int, int]], set[tuple[int, int]], set[tuple[str, int]]]:
        for s, lv, x, y in zip(columns.subject.tolist(), columns.level.tolist(), columns.x_m.tolist(), columns.y_m.tolist(), strict=True):
            if lv == LEFT:
                self.gone.add(s)
            else:
                self.gone.discard(s)
                self.last[s] = (tick, lv, x, y)
                self.seen.add(s)
        present = {s for s in self.last if s not in self.gone and tick - self.last[s][0] < STALE_TICKS}
        crossed, dwelt = set(), set()
        for s in sorted(self.last):
            now = set()
            if s in present:
                _, lv, x, y = self.last[s]
                now = {f for f, (flevel, shape) in enumerate(self.fences) if flevel == lv and shape.covers(shapely.Point(x, y))}
            held = self.member.setdefault(s, {})
            for f in set(held) - now:
                del held[f]
                crossed.add((s, f, 0))
            for f in now - set(held):
                held[f] = tick
                crossed.add((s, f, 1))
            dwelt |= {(s, f) for f, since in held.items() if f < BOOK.outline_base and tick - since == SETTINGS.dwell_ticks}
        pushes = set()
        for offer in OFFERS.values():
            eligible = set()
            if offer.starts_tick <= tick < offer.ends_tick:
                match offer.audience:
                    case Within(radius_m=r):
                        alevel, ax, ay = anchor_of(BOOK.venue, offer.unit_id)
                        eligible = {
                            s for s in present if self.last[s][1] == alevel and (self.last[s][2] - ax) ** 2 + (self.last[s][3] - ay) ** 2 <= r * r
                        }
                    case Inside():
                        eligible = {s for s in present if any(f >= BOOK.outline_base for f in self.member[s])}
                    case Everyone():
                        eligible = set(self.seen)
            for s in eligible - self.eligible.get(offer.id, set()):
                times = self.pushed.setdefault((offer.id, s), [])
                if len(times) < offer.cap and (not times or tick - times[-1] >= offer.cooldown_ticks):
                    times.append(tick)
                    pushes.add((offer.id, s))
            self.eligible[offer.id] = eligible
        return crossed, dwelt, pushes


def columns_of(event: EventBody) -> list[tuple[int, ...]]:
    assert isinstance(event, Transitions | Dwelt)
    parts = [np.frombuffer(event.subject, "<u4").tolist(), np.frombuffer(event.fence, "<u2").tolist()]
    if isinstance(event, Transitions):
        parts.append(list(event.entered))
    return list(zip(*parts, strict=True))


def feed(host: PositionHost, tick: int, columns: PositionColumns) -> list[EventBody]:
    host.take(columns, "crowd", tick, 0.0)
    host.watermark("crowd", tick, len(columns), 0.0)
    made: list[EventBody] = []
    while host.ready(0.0):
        made += host.close(0.0).events
    return made


@pytest.mark.parametrize("seed", range(4))
def test_every_tick_says_what_the_brute_force_oracle_says(seed: int) -> None:
    ticks = 760 if seed == 0 else 140
    host, oracle = make_host(), Oracle()
    host.start(0.0)
    host.open_source("crowd", 0, 0.0)
    total = 0
    for tick, columns in enumerate(crowd(seed, ticks, 12 if seed == 0 else 30)):
        crossed, dwelt, pushes = oracle.tick(tick, columns)
        events = feed(host, tick, columns)
        by_type = {type(event): event for event in events}
        got_crossed = columns_of(by_type[Transitions]) if Transitions in by_type else []
        assert got_crossed == sorted(crossed), f"tick {tick}"
        got_dwelt = columns_of(by_type[Dwelt]) if Dwelt in by_type else []
        assert got_dwelt == sorted(dwelt), f"tick {tick}"
        got: list[tuple[str, int]] = []
        pushed = by_type.get(Pushed)
        if isinstance(pushed, Pushed):
            subjects = np.frombuffer(pushed.subject, "<u4").tolist()
            got = [(pushed.offers[o], s) for o, s in zip(np.frombuffer(pushed.offer, "<u2").tolist(), subjects, strict=True)]
        assert got == sorted(pushes), f"tick {tick}"
        total += len(got)
    assert total > 30
    assert host.rules.total == total


def test_counts_by_zone_follow_from_the_transitions() -> None:
    host, oracle = make_host(), Oracle()
    host.start(0.0)
    host.open_source("crowd", 0, 0.0)
    stayed: dict[int, int] = {}
    entries: dict[int, int] = {}
    for tick, columns in enumerate(crowd(9, 120, 25)):
        before = {s: dict(held) for s, held in oracle.member.items()}
        crossed, _, _ = oracle.tick(tick, columns)
        feed(host, tick, columns)
        for s, f, entered in crossed:
            if entered:
                entries[f] = entries.get(f, 0) + 1
            else:
                stayed[f] = stayed.get(f, 0) + tick - before[s][f]
    for zone_id, fence in BOOK.zone_fence.items():
        state = host.zone_state(zone_id)
        assert state is not None
        assert state.inside == sum(fence in held for held in oracle.member.values())
        assert state.entries == entries.get(fence, 0)
        assert state.stayed_s == pytest.approx(stayed.get(fence, 0) * 0.1)


def restarted(durable: list[EventBody], snapshot: tuple[int, bytes] | None) -> PositionHost:
    host = make_host()
    first = 0
    if snapshot is not None:
        first, state = snapshot
        host.load(state)
    for event in durable[first:]:
        host.apply(event)
    return host


@pytest.mark.parametrize("seed", range(12))
def test_crashes_at_any_point_change_no_event(seed: int) -> None:
    """Sources send everything after the Rewind again; what follows equals, byte by byte, the run without a crash."""
    chance = random.Random(1000 + seed)
    ticks = 230
    recorded = crowd(100 + seed, ticks, 20)

    without = make_host()
    whole = without.start(0.0).events + without.open_source("crowd", 0, 0.0).events
    for tick, columns in enumerate(recorded):
        whole += feed(without, tick, columns)

    host = make_host()
    durable = host.start(0.0).events + host.open_source("crowd", 0, 0.0).events
    pending: list[EventBody] = []
    snapshot: tuple[int, bytes] | None = None
    tick, newest_closed, crashes = 0, -1, 0
    while tick < ticks:
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
            host = restarted(durable, snapshot)
            pending += host.start(0.0).events
            rewind = host.poll(0.0).publish[0][1]
            back = rewind.tick  # type: ignore[union-attr]
            assert newest_closed - back <= CHECKPOINT_TICKS, "a source keeps no rows further back"
            tick = back + 1
    durable += pending
    assert crashes > 2
    assert [encode_event(event) for event in durable] == [encode_event(event) for event in whole]
    assert host.save() == without.save()
