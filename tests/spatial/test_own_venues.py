"""The two venues that ship with the project: made by their scripts, whole, and walkable from every entrance to every shop."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import shapely

from scenarios.venues import make_festival, make_mall
from spatial.checks import check_venue
from spatial.plan import level_plans
from spatial.venue import Venue
from spatial.venue_files import dump_venue, load_venue

SCRIPTS = [make_mall, make_festival]


@pytest.mark.parametrize("script", SCRIPTS, ids=["mall", "festival"])
def test_the_committed_document_is_what_the_script_makes(script: ModuleType) -> None:
    path: Path = script.PATH
    assert path.read_bytes() == dump_venue(script.make())
    assert path.stat().st_size < 500_000


@pytest.mark.parametrize("script", SCRIPTS, ids=["mall", "festival"])
def test_every_opening_entrance_and_stop_lies_on_the_one_connected_piece(script: ModuleType) -> None:
    venue: Venue = load_venue(script.PATH)
    for plan in level_plans(venue):
        level = venue.levels[plan.level]
        assert plan.blind == ()
        assert len(plan.pieces) == 1
        ground = plan.main
        rooms = [i for i, unit in enumerate(venue.units) if unit.level_id == level.id and unit.category.startswith(("room", "restroom"))]
        assert sorted(plan.interiors) == rooms
        points = [e.point for e in venue.entrances if e.level_id == level.id]
        points += [stop.point for c in venue.connectors for stop in c.stops if stop.level_id == level.id]
        assert all(plan.walkway.covers(shapely.Point(p)) and plan.walkway.boundary.distance(shapely.Point(p)) > 0.3 for p in points)
        assert ground.area > 0


@pytest.mark.parametrize("script", SCRIPTS, ids=["mall", "festival"])
def test_the_check_finds_nothing_to_mend(script: ModuleType) -> None:
    assert check_venue(load_venue(script.PATH)) == []


def test_the_mall_has_what_a_mall_has() -> None:
    venue = make_mall.make()
    assert [level.id for level in venue.levels] == ["P", "L0", "L1", "L2"]
    opened = {opening.unit_id for opening in venue.openings}
    assert len(opened) > 100
    assert len({o.name for o in venue.occupants}) == len(venue.occupants) > 95
    assert {e.code for e in venue.entrances} >= {"north_entrance", "south_entrance", "west_entrance", "east_entrance", "parking_entrance"}
    kinds = [(c.kind, c.direction) for c in venue.connectors]
    assert kinds.count(("escalator", "forward")) == kinds.count(("escalator", "backward")) == 5
    assert [len(c.stops) for c in venue.connectors if c.kind in ("elevator", "stairs")] == [4] * 6
    assert sum(unit.category == "parking" for unit in venue.units) > 300
    assert all(unit.till for unit in venue.units if unit.id in {o.unit_id for o in venue.occupants})


def test_the_festival_has_what_a_festival_has() -> None:
    venue = make_festival.make()
    assert sum(unit.category == "stage" for unit in venue.units) == 3
    assert sum(zone.category == "stage_front" for zone in venue.zones) == 3
    assert sum(occupant.category in ("bar", "food", "cafe") for occupant in venue.occupants) >= 12
    assert sum(unit.category.startswith("restroom") for unit in venue.units) >= 12
    assert {"main_gate", "west_gate", "camp_gate"} == {e.code for e in venue.entrances}
    assert any(a.category == "firstaid" for a in venue.amenities)
    assert venue.barriers
