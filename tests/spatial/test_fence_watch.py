"""The watch says what the stated rule says: exactly without margins, steadily with them, and how sure it is."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from esplanade.core.errors import InvalidInput, NotFound
from spatial import fence_kernels
from spatial.columns import LEFT
from spatial.fence_watch import CROSS, DWELL, ENTER, EXIT, Events, FenceRule, FenceWatch, unit_fence
from spatial.geofence import Corridor, FenceSet
from spatial.venue import Level, Origin, Unit, Venue
from spatial.zone_shapes import Hours
from tests.spatial.test_geofence import shape_of, star

SQUARE = [(0.0, 0.0), (10.0, 0.0), (10.0, 10.0), (0.0, 10.0)]
HOLE = [(4.0, 4.0), (6.0, 4.0), (6.0, 6.0), (4.0, 6.0)]


def at(
    watch: FenceWatch, second: float, x: float, y: float, *, level: int = 0, person: int = 0, tags: int = 0, **more: npt.NDArray[np.float64]
) -> Events:
    return watch.step(
        second, np.array([person]), np.array([level], np.uint8), np.array([x]), np.array([y]), tags=np.array([tags], np.uint64), **more
    )  # fmt: skip


def watch_of(*, rules: FenceRule | None = None, steady_s: float = 0.0, levels: int = 1) -> FenceWatch:
    return FenceWatch(levels, 4, [(0, [[SQUARE]])], rules=rules, steady_s=steady_s)


@given(seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([8.0, 60.0]))
@settings(max_examples=25)
def test_enters_and_exits_follow_shapely_step_by_step_on_borders_and_in_holes(seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    polygons: list[tuple[int, list[list[list[tuple[float, float]]]]]] = []
    while len(polygons) < 10:
        cx, cy, radius = rng.uniform(-spread, spread), rng.uniform(-spread, spread), rng.uniform(1.0, spread)
        outer = star(rng, cx, cy, radius, int(rng.integers(3, 14)))
        rings = [outer, [(cx + (x - cx) * 0.25, cy + (y - cy) * 0.25) for x, y in outer]] if rng.random() < 0.5 else [outer]
        multipolygon = [rings, [[(x + 2.5 * radius, y) for x, y in outer]]] if rng.random() < 0.3 else [rings]
        if shape_of(multipolygon).is_valid:
            polygons.append((int(rng.integers(0, 2)), multipolygon))
    areas = np.array([shape_of(m) for _, m in polygons])
    on = np.array([level for level, _ in polygons])
    corners = np.concatenate([shapely.get_coordinates(area) for area in areas])
    watch = FenceWatch(2, 60, polygons)
    place, level = rng.uniform(-spread, spread, (60, 2)), rng.integers(0, 2, 60)
    inside = np.zeros((60, len(polygons)), bool)
    for tick in range(12):
        step = np.where(rng.random((60, 1)) < 0.8, rng.normal(0, 0.2, (60, 2)), rng.normal(0, spread / 2, (60, 2)))
        place = (place + step).astype(np.float32).astype(float)
        border = rng.random(60) < 0.15
        place[border] = corners[rng.integers(0, len(corners), border.sum())].astype(np.float32)
        level = np.where(rng.random(60) < 0.05, 1 - level, level)
        gone = rng.random(60) < 0.03
        told = np.where(gone, LEFT, level).astype(np.uint8)
        events = watch.step(float(tick), np.arange(60), told, place[:, 0], place[:, 1])
        now = shapely.covers(areas[None, :], shapely.points(place)[:, None]) & (told[:, None] == on)
        assert events.of(ENTER) == [(int(p), int(f)) for p, f in np.argwhere(now & ~inside)]
        assert events.of(EXIT) == [(int(p), int(f)) for p, f in np.argwhere(inside & ~now)]
        inside = now
    assert [watch.fences_of(p) for p in range(60)] == [np.flatnonzero(row).tolist() for row in inside]
    assert [watch.inside(f).tolist() for f in range(len(polygons))] == [np.flatnonzero(column).tolist() for column in inside.T]


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=15)
def test_margins_follow_the_distance_to_the_border(seed: int) -> None:
    rng = np.random.default_rng(seed)
    area = shapely.Polygon(star(rng, 0, 0, 20, 12))
    if not area.is_valid:
        return
    rings = [list(area.exterior.coords)[:-1]]
    margin = float(rng.uniform(0.5, 3))
    watch = FenceWatch(1, 40, [(0, [rings])], rules=FenceRule(margin_m=margin))
    inwards = min(margin, area.area / area.length)
    place = rng.uniform(-25, 25, (40, 2))
    inside = np.zeros(40, bool)
    for tick in range(20):
        place = place + rng.normal(0, 1.0, (40, 2))
        events = watch.step(float(tick), np.arange(40), np.zeros(40, np.uint8), place[:, 0], place[:, 1])
        points = shapely.points(place)
        depth = shapely.distance(area.exterior, points) * np.where(shapely.covers(area, points), 1, -1)
        now = np.where(inside, depth > -margin, depth >= inwards)
        assert events.of(ENTER) == [(int(p), 0) for p in np.flatnonzero(now & ~inside)]
        assert events.of(EXIT) == [(int(p), 0) for p in np.flatnonzero(inside & ~now)]
        inside = now


def test_a_fast_mover_crosses_what_lies_between_two_places() -> None:
    rng = np.random.default_rng(5)
    shapes = [shapely.Polygon(star(rng, *rng.uniform(-40, 40, 2), 8, 9)) for _ in range(30)]
    shapes = [shape for shape in shapes if shape.is_valid]
    corridor = Corridor(0, [(-50, 30), (0, 45), (50, 30)], 1.5)
    polygons = [(0, [[list(shape.exterior.coords)[:-1]]]) for shape in shapes]
    watch = FenceWatch(1, 1, polygons, [(0, 5.0, -30.0, 4.0)], [corridor], rules=FenceRule(cross=True))
    before: tuple[float, float] | None = None
    crossed = 0
    for tick, (x, y) in enumerate(np.round(rng.uniform(-50, 50, (80, 2)) * 4) / 4):
        events = at(watch, tick, x, y)
        if before is not None:
            way, ends = shapely.LineString([before, (x, y)]), shapely.points([before, (x, y)])
            expected = [i for i, shape in enumerate(shapes) if way.intersects(shape) and not shapely.covers(shape, ends).any()]
            if way.distance(shapely.Point(5, -30)) <= 4 < shapely.distance(ends, shapely.Point(5, -30)).min():
                expected.append(len(shapes))
            spine = shapely.LineString(corridor.line)
            if way.distance(spine) <= 1.5 < shapely.distance(ends, spine).min():
                expected.append(len(shapes) + 1)
            assert [fence for _, fence in events.of(CROSS)] == expected
            crossed += len(expected)
        before = (x, y)
    assert crossed > 100


def test_a_corridor_covers_what_is_within_its_half_width_of_its_line() -> None:
    line = [(0.0, 0.0), (10.0, 0.0), (10.0, 8.0)]
    fences = FenceSet.build(1, [], [], [Corridor(0, line, 2.0)])
    xy = np.random.default_rng(2).uniform(-4, 14, (3000, 2)).astype(np.float32)
    xy = np.concatenate([xy, np.array([(-2, 0), (5, 2), (12, 8), (10, 10), (12, 10)], np.float32)])
    found = fences.locate(np.zeros(len(xy), np.uint8), xy[:, 0], xy[:, 1])[:, 0] == 0
    assert (found == (shapely.distance(shapely.LineString(line), shapely.points(xy.astype(float))) <= 2.0)).all()


def test_dwelling_is_told_once_a_visit_and_confirming_starts_anew_after_a_break() -> None:
    watch = watch_of(rules=FenceRule(dwell_s=5.0, confirm_s=2.0))
    told = [
        [(kind, s) for kind in at(watch, s, x, 5.0).kind.tolist()] for s, x in enumerate([5, 5, -5, 5, 5, 5, 5, 5, 5, 5, 5, 5, -5, 5, -5, -5, -5, -5])
    ]
    assert [event for events in told for event in events] == [(ENTER, 5), (DWELL, 10), (EXIT, 16)]


def test_changing_level_exits_at_once_and_fences_of_other_levels_do_not_see() -> None:
    watch = watch_of(rules=FenceRule(margin_m=2.0, confirm_s=1.0), levels=2)
    at(watch, 0, 5, 5)
    assert at(watch, 1, 5, 5).of(ENTER) == [(0, 0)]
    assert at(watch, 2, 5, 5, level=1).of(EXIT) == [(0, 0)]
    assert len(at(watch, 9, 5, 5, level=1)) == 0


def test_tags_and_hours_decide_whom_a_fence_sees() -> None:
    watch = watch_of(rules=FenceRule(all_of=0b01, none_of=0b10, hours=(Hours(10.0, 20.0, every_s=100.0),)))
    steps = [
        (5, 1, []),
        (10, 0, []),
        (11, 1, [ENTER]),
        (12, 3, [EXIT]),
        (13, 1, [ENTER]),
        (20, 1, [EXIT]),
        (109, 1, []),
        (110, 1, [ENTER]),
        (121, 1, [EXIT]),
    ]
    for second, tags, expected in steps:
        assert at(watch, second, 5, 5, tags=tags).kind.tolist() == expected, second


def test_after_a_restart_people_are_placed_without_a_word() -> None:
    watch = watch_of()
    start = watch.step(0.0, np.array([0, 1]), np.zeros(2, np.uint8), np.array([5.0, 50.0]), np.array([5.0, 5.0]), silent=True)
    assert (len(start), watch.inside(0).tolist(), watch.outside(0).tolist()) == (0, [0], [1])
    assert at(watch, 1, 50, 5).of(EXIT) == [(0, 0)]


def test_bad_rows_change_nothing_and_are_returned() -> None:
    watch = watch_of()
    x = np.array([5.0, math.nan, 5.0, 5.0, 5.0])
    events = watch.step(0.0, np.array([0, 1, 2, 9, 3]), np.array([0, 0, 7, 0, 0], np.uint8), x, np.full(5, 5.0))
    assert (events.of(ENTER), events.bad.tolist()) == ([(0, 0), (3, 0)], [1, 2, 3])
    assert at(watch, 1, 5, 5, cov_m2=np.array([[1.0, 5.0, 1.0]])).bad.tolist() == [0]
    with pytest.raises(InvalidInput, match="never goes back"):
        at(watch, 0.5, 5, 5)
    with pytest.raises(InvalidInput):
        FenceRule(margin_m=-1.0)
    with pytest.raises(InvalidInput):
        Hours(5.0, 5.0)


def test_more_fences_over_one_another_than_slots_are_all_entered() -> None:
    watch = FenceWatch(1, 3, [(0, [[SQUARE]])] * 50)
    events = watch.step(0.0, np.arange(3), np.zeros(3, np.uint8), np.full(3, 5.0), np.full(3, 5.0))
    assert events.of(ENTER) == [(p, f) for p in range(3) for f in range(50)]


@pytest.mark.parametrize("cov", [(4.0, 0.0, 4.0), (9.0, 0.0, 0.25), (0.01, 0.0, 0.01), (2500.0, 0.0, 2500.0)])
def test_the_probability_of_a_box_is_the_product_of_two_normals(cov: tuple[float, float, float]) -> None:
    watch = FenceWatch(1, 1, [(0, [[SQUARE]]), (0, [[SQUARE[::-1], HOLE]])])
    xy = np.concatenate([np.random.default_rng(1).uniform(-8, 18, (60, 2)), [(0, 0), (10, 5), (5, 5), (4, 4)]])
    offset, fence, p = watch.probability(np.ones((len(xy), 1)), xy[:, 0], xy[:, 1], np.tile(cov, (len(xy), 1)), least=1e-12)
    sx, sy = math.sqrt(cov[0]), math.sqrt(cov[2])

    def box(low: float, high: float) -> npt.NDArray[np.float64]:
        cdf = norm.cdf
        return (cdf((high - xy[:, 0]) / sx) - cdf((low - xy[:, 0]) / sx)) * (cdf((high - xy[:, 1]) / sy) - cdf((low - xy[:, 1]) / sy))

    got = np.zeros((len(xy), 2))
    got[np.repeat(np.arange(len(xy)), np.diff(offset)), fence] = p
    np.testing.assert_allclose(got[:, 0], box(0, 10), atol=1e-7)
    np.testing.assert_allclose(got[:, 1], box(0, 10) - box(4, 6), atol=1e-7)


def _mass_by_quadrature(edge: npt.NDArray[np.float64], at: npt.NDArray[np.float64], sd: float) -> float:
    """Green's theorem, an edge at a time, by SciPy: the slow twin of `gaussian_mass` for round covariances."""
    total = 0.0
    for ax, ay, bx, by in (edge - np.tile(at, 2)) / sd:
        length = math.hypot(bx - ax, by - ay)
        h = (ax * by - ay * bx) / length
        t1 = (ax * (bx - ax) + ay * (by - ay)) / length
        breaks = [t for t in (-9.0, -3.0, -h, 0.0, h, 3.0, 9.0) if t1 < t < t1 + length]
        total += (
            h
            * quad(
                lambda t, h: -math.expm1(-(h * h + t * t) / 2) / (h * h + t * t or 1e-300), t1, t1 + length, (h,), points=breaks or None, limit=200
            )[0]
        )
    return total / (2 * math.pi)


@pytest.mark.parametrize("sd", [0.05, 0.8, 6.0])
def test_the_probability_holds_at_corners_on_edges_and_a_hair_beside_them(sd: float) -> None:
    rng = np.random.default_rng(8)
    ring = np.array(star(rng, 0, 0, 12, 14))
    edge = np.hstack([ring, np.roll(ring, -1, axis=0)])
    middle = (edge[:, :2] + edge[:, 2:]) / 2
    hair = rng.normal(0, 1e-12, ring.shape)
    points = np.concatenate([ring, middle, ring + hair, middle + hair, rng.uniform(-14, 14, (20, 2))])
    got = [fence_kernels.gaussian_mass(edge, 0, len(edge), x, y, sd * sd, 0.0, sd * sd) for x, y in points]
    np.testing.assert_allclose(got, [_mass_by_quadrature(edge, at, sd) for at in points], atol=1e-7)


def test_the_probability_under_a_turned_covariance_is_what_sampling_finds() -> None:
    rng = np.random.default_rng(3)
    ring = star(rng, 0, 0, 10, 11)
    cov = np.array([[9.0, 4.0], [4.0, 4.0]])
    watch = FenceWatch(2, 1, [(1, [[ring]])], [(0, 2.0, 1.0, 3.0)])
    offset, fence, p = watch.probability(np.array([[0.25, 0.75]]), np.array([1.0]), np.array([2.0]), np.array([[9.0, 4.0, 4.0]]))
    points = rng.multivariate_normal([1, 2], cov, 400_000)
    inside = shapely.contains_xy(shapely.Polygon(ring), points[:, 0], points[:, 1]).mean()
    disc = (np.hypot(points[:, 0] - 2, points[:, 1] - 1) <= 3).mean()
    assert (offset.tolist(), fence.tolist()) == ([0, 2], [0, 1])
    np.testing.assert_allclose(p, [0.75 * inside, 0.25 * disc], atol=4e-3)


def test_an_event_carries_its_confidence_and_waits_for_the_least() -> None:
    watch = watch_of(rules=FenceRule(least=0.9))
    cov = np.array([[4.0, 0.0, 4.0]])
    assert len(at(watch, 0, 1, 5, cov_m2=cov)) == 0
    events = at(watch, 1, 5, 5, cov_m2=cov, sure=np.array([0.95]))
    side = norm.cdf(2.5) - norm.cdf(-2.5)
    assert events.of(ENTER) == [(0, 0)]
    assert events.confidence[0] == pytest.approx(0.95 * side**2, abs=1e-6)


@pytest.mark.parametrize("rate_hz", [1, 10])
def test_noise_of_three_metres_on_a_border_makes_one_visit_at_most_and_crossings_are_told_within_ten_seconds(rate_hz: int) -> None:
    rng = np.random.default_rng(17)
    people, margin, steady = 400, 5.0, 3.0
    hall = [(0.0, -500.0), (60.0, -500.0), (60.0, 500.0), (0.0, 500.0)]

    def run(x: npt.NDArray[np.float64]) -> list[list[tuple[float, int]]]:
        watch = FenceWatch(1, people, [(0, [[hall]])], rules=FenceRule(margin_m=margin), steady_s=steady)
        told: list[list[tuple[float, int]]] = [[] for _ in range(people)]
        for step, row in enumerate(x):
            noisy = rng.normal(0, 3.0, (people, 2)) + np.column_stack([row, np.zeros(people)])
            events = watch.step(
                step / rate_hz, np.arange(people), np.zeros(people, np.uint8), noisy[:, 0], noisy[:, 1], cov_m2=np.tile([9.0, 0, 9.0], (people, 1))
            )
            for person, kind in zip(events.person.tolist(), events.kind.tolist(), strict=True):
                told[person].append((step / rate_hz, kind))
        return told

    standing = run(np.zeros((600 * rate_hz, people)))
    assert max(sum(kind == ENTER for _, kind in events) for events in standing) <= 1
    assert max(sum(kind == EXIT for _, kind in events) for events in standing) <= 1
    speed = rng.uniform(1.1, 1.6, people)
    seconds = np.arange(40 * rate_hz) / rate_hz
    for kind, x in ((ENTER, speed * (seconds[:, None] - 20)), (EXIT, -speed * (seconds[:, None] - 20))):
        delays = [next((second - 20 for second, what in events if what == kind and second > 10), np.inf) for events in run(x)]
        assert np.mean(np.array(delays) <= 10) >= 0.95


def test_the_fence_of_a_unit_is_its_polygon_on_its_level() -> None:
    level = Level(id="L0", ordinal=0, name="L0", short_name="L0", outline=[[SQUARE]])
    venue = Venue(
        id="v", name="v", kind="mall", origin=Origin(lat_deg=0, lon_deg=0), levels=[level],
        units=[Unit(id="shop", level_id="L0", category="room", polygon=[[SQUARE]])],
    )  # fmt: skip
    assert unit_fence(venue, "shop") == (0, ((tuple(SQUARE),),))
    with pytest.raises(NotFound, match="cellar"):
        unit_fence(venue, "cellar")
