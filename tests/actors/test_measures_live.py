"""What operators measure while the venue lives: flow through lines, stays, density, heat, and two counts of one car park."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import shapely

from actors.events import EventBody, encode_event
from actors.messages import (
    BayChange,
    CompareParking,
    CountGates,
    DrawZone,
    GateCount,
    GetHeat,
    Heat,
    Measure,
    Measures,
    ParkingCompared,
    Recount,
    Rejected,
    SetBays,
)
from esplanade.core.ids import Address
from spatial.columns import LEFT
from spatial.drawn_zones import BACKWARD, FORWARD, Places, passed
from spatial.measures import Trajectories, passings
from spatial.zone_shapes import DrawnZone, Line
from tests.actors.parkside import rows
from tests.actors.stage import Stage, stage
from tests.actors.test_drawn_zones import ZONES, Standing, make_host, told
from tests.actors.test_positions_oracle import crowd, feed

MALL = Address("mall", "demo", "parkside")
ACROSS = DrawnZone(id="across", name="Across", level=0, shape=Line((20.0, -5.0), (18.0, 35.0)))


@pytest.mark.parametrize("seed", range(3))
def test_passings_of_a_line_are_what_shapely_says_and_survive_a_crash(seed: int) -> None:
    recorded = crowd(40 + seed, 150, 40)
    made: list[list[tuple[str, bytes]]] = []
    for crash_at in (None, 77):
        host = make_host(Standing({"across": ACROSS, "square": ZONES["square"]}, 1))
        durable: list[EventBody] = host.start(0.0).events + host.open_source("crowd", 0, 0.0).events
        tick = 0
        while tick < len(recorded):
            durable += feed(host, tick, recorded[tick])
            tick += 1
            if tick == crash_at:
                crash_at = None
                host = make_host(Standing({"across": ACROSS, "square": ZONES["square"]}, 1))
                for event in durable:
                    host.apply(event)
                durable += host.start(0.0).events
                tick = host.poll(0.0).publish[0][1].tick + 1  # type: ignore[union-attr]
        made.append([encode_event(event) for event in durable])
        got = [(tick, s, kind) for tick, zone, s, kind in told(durable) if zone == "across"]
    assert made[0] == made[1]
    line = shapely.LineString([(20.0, -5.0), (18.0, 35.0)])
    last: dict[int, tuple[float, float]] = {}
    expected = []
    for tick, columns in enumerate(recorded):
        for s, lv, x, y in zip(columns.subject.tolist(), columns.level.tolist(), columns.x_m.tolist(), columns.y_m.tolist(), strict=True):
            if lv == 0 and s in last and tick > 0 and shapely.LineString([last[s], (x, y)]).crosses(line):
                left_before = -2.0 * (last[s][1] + 5.0) - 40.0 * (last[s][0] - 20.0) > 0
                expected.append((tick, s, FORWARD if left_before else BACKWARD))
            if lv == 0:
                last[s] = x, y
            else:
                last.pop(s, None)
    assert got == sorted(expected)
    assert len(got) > 5


def test_who_stands_on_a_line_has_not_passed_it_and_passes_once() -> None:
    line = DrawnZone(id="l", name="L", level=0, shape=Line((0.0, 0.0), (0.0, 10.0)))

    def go(*xs: float) -> list[int]:
        at = [Places(np.zeros(1, np.uint8), np.array([x]), np.array([5.0])) for x in xs]
        return [int(passed(line, before, now)[0]) for before, now in itertools.pairwise(at)]

    assert go(-1.0, 0.0, 1.0, 0.0, -1.0) == [0, 1, -1, 0]
    assert go(-1.0, 0.0, -1.0) == [0, 0]
    assert sum(go(-1.0, 0.0, 0.0, 1.0)) == 1
    beyond = Places(np.zeros(1, np.uint8), np.array([1.0]), np.array([30.0]))
    assert passed(line, Places(np.zeros(1, np.uint8), np.array([-1.0]), np.array([30.0])), beyond)[0] == 0
    nowhere = Places(np.array([LEFT], np.uint8), np.array([-1.0]), np.array([5.0]))
    assert passed(line, nowhere, Places(np.zeros(1, np.uint8), np.array([1.0]), np.array([5.0])))[0] == 0


def test_first_passings_of_a_line_are_those_of_the_library() -> None:
    rng = np.random.default_rng(8)
    steps = rng.normal(0, 0.8, (60, 50, 2)).cumsum(axis=0) + rng.uniform(-4, 4, (1, 50, 2))
    line = DrawnZone(id="l", name="L", level=0, shape=Line((-1.0, -6.0), (1.0, 6.0)))
    level = np.zeros(50, np.uint8)
    first: dict[int, tuple[int, bool]] = {}
    for frame in range(1, 60):
        way = passed(line, Places(level, *steps[frame - 1].T), Places(level, *steps[frame].T))
        for person in np.flatnonzero(way).tolist():
            first.setdefault(person, (frame, bool(way[person] > 0)))
    frame, person = np.divmod(np.arange(60 * 50), 50)
    found = passings(Trajectories.of(person, frame, *steps.reshape(-1, 2).T, rate_hz=10), ((-1.0, -6.0), (1.0, 6.0)))
    assert {p: (f, w) for p, f, w in zip(found.person.tolist(), found.frame.tolist(), found.forward.tolist(), strict=True)} == first
    assert len(first) > 10


async def measured(at: Stage, zone: str, *, voronoi: bool = False) -> Measures:
    found = await at.system.ask(MALL, Measure(zone_id=zone, voronoi=voronoi))
    assert isinstance(found, Measures), found
    return found


async def test_a_zone_tells_its_density_flow_and_stays() -> None:
    async with stage() as at:
        await at.system.ask(MALL, DrawZone(zone=ZONES["square"]))
        await at.system.take("demo", "parkside", rows((5, 0, 7.0, 7.0), (6, 0, 12.0, 12.0), (7, 0, 30.0, 7.0)), source=None, tick=None)
        await at.poll(0.1)
        found = await measured(at, "square", voronoi=True)
        assert (found.inside, found.ground_m2, found.entries_per_min, found.exits_per_min) == (2, 100.0, 2.0, 0.0)
        assert found.voronoi_per_m2 is not None
        assert 0 < found.voronoi_per_m2 < 0.02
        for i in range(120):
            await at.poll(0.1)
            if i % 30 == 0:
                await at.system.shards[0].renew()
        await at.system.take("demo", "parkside", rows((5, 0, 20.0, 7.0)), source=None, tick=None)
        await at.poll(0.1)
        found = await measured(at, "square")
        assert (found.inside, found.exits_per_min) == (1, 1.0)
        assert sum(found.stays) == 1
        assert found.stays[found.stays_s.index(10)] == 1, "twelve seconds"
        assert found.mean_stay_s == pytest.approx(12.1, abs=0.2)
        unit = await measured(at, "shop-00")
        assert (unit.inside, unit.ground_m2, unit.entries_per_min) == (0, 80.0, None)
        nothing = await at.system.ask(MALL, Measure(zone_id="attic"))
        assert isinstance(nothing, Rejected)


async def test_heat_is_person_seconds_where_people_were() -> None:
    async with stage() as at:
        await at.system.take("demo", "parkside", rows((5, 0, 7.0, 7.0), (6, 0, 7.5, 7.5), (7, 1, 30.0, 7.0)), source=None, tick=None)
        for _ in range(41):
            await at.poll(0.1)
        heat = await at.system.ask(MALL, GetHeat(level=0))
        assert isinstance(heat, Heat)
        cells = np.frombuffer(heat.person_s, "<f4").reshape(heat.rows, heat.cols)
        samples = (heat.tick - heat.since_tick) // 10 + 1
        assert samples >= 4
        assert cells[int(7 // heat.cell_m), int(7 // heat.cell_m)] == 2 * samples
        assert cells.sum() == 2 * samples
        nowhere = await at.system.ask(MALL, GetHeat(level=7))
        assert isinstance(nowhere, Rejected)


async def test_bays_and_gates_say_by_how_much_they_disagree_through_a_death() -> None:
    async with stage() as at:
        assert await at.system.ask(MALL, CompareParking()) == ParkingCompared(total=2, taken=0, inside=0, drift=0)
        await at.system.ask(MALL, SetBays(bays=(BayChange("bay-0", True),)))
        assert await at.system.ask(MALL, CompareParking()) == ParkingCompared(total=2, taken=1, inside=0, drift=-1)
        counts = [GateCount("north", i, 2 * i, i) for i in range(1, 6)]
        random.Random(4).shuffle(counts)
        told = await at.system.ask(MALL, CountGates(counts=tuple(counts)))
        assert told == ParkingCompared(total=2, taken=1, inside=5, drift=4)
        await at.restart()
        await at.poll(0.1)
        assert await at.system.ask(MALL, CompareParking(moving_at_most=3)) == ParkingCompared(total=2, taken=1, inside=5, drift=1)
        down = await at.system.ask(MALL, CountGates(counts=(GateCount("north", 9, 3, 0),)))
        assert isinstance(down, Rejected)
        assert down.code == "count_went_down"
        assert await at.system.ask(MALL, Recount(moving=1)) == ParkingCompared(total=2, taken=1, inside=2, drift=0)
