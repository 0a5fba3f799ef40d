"""Ways through the two real malls. Needs ESPLANADE_DATA. Golden directions are kept as shapes and checked on the ground: shops' names stay with the data."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import shapely

from spatial.directions import Go, Guide, Take, english
from spatial.importers.malls import read_site
from spatial.plan import shape
from spatial.profiles import WALKING, WHEELCHAIR
from spatial.routes import NoRoute, Route
from spatial.routing import Router
from tests.spatial.routing_oracle import ExactLevel

DATA = os.environ.get("ESPLANADE_DATA", "")
pytestmark = [pytest.mark.data, pytest.mark.skipif(not DATA, reason="ESPLANADE_DATA does not name the folder of the real data")]


@cache
def router(site: str) -> Router:
    return Router.build(read_site(Path(DATA) / "malls" / site).venue)


def shops(site: str) -> list[str]:
    return [occupant.unit_id for occupant in router(site).venue.occupants]


def test_every_shop_of_site2_is_reached_step_free_from_every_entrance() -> None:
    mall = router("site2")
    table = mall.matrix([entrance.code for entrance in mall.venue.entrances], shops("site2"), profile=WHEELCHAIR)
    assert table.shape[0] == 11
    assert np.isfinite(table).all()


def test_step_free_ways_in_site2_use_lifts_alone_and_are_never_faster_than_walking_at_their_pace() -> None:
    mall, rng = router("site2"), np.random.default_rng(4)
    for a, b in rng.choice(shops("site2"), (60, 2)):
        route = mall.route(str(a), str(b), profile=WHEELCHAIR)
        assert isinstance(route, Route)
        assert {ride.way for ride in route.rides} <= {"elevator"}
        walked = mall.route(str(a), str(b), profile=WALKING)
        assert isinstance(walked, Route)
        assert walked.seconds <= route.seconds


def test_ways_on_a_floor_of_site2_are_as_short_as_the_exact_ones_and_stay_on_the_ground() -> None:
    mall = router("site2")
    exact = ExactLevel.of(mall.plans[0])
    here = [place for place in shops("site2") if mall.access(place)[0].level == 0]
    rng = np.random.default_rng(6)
    for a, b in rng.choice(here, (12, 2)):
        route = mall.route(str(a), str(b), by="shortest")
        assert isinstance(route, Route)
        line = route.walks[0].points if route.walks else np.zeros((2, 2))
        if len(route.legs) == 1 and a != b:
            assert exact.walkable.covers(shapely.LineString(line))
            assert route.length_m <= 1.05 * exact.length(line[0], line[-1])


def test_site1_answers_that_its_levels_are_not_connected() -> None:
    mall = router("site1")
    by_level: dict[int, str] = {}
    for shop in shops("site1"):
        for at in mall.access(shop):
            by_level.setdefault(at.level, shop)
    answer = mall.route(by_level[0], by_level[2])
    assert isinstance(answer, NoRoute)
    assert answer.reason == "levels_not_connected"
    assert "not connected" in answer.message


def shape_of(lines: tuple[str, ...], names: set[str]) -> list[str]:
    """The sentences with every shop's name replaced by a bullet."""
    pattern = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return [re.sub(pattern, "•", line) for line in lines]


GOLDEN = [
    "Start at East entrance on F1.",
    "Walk 25 m, passing • on your left and • on your right.",
    "Bear right and walk 25 m, passing • on your right.",
    "Bear left at the escalator and walk 15 m, passing • on your left.",
    "Take the lift up to F4.",
    "Walk 5 m.",
    "Turn right at the escalator and walk 90 m, passing • on your right and • on your left.",
    "• is on your left.",
]


def test_golden_directions_in_site2() -> None:
    mall = router("site2")
    guide, names = Guide(mall), {occupant.name for occupant in mall.venue.occupants}
    goal = max((shop for shop in shops("site2") if mall.access(shop)[0].level == 3), key=lambda shop: mall.access(shop)[0].x_m)
    route = mall.route("east_entrance", goal, profile=WHEELCHAIR)
    assert isinstance(route, Route)
    said = shape_of(english(guide.steps(route, "east_entrance", goal)), names)
    assert said == GOLDEN
    assert [ride.to_level for ride in route.rides] == [3]


def test_shops_said_to_be_passed_are_there_and_on_that_side() -> None:
    mall = router("site2")
    guide, units = Guide(mall), {unit.id: unit for unit in mall.venue.units}
    rng = np.random.default_rng(8)
    said = wrong = 0
    for a, b in rng.choice(shops("site2"), (80, 2)):
        if a == b:
            continue
        route = mall.route(str(a), str(b))
        assert isinstance(route, Route)
        steps = guide.steps(route, str(a), str(b))
        assert sum(isinstance(step, Take) for step in steps) <= len(route.rides)
        lines = [(walk.level, shapely.LineString(walk.points)) for walk in route.walks]
        for step in steps:
            for passed in step.passing if isinstance(step, Go) else ():
                polygon = shape(units[passed.landmark.unit_id].polygon)
                level = mall.venue.level_index(units[passed.landmark.unit_id].level_id)
                line = min((way for on, way in lines if on == level), key=lambda way: way.distance(polygon))
                assert line.distance(polygon) < 10
                at = line.project(polygon.centroid)
                p, q = line.interpolate(max(at - 1.5, 0)), line.interpolate(at + 1.5)
                across = (q.x - p.x) * (polygon.centroid.y - p.y) - (q.y - p.y) * (polygon.centroid.x - p.x)
                said += 1
                wrong += (across > 0) != (passed.side == "left")
    assert said > 60
    assert wrong <= said * 0.05, "a middle may lie across a bend of the way; a door does not"
