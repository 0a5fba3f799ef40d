"""The geofence index answers what Shapely's `covers` answers, on borders too."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from esplanade.core.errors import InvalidInput
from spatial import kernels
from spatial.columns import LEFT
from spatial.geofence import FenceSet

SQUARE = [[(0.0, 0.0), (4.0, 0.0), (4.0, 4.0), (0.0, 4.0)]]


def ask(fences: FenceSet, points: list[tuple[int, float, float]]) -> list[list[int]]:
    level, x, y = (np.array(column) for column in zip(*points, strict=True))
    found = fences.locate(level.astype(np.uint8), x.astype(np.float32), y.astype(np.float32))
    return [[int(f) for f in row if f >= 0] for row in found]


def star(rng: np.random.Generator, cx: float, cy: float, radius: float, corners: int) -> list[tuple[float, float]]:
    """A simple ring, star-shaped about its centre; half of the corners lie on a quarter-metre lattice, so that edges meet points exactly."""
    angle = np.sort(rng.uniform(0, 2 * math.pi, corners))
    reach = rng.uniform(0.3, 1.0, corners) * radius
    ring = np.stack([cx + reach * np.cos(angle), cy + reach * np.sin(angle)], axis=1)
    if rng.random() < 0.5:
        ring = np.round(ring * 4) / 4
    return [(float(x), float(y)) for x, y in ring]


def shape_of(multipolygon: list[list[list[tuple[float, float]]]]) -> shapely.MultiPolygon:
    return shapely.MultiPolygon([shapely.Polygon(p[0], p[1:]) for p in multipolygon])


@given(seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([5.0, 60.0, 3000.0]))
@settings(max_examples=60)
def test_locate_equals_shapely_covers_inside_outside_and_on_borders(seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    polygons: list[tuple[int, list[list[list[tuple[float, float]]]]]] = []
    while len(polygons) < 12:
        cx, cy, radius = rng.uniform(-spread, spread), rng.uniform(-spread, spread), rng.uniform(1.0, spread)
        outer = star(rng, cx, cy, radius, int(rng.integers(3, 14)))
        rings = [outer]
        if rng.random() < 0.5:
            rings.append([(cx + (x - cx) * 0.25, cy + (y - cy) * 0.25) for x, y in outer])
        multipolygon = [rings]
        if rng.random() < 0.3:
            multipolygon.append([[(x + 2.5 * radius, y) for x, y in outer]])
        if shape_of(multipolygon).is_valid:
            polygons.append((int(rng.integers(0, 2)), multipolygon))
    circles = [(int(rng.integers(0, 2)), *map(float, rng.uniform(-spread, spread, 2)), float(rng.uniform(0, spread))) for _ in range(5)]
    fences = FenceSet.build(2, polygons, circles)

    corners = np.array([point for _, m in polygons for p in m for ring in p for point in ring])
    edges = np.concatenate([np.hstack([np.array(r), np.roll(np.array(r), -1, axis=0)]) for _, m in polygons for p in m for r in p])
    t = rng.choice([0.25, 0.5, 0.75], (len(edges), 1))
    on_edges = edges[:, :2] * (1 - t) + edges[:, 2:] * t
    anywhere = rng.uniform(-2.2 * spread, 2.2 * spread, (400, 2))
    on_circles = np.array([(x + r, y) for _, x, y, r in circles] + [(x, y - r) for _, x, y, r in circles])
    xy = np.concatenate([corners, on_edges, anywhere, on_circles]).astype(np.float32)
    level = rng.integers(0, 2, len(xy)).astype(np.uint8)
    found = fences.locate(level, xy[:, 0], xy[:, 1])

    points = shapely.points(xy.astype(np.float64))
    expected = np.zeros((len(xy), len(polygons) + len(circles)), bool)
    for fence, (on, multipolygon) in enumerate(polygons):
        expected[:, fence] = shapely.covers(shape_of(multipolygon), points) & (level == on)
    for fence, (on, x, y, r) in enumerate(circles, start=len(polygons)):
        dx, dy = xy[:, 0].astype(np.float64) - x, xy[:, 1].astype(np.float64) - y
        expected[:, fence] = (dx * dx + dy * dy <= r * r) & (level == on)
    for row, mask in zip(found, expected, strict=True):
        hits = np.flatnonzero(mask)
        assert list(row[: len(hits)]) == list(hits)
        assert (row[len(hits) :] == -1).all()


def test_border_and_corners_belong_to_the_fence_and_a_hole_does_not_but_its_border_does() -> None:
    hole = [(1.0, 1.0), (3.0, 1.0), (3.0, 3.0), (1.0, 3.0)]
    fences = FenceSet.build(1, [(0, [[SQUARE[0], hole]])])
    assert ask(fences, [(0, 0, 0), (0, 4, 2), (0, 2, 2), (0, 1, 2), (0, 3, 3), (0, 0.5, 0.5), (0, 4.0001, 2)]) == [[0], [0], [], [0], [0], [0], []]


def test_a_point_on_the_border_of_two_parts_of_one_fence_is_reported_once() -> None:
    right = [[(4.0, 4.0), (8.0, 4.0), (8.0, 8.0), (4.0, 8.0)]]
    assert ask(FenceSet.build(1, [(0, [SQUARE, right])]), [(0, 4, 4), (0, 6, 6)]) == [[0], [0]]


def test_fences_are_numbered_polygons_first_and_listed_ascending() -> None:
    fences = FenceSet.build(2, [(0, [SQUARE]), (0, [SQUARE]), (1, [SQUARE])], [(0, 2.0, 2.0, 1.0), (1, 2.0, 2.0, 9.0)])
    assert ask(fences, [(0, 2, 2), (0, 0, 0), (1, 2, 2), (0, 3, 2)]) == [[0, 1, 3], [0, 1], [2, 4], [0, 1, 3]]
    assert fences.width >= 3


def test_one_who_has_left_is_in_no_fence_and_a_level_out_of_range_is_refused() -> None:
    fences = FenceSet.build(1, [(0, [SQUARE])])
    assert ask(fences, [(LEFT, 2, 2), (0, 2, 2)]) == [[], [0]]
    with pytest.raises(InvalidInput, match="row 1 is on level 1"):
        ask(fences, [(0, 2, 2), (1, 2, 2)])


def test_no_fences_answer_one_column_of_nothing() -> None:
    assert ask(FenceSet.build(3, []), [(2, 1, 1)]) == [[]]


def test_points_that_are_not_finite_are_in_no_fence() -> None:
    assert ask(FenceSet.build(1, [(0, [SQUARE])]), [(0, math.nan, 1), (0, math.inf, 1), (0, 1, -math.inf)]) == [[], [], []]


def test_thousands_of_wide_circles_stay_within_the_raster_limits() -> None:
    circles = [(0, float(i % 64), float(i // 64), 1000.0) for i in range(4096)]
    fences = FenceSet.build(1, [], circles)
    assert ask(fences, [(0, 0.0, 0.0)])[0] == [i for i, (_, x, y, _) in enumerate(circles) if x * x + y * y <= 1e6]
    assert ask(fences, [(0, 1063.5, 0.0)])[0] == [i for i, (_, x, y, _) in enumerate(circles) if (1063.5 - x) ** 2 + y * y <= 1e6]


@pytest.mark.parametrize(
    ("polygons", "circles", "message"),
    [
        ([(1, [SQUARE])], [], "level 1"),
        ([(0, [[[(0.0, 0.0), (1.0, 0.0)]]])], [], "three or more"),
        ([(0, [[]])], [], "without rings"),
        ([(0, [[[(0.0, 0.0), (1.0, math.nan), (1.0, 1.0)]]])], [], "not finite"),
        ([], [(0, 0.0, 0.0, -1.0)], "r=-1"),
    ],
)
def test_bad_fences_are_refused_with_the_fence_and_the_rule(polygons: list, circles: list, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(InvalidInput, match=message):
        FenceSet.build(1, polygons, circles)


finite = st.floats(-1e6, 1e6, allow_nan=False, width=64)


@given(finite, finite, finite, finite, st.floats(-0.5, 1.5), st.integers(-2, 2))
@settings(max_examples=300)
def test_orientation_has_the_sign_of_exact_rational_arithmetic(ax: float, ay: float, bx: float, by: float, t: float, nudge: int) -> None:
    cx, cy = ax + (bx - ax) * t, ay + (by - ay) * t
    for _ in range(abs(nudge)):
        cx = math.nextafter(cx, math.inf * nudge)
    # Below 1e-100 products underflow; a float32 coordinate is zero or above 1e-45.
    ax, ay, bx, by, cx, cy = (0.0 if abs(v) < 1e-100 else v for v in (ax, ay, bx, by, cx, cy))
    a, b, c, d, e, f = map(Fraction, (ax, ay, bx, by, cx, cy))
    exact = (a - e) * (d - f) - (b - f) * (c - e)
    got = kernels.orientation(ax, ay, bx, by, cx, cy)
    assert (got > 0) - (got < 0) == (exact > 0) - (exact < 0)
