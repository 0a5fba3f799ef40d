"""How people walk, as claims: speed, walls, bodies, doors, connectors."""

from __future__ import annotations

import numpy as np
import pytest

from esplanade.core.clock import TICK_S
from simulation.agents import RIDING, STAYING, WALKING
from simulation.demand import Demand
from simulation.engine import Crowd
from spatial.columns import LEFT
from spatial.venue import Venue
from tests.simulation import twins
from tests.simulation.venues import arcade, bottleneck, corridor, festival

QUIET = Demand(hourly=(0.0,), stay_s=(3600.0, 0.1))


def stand_in(crowd: Crowd, x: float, y: float, *, level: int = 0, place: str, speed: float | None = None) -> int:
    """Add one person at a point who walks to a place; the row."""
    cell = int(crowd.ground.near(level, (x, y), 1.0)[0])
    i = crowd.admit_new(crowd.places.name.index(place), cell)
    if speed is not None:
        crowd.agents.speed[i] = speed
    crowd.replan(i)
    return i


def busy(venue: Venue, people: int, *, seed: int = 3, stay_s: float = 20.0) -> Crowd:
    crowd = Crowd(venue, Demand(hourly=(0.0,), prefill=people, hold_population=True, settle_s=1.0, stay_s=(stay_s, 0.5)), seed=seed)
    crowd.prefill()
    return crowd


@pytest.mark.parametrize("speed", [0.8, 1.34, 1.6])
def test_alone_a_person_walks_at_the_desired_speed(speed: float) -> None:
    crowd = Crowd(corridor(), QUIET, seed=1)
    stand_in(crowd, 2.0, 2.0, place="east", speed=speed)
    a = crowd.agents
    while a.x[0] < 5.0:
        crowd.step()
    x, tick = a.x[0], crowd.tick
    while a.x[0] < 35.0:
        crowd.step()
    assert (a.x[0] - x) / ((crowd.tick - tick) * TICK_S) == pytest.approx(speed, rel=0.01)


def test_a_person_reaches_the_shop_and_stays_inside() -> None:
    crowd = Crowd(corridor(), QUIET, seed=1)
    stand_in(crowd, 2.0, 2.0, place="east", speed=1.34)
    for _ in range(int(60 / TICK_S)):
        crowd.step()
    a = crowd.agents
    assert a.mode[0] == STAYING
    assert 40 < a.x[0] < 50
    assert 4 < a.y[0] < 10


@pytest.mark.parametrize(("venue", "people"), [(arcade(), 250), (bottleneck(1.0), 40), (festival(), 150)], ids=["arcade", "bottleneck", "festival"])
def test_nobody_ever_crosses_a_wall(venue: Venue, people: int) -> None:
    crowd = busy(venue, people)
    ground = crowd.ground
    before: dict[int, tuple[int, float, float]] = {}
    for _ in range(600):
        riders = set(crowd.agents.subject[crowd.agents.mode == RIDING].tolist())
        rows = crowd.step().positions
        riders |= set(crowd.agents.subject[crowd.agents.mode == RIDING].tolist())
        now = {int(s): (int(v), float(x), float(y)) for s, v, x, y in zip(rows.subject, rows.level, rows.x_m, rows.y_m, strict=True) if v != LEFT}
        both = [s for s in now if s in before and s not in riders]
        assert all(now[s][0] == before[s][0] for s in both)
        for level in range(ground.levels):
            mine = [s for s in both if now[s][0] == level]
            if mine:
                p, q = (np.array([where[s][1:] for s in mine]) for where in (before, now))
                moved = (p != q).any(axis=1)
                assert not len(twins.crossings(p[moved], q[moved], ground.walls[ground.wall_level == level]))
        before = now


def test_bodies_hardly_overlap_even_in_a_full_arcade() -> None:
    crowd = busy(arcade(), 400)
    for _ in range(600):
        crowd.step()
    report = crowd.report()
    assert report.overlapping == 0
    assert report.max_overlap_m < 0.15


def test_two_streams_pass_each_other() -> None:
    crowd = Crowd(corridor(), QUIET, seed=1)
    for k in range(15):
        stand_in(crowd, 14.0 + 0.9 * (k % 5), 0.6 + 1.2 * (k // 5), place="east")
        stand_in(crowd, 32.0 + 0.9 * (k % 5), 0.6 + 1.2 * (k // 5), place="west")
    for _ in range(int(90 / TICK_S)):
        crowd.step()
    a = crowd.agents
    assert (a.mode == STAYING).all()
    east = np.array([crowd.places.name[p] == "east" for p in a.place])
    assert (a.x[east] > 40).all()
    assert (a.x[~east] < 10).all()


@pytest.mark.parametrize("width", [0.9, 1.2, 2.4])
def test_a_bottleneck_lets_one_to_three_people_through_a_second_and_metre(width: float) -> None:
    """Laboratory bottlenecks of 0.9-2.4 m: about 1.3-2.3 persons/s/m (Seyfried et al. 2009, Transportation Science 43, 395-406)."""
    crowd = Crowd(bottleneck(width), QUIET, seed=2)
    for k in range(80):
        stand_in(crowd, 1.0 + 0.8 * (k % 10), 1.5 + 0.7 * (k // 10), place="e0")
    crossed: list[int] = []
    outside: set[int] = set()
    for _ in range(int(180 / TICK_S)):
        rows = crowd.step().positions
        for subject in rows.subject[(rows.level == LEFT) | (rows.y_m < 0)].tolist():
            if subject not in outside:
                outside.add(subject)
                crossed.append(crowd.tick)
    assert len(crossed) == 80
    flow = 50 / ((crossed[64] - crossed[14]) * TICK_S) / width
    assert 0.9 < flow < 3.0


def test_levels_change_only_at_connectors_and_in_their_direction() -> None:
    crowd = busy(arcade(), 150)
    ends = {
        (int(a), int(b)): (c, float(ground.x[s]), float(ground.y[s]), float(ground.x[e]), float(ground.y[e]))
        for ground in [crowd.ground]
        for a, b, c, s, e in zip(
            crowd.links.start_level, crowd.links.end_level, crowd.links.connector, crowd.links.start, crowd.links.end, strict=True
        )
        if c != "stairs"
    }
    assert {key: value[0] for key, value in ends.items()} == {(0, 1): "up", (1, 0): "down"}
    before: dict[int, tuple[int, float, float]] = {}
    changes = {(0, 1): 0, (1, 0): 0}
    for _ in range(1800):
        rows = crowd.step().positions
        now = {int(s): (int(v), float(x), float(y)) for s, v, x, y in zip(rows.subject, rows.level, rows.x_m, rows.y_m, strict=True) if v != LEFT}
        for subject, (level, x, y) in now.items():
            old = before.get(subject)
            if old is not None and old[0] != level:
                changes[old[0], level] += 1
                starts, stops = [], []
                for k in range(len(crowd.links)):
                    if (crowd.links.start_level[k], crowd.links.end_level[k]) == (old[0], level):
                        s, e = crowd.links.start[k], crowd.links.end[k]
                        starts.append(np.hypot(crowd.ground.x[s] - old[1], crowd.ground.y[s] - old[2]))
                        stops.append(np.hypot(crowd.ground.x[e] - x, crowd.ground.y[e] - y))
                assert min(starts) < 0.1
                assert min(stops) < 2.3
        before = now
    assert min(changes.values()) > 5


def test_a_level_with_only_a_way_up_is_reported_and_not_visited() -> None:
    crowd = Crowd(arcade(escalators=False, up_only=True), Demand(hourly=(0.0,), prefill=60, hold_population=True, settle_s=1.0), seed=1)
    assert set(crowd.report().unreachable) == {f"F1-s{k}" for k in range(4)}
    crowd.prefill()
    for _ in range(100):
        assert (crowd.step().positions.level != 1).all()


def test_an_escalator_carries_no_more_than_one_person_every_0_6_s() -> None:
    crowd = Crowd(arcade(), QUIET, seed=1)
    for k in range(40):
        stand_in(crowd, 3.0 + 0.8 * (k % 10), 1.0 + 0.8 * (k // 10), place="F1-s1")
    boarded: dict[int, int] = {}
    for _ in range(600):
        crowd.step()
        a = crowd.agents
        for i in np.flatnonzero(a.mode == RIDING):
            if crowd.links.connector[a.link[i]] == "up":
                boarded.setdefault(int(a.subject[i]), crowd.tick)
    ticks = sorted(boarded.values())
    assert len(ticks) > 20
    assert all(ticks[k + 10] - ticks[k] >= 59 for k in range(len(ticks) - 10))


def test_those_who_stand_too_long_choose_another_way() -> None:
    crowd = Crowd(corridor(), QUIET, seed=1)
    i = stand_in(crowd, 25.0, 2.0, place="east", speed=1.0)
    a = crowd.agents
    a.mark_at[i] = -199
    a.speed[i] = 1e-9
    crowd.step()
    assert crowd.report().gave_up == 1
    assert a.mode[i] == WALKING
