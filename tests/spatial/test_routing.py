"""Ways through small venues whose answers are known by hand, and through random halls against Shapely's and SciPy's answers."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import dijkstra

from esplanade.core.errors import InvalidInput, LimitExceeded, NotFound
from scenarios.venues import make_mall
from spatial.live import Crowding, Live, crowd_factor
from spatial.plan import level_plans
from spatial.profiles import PRAM, WALKING, WHEELCHAIR, Profile
from spatial.routes import At, Isochrone, NoRoute, Points, Route, Walk
from spatial.routing import Router
from spatial.venue import Connector, Entrance, Level, Opening, Origin, Stop, Unit, UnitCategory, Venue
from tests.spatial.routing_oracle import ExactLevel, whole_graph


def box(x0: float, y0: float, x1: float, y1: float) -> tuple[tuple[tuple[tuple[float, float], ...], ...], ...]:
    return ((((x0, y0), (x1, y0), (x1, y1), (x0, y1)),),)


def unit(name: str, level: str, category: UnitCategory, *at: float) -> Unit:
    return Unit(id=name, level_id=level, category=category, polygon=box(*at))  # type: ignore[arg-type]


def connector(name: str, kind: str, *stops: tuple[str, float, float], direction: str = "both", access: str = "public") -> Connector:
    return Connector(
        id=name, kind=kind, direction=direction, access=access,  # type: ignore[arg-type]
        stops=tuple(Stop(level_id=level, point=(x, y)) for level, x, y in stops),
    )  # fmt: skip


def hall(
    units: list[Unit] | None = None, openings: list[Opening] | None = None, connectors: list[Connector] | None = None, *, levels: int = 2
) -> Venue:
    """Levels L0, L1, ... of 40 x 20 m."""
    return Venue(
        id="v", name="V", kind="mall", origin=Origin(lat_deg=0, lon_deg=0),
        levels=tuple(Level(id=f"L{i}", ordinal=i, name=f"Level {i}", short_name=f"{i}", outline=box(0, 0, 40, 20)) for i in range(levels)),
        units=tuple(units or []), openings=tuple(openings or []), connectors=tuple(connectors or []),
        entrances=(Entrance(id="door", code="west_entrance", name="West", level_id="L0", point=(1, 10)),),
    )  # fmt: skip


SHOP = [unit("shop", "L0", "room", 10, 12, 20, 20)]
SHOP_DOOR = [Opening(id="shop-door", level_id="L0", unit_id="shop", a=(12, 12), b=(14, 12))]
UP = connector("up", "escalator", ("L0", 30, 5), ("L1", 30, 12), direction="forward")
DOWN = connector("down", "escalator", ("L0", 32, 5), ("L1", 32, 12), direction="backward")
LIFT = connector("lift", "elevator", ("L0", 2, 2), ("L1", 2, 2))
STAIRS = connector("stairs", "stairs", ("L0", 38, 18), ("L1", 38, 18))
FULL = hall(SHOP, SHOP_DOOR, [UP, DOWN, LIFT, STAIRS])


def way(router: Router, *ends: At | str, profile: Profile = WALKING, by: str = "fastest") -> Route:
    found = router.route(ends[0], ends[1], profile=profile, by=by)  # type: ignore[arg-type]
    assert isinstance(found, Route), found
    return found


def why_not(router: Router, *ends: At | str, profile: Profile = WALKING) -> str:
    found = router.route(ends[0], ends[1], profile=profile)
    assert isinstance(found, NoRoute), found
    return found.reason


def test_on_open_ground_the_way_is_the_straight_line_at_walking_speed() -> None:
    route = way(Router.build(hall()), At(0, 1, 1), At(0, 39, 19))
    assert route.length_m == pytest.approx(np.hypot(38, 18))
    assert route.seconds == route.cost == pytest.approx(route.length_m / 1.34)
    assert len(route.walks) == 1
    assert route.walks[0].points.tolist() == [[1, 1], [39, 19]]


def test_the_way_bends_at_the_corners_of_what_stands_in_between() -> None:
    route = way(Router.build(hall([unit("block", "L0", "structure", 15, 4, 25, 16)])), At(0, 10, 10), At(0, 30, 10))
    assert route.length_m == pytest.approx(2 * np.hypot(5, 6) + 10, rel=0.01)
    assert len(route.walks[0].points) == 4


def test_a_shop_is_entered_through_its_opening_alone() -> None:
    router = Router.build(FULL)
    inside = way(router, At(0, 19, 11), At(0, 19, 13))
    assert inside.length_m == pytest.approx(2 * np.hypot(5, 1), rel=0.02)
    assert way(router, "west_entrance", "shop").walks[-1].points[-1] == pytest.approx([13, 12], abs=0.01)


def test_the_way_of_least_time_takes_the_escalator_that_runs_there_and_the_wheelchair_the_lift() -> None:
    router = Router.build(FULL)
    up, down = way(router, At(0, 28, 5), At(1, 28, 12)), way(router, At(1, 28, 12), At(0, 28, 5))
    assert [ride.connector_id for ride in up.rides] == ["up"]
    assert [ride.way for ride in up.rides] == ["escalator_up"]
    assert [ride.connector_id for ride in down.rides] == ["down"]
    rolled = way(router, At(0, 28, 5), At(1, 28, 12), profile=WHEELCHAIR)
    assert [(ride.connector_id, ride.way) for ride in rolled.rides] == [("lift", "elevator")]
    assert rolled.seconds == pytest.approx(rolled.length_m / 0.89 + 40 + 4.5)
    assert [type(leg).__name__ for leg in rolled.legs] == ["Walk", "Ride", "Walk"]


def test_what_is_avoided_is_taken_only_when_nothing_else_leads_there() -> None:
    stairs_and_lift = Router.build(hall(connectors=[LIFT, STAIRS]))
    assert way(stairs_and_lift, At(0, 37, 17), At(1, 37, 17), profile=PRAM).rides[0].way == "elevator"
    stairs = Router.build(hall(connectors=[STAIRS]))
    carried = way(stairs, At(0, 37, 17), At(1, 37, 17), profile=PRAM)
    assert carried.rides[0].way == "stairs_up"
    assert carried.cost == pytest.approx(carried.seconds + 180)
    assert why_not(stairs, At(0, 37, 17), At(1, 37, 17), profile=WHEELCHAIR) == "forbidden"


def test_rules_are_kept_for_up_and_down_apart() -> None:
    router = Router.build(FULL)
    no_up = WALKING.with_rules(escalator_up="forbid", elevator="forbid")
    assert way(router, At(0, 28, 5), At(1, 28, 12), profile=no_up).rides[0].connector_id == "stairs"
    assert way(router, At(1, 28, 12), At(0, 28, 5), profile=no_up).rides[0].connector_id == "down"


def test_staff_connectors_are_for_staff() -> None:
    freight = connector("freight", "elevator", ("L0", 20, 5), ("L1", 20, 5), access="staff")
    router = Router.build(hall(connectors=[freight]))
    assert why_not(router, At(0, 1, 1), At(1, 1, 1)) == "forbidden"
    assert way(router, At(0, 1, 1), At(1, 1, 1), profile=Profile("porter", staff=True)).rides[0].connector_id == "freight"


def test_a_lift_skips_floors_and_is_waited_for_once() -> None:
    tall = connector("tall", "elevator", ("L0", 2, 2), ("L1", 2, 2), ("L2", 2, 2))
    route = way(Router.build(hall(connectors=[tall], levels=3)), At(0, 2, 2), At(2, 2, 2))
    assert [leg.to_level for leg in route.rides] == [2]
    assert route.seconds == pytest.approx(40 + 9)


def test_live_closures_take_effect_and_only_they_are_blamed() -> None:
    router = Router.build(FULL)
    ends = At(0, 3, 3), At(1, 3, 3)
    assert way(router, *ends, profile=WHEELCHAIR).rides[0].connector_id == "lift"
    broken = router.with_live(Live(closed_connectors=frozenset({"lift"})))
    assert why_not(broken, *ends, profile=WHEELCHAIR) == "closed"
    assert way(broken, *ends).rides[0].connector_id == "up"
    assert way(router, *ends, profile=WHEELCHAIR).rides  # the first generation is untouched
    shut = router.with_live(Live(closed_openings=frozenset({"shop-door"})))
    assert why_not(shut, "west_entrance", "shop") == "closed"
    assert why_not(shut, "west_entrance", At(0, 15, 15)) == "closed"
    assert isinstance(shut.with_live(Live()).route("west_entrance", "shop"), Route)


def test_a_closed_line_is_walked_around() -> None:
    router = Router.build(hall([unit("block", "L0", "structure", 15, 8, 25, 16)]))
    ends = At(0, 20, 18), At(0, 20, 5)
    assert way(router, *ends).length_m < 20
    west = router.with_live(Live(closed_lines=((0, 15.0, 12.0, 0.0, 12.0),)))
    line = shapely.LineString(way(west, *ends).walks[0].points)
    assert not line.intersects(shapely.LineString([(15, 12), (0, 12)]))
    assert why_not(west.with_live(Live(closed_lines=((0, 15.0, 12.0, 0.0, 12.0), (0, 25.0, 12.0, 40.0, 12.0)))), *ends) == "closed"


def test_a_queue_at_the_escalator_sends_people_to_the_stairs() -> None:
    router = Router.build(FULL).with_live(Live(wait_s={"up": 300.0, "lift": 300.0}))
    assert way(router, At(0, 28, 5), At(1, 28, 12)).rides[0].connector_id == "stairs"


def test_the_fastest_way_goes_round_a_crowd_and_the_shortest_through_it() -> None:
    factor = np.ones((20, 40))
    factor[6:14, 14:26] = crowd_factor(4.0)
    assert factor.max() > 5
    router = Router.build(hall()).with_live(Live(crowding={0: Crowding(0.0, 0.0, 1.0, factor)}))
    ends = At(0, 5, 10), At(0, 35, 10)
    through, around = way(router, *ends, by="shortest"), way(router, *ends)
    assert through.length_m == pytest.approx(30)
    assert through.seconds > 1.5 * around.seconds
    assert 30 < around.length_m < 40
    assert around.seconds == pytest.approx(around.cost, rel=0.1)  # the drawn way is pulled taut after the search
    assert around.seconds <= around.cost + 1e-9


def test_crowd_factors_follow_the_fundamental_diagram() -> None:
    slow = crowd_factor([0.0, 1.0, 2.0, 4.0, 5.4, 9.0])
    assert slow[0] == pytest.approx(1.0)
    assert slow[2] == pytest.approx(1 / (1 - np.exp(-1.913 * (1 / 2 - 1 / 5.4))))
    assert (np.diff(slow) >= 0).all()
    assert slow[-1] == slow[-2] == 20


@pytest.mark.parametrize(
    ("venue", "start", "goal", "reason"),
    [
        (hall(), At(0, 1, 1), At(1, 1, 1), "levels_not_connected"),
        (hall([unit("wall", "L0", "structure", 19, 0, 21, 20)]), At(0, 1, 1), At(0, 39, 1), "separated"),
        (hall(SHOP), "west_entrance", "shop", "enclosed"),
        (hall([unit("wall", "L0", "structure", 10, 0, 30, 20)]), At(0, 1, 1), At(0, 20, 10), "off_ground"),
        (hall(), At(0, 1, 1), At(0, 80, 10), "off_ground"),
    ],
)
def test_no_way_is_an_answer_that_says_why(venue: Venue, start: At | str, goal: At | str, reason: str) -> None:
    assert why_not(Router.build(venue), start, goal) == reason


@pytest.mark.parametrize("place", [At(5, 1, 1), At(0, float("nan"), 1), At(0, 1, float("inf")), At(-1, 1, 1)])
def test_a_point_that_is_none_is_refused(place: At) -> None:
    with pytest.raises(InvalidInput, match="level"):
        Router.build(hall()).route(At(0, 1, 1), place)


def test_unknown_names_are_refused() -> None:
    router = Router.build(hall())
    with pytest.raises(NotFound, match="nowhere"):
        router.route("west_entrance", "nowhere")
    for live in (
        Live(closed_openings=frozenset({"x"})),
        Live(closed_connectors=frozenset({"x"})),
        Live(wait_s={"x": 1.0}),
        Live(closed_lines=((7, 0, 0, 1, 1),)),
    ):
        with pytest.raises(NotFound, match="live"):
            router.with_live(live)
    with pytest.raises(InvalidInput, match="speed"):
        Profile("snail", 0.0)
    with pytest.raises(InvalidInput, match="teleport"):
        WALKING.with_rules(teleport="allow")
    with pytest.raises(InvalidInput, match="factors"):
        Crowding(0, 0, 1, np.zeros((2, 2)))


def test_the_matrix_holds_the_costs_of_the_routes() -> None:
    router = Router.build(make_mall.make())
    rng = np.random.default_rng(3)
    places = [str(p) for p in rng.choice([p for p in router.places if router.access(p)], 24, replace=False)]
    for profile, by in ((WALKING, "fastest"), (WHEELCHAIR, "fastest"), (PRAM, "shortest")):
        table = router.matrix(places[:12], places[12:], profile=profile, by=by)  # type: ignore[arg-type]
        for i, j in np.ndindex(table.shape):
            found = router.route(places[i], places[12 + j], profile=profile, by=by)  # type: ignore[arg-type]
            assert table[i, j] == pytest.approx(found.cost if isinstance(found, Route) else np.inf, abs=1e-6)


def test_the_matrix_counts_what_is_off_the_ground_as_out_of_reach_and_has_a_limit() -> None:
    router = Router.build(FULL)
    here = Points(np.array([0, 0]), np.array([1.0, 90.0]), np.array([1.0, 90.0]))
    assert np.isfinite(router.matrix(here, here)).tolist() == [[True, False], [False, False]]
    assert router.matrix(here, []).shape == (2, 0)
    many = Points(np.zeros(5000, np.int64), np.ones(5000), np.ones(5000))
    with pytest.raises(LimitExceeded, match="pairs"):
        router.matrix(many, many)


def test_an_isochrone_holds_exactly_what_routes_reach_in_time() -> None:
    router = Router.build(FULL)
    found = router.isochrone("west_entrance", 45.0, cell_m=2.0)
    assert isinstance(found, Isochrone)
    for k in range(0, len(found.seconds), 7):
        there = way(router, "west_entrance", At(int(found.points.level[k]), float(found.points.x_m[k]), float(found.points.y_m[k])))
        assert found.seconds[k] == pytest.approx(there.seconds if there.seconds <= 45 else np.inf, abs=1e-6)
    assert "shop" in found.places
    assert found.places["shop"] == pytest.approx(way(router, "west_entrance", "shop").seconds)
    assert set(found.areas) == {0, 1}
    assert found.areas[1].area < found.areas[0].area <= 800
    with pytest.raises(InvalidInput):
        router.isochrone("west_entrance", 0.0)


BLOCKS = st.lists(st.tuples(st.integers(1, 35), st.integers(1, 16), st.integers(1, 8), st.integers(1, 8), st.floats(0, 0.9)), max_size=9)


@settings(max_examples=40)
@given(blocks=BLOCKS, seed=st.integers(0, 2**32 - 1))
def test_in_any_hall_the_way_stays_on_walkable_ground_and_is_as_short_as_shapely_and_scipy_find(
    blocks: list[tuple[int, int, int, int, float]], seed: int
) -> None:
    units = []
    for k, (x, y, wide, high, lean) in enumerate(blocks):
        ring = ((x, y), (x + wide, y + lean), (x + wide - lean, y + high), (x + lean / 2, y + high + lean))
        units.append(Unit(id=f"b{k}", level_id="L0", category="structure", polygon=((ring,),)))
    venue = hall(units, levels=1)
    router, exact = Router.build(venue), ExactLevel.of(level_plans(venue)[0])
    rng = np.random.default_rng(seed)
    for a, b in pairwise(rng.uniform((0.1, 0.1), (39.9, 19.9), (6, 2))):
        if not shapely.contains_xy(exact.walkable.buffer(-0.05), *np.transpose([a, b])).all():
            continue
        least = exact.length(a, b)
        found = router.route(At(0, *a), At(0, *b))
        # A passage narrower than the clearance on both sides is none to us: the bar holds against ground kept that far from walls.
        roomy = ExactLevel(exact.walkable.buffer(-0.04, join_style="mitre"))
        if isinstance(found, NoRoute):
            assert found.reason == "separated"
            assert not np.isfinite(roomy.length(a, b))
            continue
        assert exact.walkable.covers(shapely.LineString(found.walks[0].points))
        assert least - 1e-3 <= found.length_m <= 1.05 * (least if found.length_m <= 1.05 * least else roomy.length(a, b))


@pytest.mark.parametrize("profile", [WALKING, WHEELCHAIR, PRAM])
def test_all_stops_of_our_mall_are_as_far_apart_as_scipy_finds(profile: Profile) -> None:
    venue = make_mall.make()
    out_of_order = next(connector.id for connector in venue.connectors if connector.kind == "elevator")
    router = Router.build(venue).with_live(Live(closed_connectors=frozenset({out_of_order})))
    for by in ("fastest", "shortest"):
        graph, nodes, _ = whole_graph(router, profile, by)  # type: ignore[arg-type]
        stops = np.concatenate([nodes[level][: len(rows)] for level, rows in enumerate(router._network.stops_of)])
        rows = np.concatenate(router._network.stops_of)
        ours = router._table(profile, by).cost[np.ix_(rows, rows)]  # type: ignore[arg-type]
        np.testing.assert_allclose(ours, dijkstra(graph, indices=stops)[:, stops], atol=1e-9)


def test_every_leg_ends_where_the_next_begins() -> None:
    router = Router.build(make_mall.make())
    rng = np.random.default_rng(5)
    places = [p for p in router.places if router.access(p)]
    for _ in range(60):
        a, b = rng.choice(places, 2, replace=False)
        legs = way(router, str(a), str(b)).legs
        ends = [
            ((leg.level, *leg.points[0]), (leg.level, *leg.points[-1]))
            if isinstance(leg, Walk)
            else ((leg.from_level, *leg.from_point), (leg.to_level, *leg.to_point))
            for leg in legs
        ]
        for (_, came), (goes, _) in pairwise(ends):
            assert came == pytest.approx(goes, abs=1e-9)
