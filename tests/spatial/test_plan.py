"""What can be walked and what cannot, on small hand-made plans whose answers are known by counting."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from esplanade.core.errors import NotFound
from spatial.plan import anchor_of, level_plan
from spatial.venue import Barrier, Level, Opening, Origin, Unit, UnitCategory, Venue


def box(x0: float, y0: float, x1: float, y1: float) -> tuple[tuple[tuple[tuple[float, float], ...], ...], ...]:
    return ((((x0, y0), (x1, y0), (x1, y1), (x0, y1)),),)


def unit(name: str, category: UnitCategory, *at: float) -> Unit:
    return Unit(id=name, level_id="L", category=category, polygon=box(*at))  # type: ignore[arg-type]


def opening(unit_id: str, a: tuple[float, float], b: tuple[float, float], name: str = "") -> Opening:
    return Opening(id=name or f"o-{unit_id}", level_id="L", unit_id=unit_id, a=a, b=b)


def venue(units: list[Unit], openings: list[Opening] | None = None, barriers: list[Barrier] | None = None) -> Venue:
    """A hall of 20 x 10 m."""
    return Venue(
        id="v", name="V", kind="mall", origin=Origin(lat_deg=0, lon_deg=0),
        levels=(Level(id="L", ordinal=0, name="L", short_name="L", outline=box(0, 0, 20, 10)),),
        units=tuple(units), openings=tuple(openings or []), barriers=tuple(barriers or []),
    )  # fmt: skip


def crosses(walls: np.ndarray, a: tuple[float, float], b: tuple[float, float]) -> bool:  # type: ignore[type-arg]
    path = shapely.LineString([a, b])
    return bool(shapely.intersects(shapely.linestrings(walls.reshape(-1, 2, 2)), path).any())


def test_a_room_with_an_opening_is_free_ground_joined_to_the_walkway() -> None:
    plan = level_plan(venue([unit("shop", "room", 5, 6, 10, 10)], [opening("shop", (6, 6), (8, 6))]), 0)
    assert plan.walkway.area == pytest.approx(180)
    assert plan.interiors[0].area == pytest.approx(20)
    assert plan.free.area == plan.main.area == pytest.approx(200)
    assert len(plan.pieces) == 1
    assert not crosses(plan.walls, (7, 5), (7, 7))
    assert crosses(plan.walls, (5.5, 5), (5.5, 7))
    assert crosses(plan.walls, (8.5, 5), (8.5, 7))
    assert crosses(plan.walls, (4, 8), (6, 8))


def test_the_walls_are_the_borders_less_the_gap() -> None:
    plan = level_plan(venue([unit("shop", "room", 5, 6, 10, 10)], [opening("shop", (6, 6), (8, 6))]), 0)
    length = np.hypot(plan.walls[:, 2] - plan.walls[:, 0], plan.walls[:, 3] - plan.walls[:, 1]).sum()
    assert length == pytest.approx(60 + 4 + 5 + 4 - 2)


def test_a_room_without_opening_is_solid() -> None:
    plan = level_plan(venue([unit("shop", "room", 5, 6, 10, 10)]), 0)
    assert plan.interiors == {}
    assert plan.free.area == pytest.approx(180)


def test_an_opening_onto_a_solid_is_blind_and_its_wall_stays() -> None:
    units = [unit("shop", "room", 5, 6, 10, 10), unit("store", "nonpublic", 5, 4, 10, 6)]
    plan = level_plan(venue(units, [opening("shop", (6, 6), (8, 6))]), 0)
    assert plan.blind == (0,)
    assert plan.interiors == {}


def test_an_opening_half_onto_a_solid_is_usable_over_the_other_half() -> None:
    units = [unit("shop", "room", 5, 6, 10, 10), unit("store", "nonpublic", 7, 4, 10, 6)]
    plan = level_plan(venue(units, [opening("shop", (6, 6), (8, 6))]), 0)
    assert plan.gaps[0].a == pytest.approx((6, 6))
    assert plan.gaps[0].b == pytest.approx((7, 6), abs=0.11)
    assert not crosses(plan.walls, (6.5, 5), (6.5, 7))
    assert crosses(plan.walls, (7.5, 5), (7.5, 7))


def test_an_opening_that_reaches_a_corner_leaves_the_next_rooms_wall_whole() -> None:
    units = [unit("a", "room", 5, 6, 10, 10), unit("b", "room", 10, 6, 15, 10)]
    plan = level_plan(venue(units, [opening("a", (8, 6), (10, 6)), opening("b", (12, 6), (13, 6))]), 0)
    assert crosses(plan.walls, (9.95, 6.001), (10.05, 6.001))
    assert crosses(plan.walls, (9, 8), (11, 8))


def test_a_room_behind_a_room_is_reached_through_it() -> None:
    units = [unit("front", "room", 5, 4, 10, 7), unit("back", "room", 5, 7, 10, 10)]
    plan = level_plan(venue(units, [opening("front", (6, 4), (7, 4)), opening("back", (6, 7), (7, 7))]), 0)
    assert len(plan.pieces) == 1
    assert plan.main.area == pytest.approx(200)


def test_parking_bays_and_rest_areas_are_open_ground_without_walls() -> None:
    plan = level_plan(venue([unit("bay", "parking", 5, 6, 8, 10), unit("rest", "walkway", 12, 4, 15, 6)]), 0)
    assert plan.walkway.area == pytest.approx(200)
    assert not crosses(plan.walls, (4, 8), (16, 5))


@pytest.mark.parametrize("category", ["nonpublic", "structure", "stage", "unspecified", "opentobelow", "stairs", "escalator", "elevator"])
def test_solids_take_ground_away_even_with_an_opening(category: UnitCategory) -> None:
    plan = level_plan(venue([unit("s", category, 5, 6, 10, 10)], [opening("s", (6, 6), (8, 6))]), 0)
    assert plan.free.area == pytest.approx(180)
    assert crosses(plan.walls, (7, 5), (7, 7))


def test_where_rooms_overlap_the_first_listed_keeps_the_ground_and_solids_win() -> None:
    units = [unit("a", "room", 5, 6, 10, 10), unit("b", "room", 8, 6, 12, 10), unit("pillar", "structure", 6, 8, 7, 9)]
    plan = level_plan(venue(units, [opening("a", (6, 6), (7, 6)), opening("b", (10.5, 6), (11.5, 6))]), 0)
    assert plan.interiors[0].area == pytest.approx(19)
    assert plan.interiors[1].area == pytest.approx(8)


def test_a_barrier_cuts_the_ground_in_two_and_takes_none() -> None:
    fence = Barrier(id="f", level_id="L", line=((10, 0), (10, 10)))
    plan = level_plan(venue([], barriers=[fence]), 0)
    assert plan.walkway.area == pytest.approx(200)
    assert len(plan.pieces) == 2
    assert crosses(plan.walls, (9, 5), (11, 5))


def test_a_barrier_with_a_gate_does_not_cut() -> None:
    fence = [Barrier(id="f", level_id="L", line=((10, 0), (10, 4))), Barrier(id="g", level_id="L", line=((10, 6), (10, 10)))]
    plan = level_plan(venue([], barriers=fence), 0)
    assert len(plan.pieces) == 1
    assert not crosses(plan.walls, (9, 5), (11, 5))


def test_a_courtyard_walled_in_by_units_is_a_piece_of_its_own() -> None:
    ring = [unit("s", "nonpublic", 4, 0, 6, 10)]
    plan = level_plan(venue(ring), 0)
    assert [round(piece.area) for piece in plan.pieces] == [140, 40]
    assert [round(piece.area) for piece in plan.walkway_pieces] == [140, 40]


def test_the_anchor_is_the_middle_of_the_first_opening_else_inside() -> None:
    v = venue(
        [unit("a", "room", 5, 6, 10, 10), unit("b", "room", 12, 6, 15, 10)],
        [opening("a", (6, 6), (8, 6)), opening("a", (9, 6), (10, 6), name="second")],
    )
    assert anchor_of(v, "a") == (0, 7.0, 6.0)
    level, x, y = anchor_of(v, "b")
    assert level == 0
    assert 12 < x < 15
    assert 6 < y < 10
    with pytest.raises(NotFound, match="'c'"):
        anchor_of(v, "c")


def test_a_level_that_is_not_there_is_refused() -> None:
    with pytest.raises(NotFound, match="level 1"):
        level_plan(venue([]), 1)


def test_an_opening_drawn_as_a_chord_across_a_bent_wall_opens_the_run_where_it_lies_along_the_wall() -> None:
    """Two shops of our own mall were walled in: the opening's two ends lay near walls, so its middle, far from any wall, was taken as the gap."""
    plan = level_plan(venue([unit("shop", "room", 0, 0, 10, 6)], [opening("shop", (10.0, 4.0), (9.7, 1.0))]), 0)
    (gap,) = plan.gaps
    assert np.hypot(gap.b[0] - gap.a[0], gap.b[1] - gap.a[1]) == pytest.approx(1.0, abs=0.05)
    assert not crosses(plan.walls, (9.5, 3.5), (10.5, 3.5))
    assert crosses(plan.walls, (9.5, 2.0), (10.5, 2.0))
