"""Words for ways: on small plans where the right words are plain to see, and golden ones through our own mall."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from scenarios.venues import make_mall
from spatial.directions import Arrive, Go, Guide, Landmark, Passed, Start, Take, Turn, bends, english, smooth
from spatial.profiles import WALKING, WHEELCHAIR, Profile
from spatial.route_drawing import draw_route
from spatial.routes import At, Place, Route
from spatial.routing import Router
from spatial.venue import Occupant, Opening, Venue
from tests.spatial.test_routing import LIFT, STAIRS, UP, connector, hall, unit


def words(router: Router, start: Place, goal: Place, profile: Profile = WALKING) -> tuple[str, ...]:
    route = router.route(start, goal, profile=profile)
    assert isinstance(route, Route)
    return english(Guide(router).steps(route, start, goal))


def street() -> Venue:
    """A corridor along y = 5 with two shops north and one south, and a block that the way from west to east must round."""
    venue = hall(
        [unit("books", "L0", "room", 8, 8, 14, 20), unit("cafe", "L0", "room", 16, 8, 22, 20), unit("toys", "L0", "room", 10, 0, 20, 2)],
        [
            Opening(id="o1", level_id="L0", unit_id="books", a=(10, 8), b=(12, 8)),
            Opening(id="o2", level_id="L0", unit_id="cafe", a=(18, 8), b=(20, 8)),
            Opening(id="o3", level_id="L0", unit_id="toys", a=(14, 2), b=(16, 2)),
        ],
        [UP, LIFT, STAIRS],
    )
    shops = [
        Occupant(id=f"t{n}", unit_id=u, name=name, popularity=p)
        for n, (u, name, p) in enumerate([("books", "Books", 2), ("cafe", "Cafe", 3), ("toys", "Toys", 1)])
    ]
    return venue.model_copy(update={"occupants": tuple(shops)})


def test_shops_passed_are_named_with_the_side_they_are_on_the_most_popular_first_choice() -> None:
    eastward = words(Router.build(street()), At(0, 1, 5), At(0, 28, 5))
    assert eastward == ("Start on Level 0.", "Walk 25 m, passing Books on your left and Cafe on your left.", "You have arrived.")
    westward = words(Router.build(street()), At(0, 28, 5), At(0, 1, 5))
    assert westward[1] == "Walk 25 m, passing Cafe on your right and Books on your right."


def test_the_goal_lies_on_the_side_where_one_finds_it() -> None:
    router = Router.build(street())
    assert words(router, At(0, 1, 7.5), "cafe")[-1] == "Cafe is on your left."
    assert words(router, At(0, 35, 7.5), "cafe")[-1] == "Cafe is on your right."
    assert words(router, At(0, 19, 3), "cafe")[-1] == "Cafe is straight ahead."


def test_rides_name_the_level_to_get_off_at() -> None:
    router = Router.build(street())
    assert "Take the escalator up to Level 1." in words(router, "books", At(1, 30, 15))
    rolled = words(router, "books", At(1, 5, 5), WHEELCHAIR)
    assert rolled[0].startswith("Start at Books on Level 0")
    assert "Take the lift up to Level 1." in rolled


def test_stairs_after_stairs_are_one_climb() -> None:
    venue = hall(connectors=[connector("a", "stairs", ("L0", 5, 5), ("L1", 5, 5)), connector("b", "stairs", ("L1", 5, 5), ("L2", 5, 5))], levels=3)
    said = words(Router.build(venue), At(0, 1, 5), At(2, 9, 5))
    assert [line for line in said if "stairs" in line] == ["Take the stairs up to Level 2."]


def test_a_turn_is_named_by_its_side_as_one_walks() -> None:
    square = np.array([(0.0, 0.0), (20.0, 0.0), (20.0, 20.0)])
    assert [round(turned) for _, turned in bends(square)] == [90]
    assert [round(turned) for _, turned in bends(square[::-1])] == [-90]


def test_a_curved_wall_is_one_turn() -> None:
    angle = np.linspace(0, np.pi / 2, 30)
    curve = np.concatenate([[(-20.0, 0.0)], np.column_stack([3 * np.sin(angle), 3 - 3 * np.cos(angle)]), [(3.0, 23.0)]])
    (turn,) = bends(smooth(curve))
    assert turn[1] == pytest.approx(90, abs=5)


def test_every_step_has_its_english() -> None:
    shop, lift = Landmark("shop", "Books", "u1"), Landmark("elevator", None, "u2")
    steps = (
        Start("East entrance", "Level 1", shop), Go(15, ()), Turn("sharp_left", lift), Go(40, (Passed(shop, "right"),)), Turn("round", None),
        Take("elevator", "c", "Level 0", 1, False), Take("stairs_down", "c", "Car park", 1, False), Arrive("Cafe", "left"),
    )  # fmt: skip
    assert english(steps) == (
        "Start at East entrance on Level 1 and head for Books.",
        "Walk 15 m.",
        "Turn sharp left at the lift and walk 40 m, passing Books on your right.",
        "Turn round.",
        "Take the lift down to Level 0.",
        "Take the stairs down to Car park.",
        "Cafe is on your left.",
    )


@cache
def our_mall() -> Router:
    return Router.build(make_mall.make())


def test_golden_directions_through_our_mall() -> None:
    router = our_mall()
    by_name = {occupant.name: occupant.unit_id for occupant in router.venue.occupants}
    assert words(router, by_name["Sweet Ledger"], by_name["Bluebell Kids"], WHEELCHAIR) == (
        "Start at Sweet Ledger on Ground floor and head for the lift.",
        "Walk 50 m, passing Case & Cable on your left and Maple & Rye on your right.",
        "Take the lift up to First floor.",
        "Walk 25 m, passing Fable on your left and Orchard Bank on your right.",
        "Bluebell Kids is on your right.",
    )
    assert words(router, "parking_entrance", by_name["Circuit House"]) == (
        "Start at Car park entrance on Car park and head for the lift.",
        "Walk 65 m.",
        "Turn right at the lift and walk 5 m.",
        "Take the stairs up to Second floor.",
        "Walk 5 m.",
        "Turn right at the lift and walk 15 m, passing Verity Vision on your right.",
        "Bear right and walk 5 m.",
        "Circuit House is straight ahead.",
    )


def test_a_route_is_drawn_over_its_levels() -> None:
    router = our_mall()
    route = router.route("north_entrance", "south_entrance")
    assert isinstance(route, Route)
    assert draw_route(router, route, dpi=30).startswith(b"\x89PNG")
