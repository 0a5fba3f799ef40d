"""Both indexes answer what brute force answers, on limits too, and bad rows never stop a batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from esplanade.core.errors import InvalidInput, NotFound
from spatial import index as rules
from spatial.columns import LEFT
from spatial.index import CrowdIndex, Hits, Sheets
from spatial.shape_index import Area, Disc, EditableShapeIndex, Placed, Posed, Shape, ShapeIndex, Spot

SHEETS = Sheets([("mall", 3), ("festival", 1)])
RING = [[(0.0, 0.0), (4.0, 0.0), (4.0, 4.0), (0.0, 4.0)], [(1.0, 1.0), (3.0, 1.0), (3.0, 3.0), (1.0, 3.0)]]


def lists(hits: Hits) -> list[list[int]]:
    return [hits.of(i).tolist() for i in range(len(hits))]


def crowd(rng: np.random.Generator, n: int, spread: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Sheets and positions; some on a lattice, so that distances tie and limits are met exactly, a few far away."""
    sheet = rng.integers(0, 4, n)
    xy = rng.normal(0, spread, (n, 2))
    lattice = rng.random(n) < 0.4
    xy[lattice] = np.round(xy[lattice] / 5) * 5
    far = rng.random(n) < 0.02
    xy[far] *= 200
    return sheet, xy[:, 0], xy[:, 1]


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 300), spread=st.sampled_from([3.0, 40.0, 900.0]))
@settings(max_examples=50)
def test_the_crowd_index_answers_as_brute_force_does(seed: int, n: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    sheet, x, y = crowd(rng, n, spread)
    index = CrowdIndex.build(SHEETS, np.arange(n), sheet, x, y)
    q_sheet, qx, qy = crowd(rng, 20, spread)
    radius = np.where(rng.random(20) < 0.5, rng.uniform(0, 2 * spread, 20), rng.integers(0, 6, 20) * 5.0)
    squared = (x - qx[:, None]) ** 2 + (y - qy[:, None]) ** 2
    here = sheet == q_sheet[:, None]

    got = index.within(q_sheet, qx, qy, radius)
    assert lists(got) == [np.flatnonzero(row).tolist() for row in here & (squared <= (radius**2)[:, None])]
    np.testing.assert_array_equal(got.distance_m, np.sqrt(squared[got.question, got.row]))

    for k in (1, 7, 400):
        expected = [[j for _, j in sorted((squared[i, j], j) for j in np.flatnonzero(here[i]))[:k]] for i in range(20)]
        assert lists(index.nearest(q_sheet, qx, qy, k)) == expected
    near = index.nearest(q_sheet, qx, qy, 7, within_m=spread)
    expected = [[j for _, j in sorted((squared[i, j], j) for j in np.flatnonzero(here[i] & (squared[i] <= spread**2)))[:7]] for i in range(20)]
    assert lists(near) == expected

    segment = np.column_stack([qx, qy, np.roll(qx, 1), np.roll(qy, 1)])
    segment[0, 2:] = segment[0, :2]
    away, where = brute_segment(segment, x, y)
    reach = rng.uniform(0, spread, 20)
    expected = [[j for _, j in sorted((where[i, j], j) for j in np.flatnonzero(here[i] & (away[i] <= reach[i] ** 2)))] for i in range(20)]
    assert lists(index.along(q_sheet, segment, reach)) == expected

    polygons = [[[(a, b), (a + 10, b), (a + 10, b + 10), (a, b + 10)]] for a, b in np.round(np.column_stack([qx, qy]) / 5) * 5]
    areas = np.array([shapely.Polygon(rings[0]) for rings in polygons])
    inside = shapely.covers(areas[:, None], shapely.points(x, y)[None]) & here if n else np.zeros((20, 0), bool)
    assert lists(index.within_polygons(q_sheet, [[rings] for rings in polygons])) == [np.flatnonzero(row).tolist() for row in inside]


def brute_segment(segment: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Squared distance and place along (0 to 1) of each point for each segment: the kernel's formula in NumPy."""
    ax, ay, bx, by = (segment[:, i, None] for i in range(4))
    whole = (bx - ax) ** 2 + (by - ay) ** 2
    with np.errstate(invalid="ignore"):
        t = np.where(whole == 0, 0.0, np.clip(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / whole, 0, 1))
    return (x - (ax + t * (bx - ax))) ** 2 + (y - (ay + t * (by - ay))) ** 2, t


def shapes(rng: np.random.Generator, n: int) -> list[Shape]:
    made: list[Shape] = []
    for kind in rng.integers(0, 4, n):
        x, y = (float(v) for v in np.round(rng.uniform(-60, 60, 2) * 2) / 2)
        match kind:
            case 0:
                made.append(Spot(x, y))
            case 1:
                made.append(Disc(x, y, float(rng.integers(0, 12))))
            case 2:
                made.append(Posed(x, y, 1.5))
            case _:
                made.append(Area([[[(x + a, y + b) for a, b in ring] for ring in RING]]))
    return made


def geometry(shape: Shape) -> tuple[shapely.Geometry, float]:
    """What Shapely measures to, and the radius around it."""
    if isinstance(shape, Area):
        return shapely.Polygon(shape.polygon[0][0], shape.polygon[0][1:]), 0.0
    return shapely.Point(shape.x_m, shape.y_m), shape.radius_m if isinstance(shape, Disc) else 0.0


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_both_shape_indexes_answer_as_brute_force_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    placed = [Placed(1000 + i, int(rng.integers(0, 4)), shape) for i, shape in enumerate(shapes(rng, 60))]
    still, edited = ShapeIndex.build(SHEETS, placed), EditableShapeIndex(SHEETS)
    for item in [*reversed(placed), *placed[::3]]:
        edited.put(item)
    for item in placed[::4]:
        edited.remove(item.id)
        edited.put(item)
    core, radius = zip(*(geometry(item.shape) for item in placed), strict=True)
    cores, radii = np.array(core), np.array(radius)
    q_sheet, qx, qy = rng.integers(0, 4, 15), np.round(rng.uniform(-70, 70, 15)), np.round(rng.uniform(-70, 70, 15))
    here = np.array([item.sheet for item in placed]) == q_sheet[:, None]
    away = np.maximum(shapely.distance(shapely.points(qx, qy)[:, None], cores) - radii, 0)
    reach = rng.integers(0, 40, 15).astype(float)
    segment = np.column_stack([qx, qy, qx + rng.integers(-30, 30, 15), qy + rng.integers(-30, 30, 15)])
    lines = shapely.linestrings(segment.reshape(-1, 2, 2))
    beside = np.maximum(shapely.distance(lines[:, None], cores) - radii, 0)
    boxes = shapely.box(qx, qy, qx + 20, qy + 15)
    meets = shapely.distance(boxes[:, None], cores) <= radii
    polygons = [[[[tuple(p) for p in shapely.get_coordinates(box)[:-1]]]] for box in boxes]
    for index in (still, edited):
        ids = index.id

        def by_id(hits: Hits, ids: np.ndarray = ids) -> list[list[int]]:  # type: ignore[type-arg]
            return [(ids[hits.of(i)] - 1000).tolist() for i in range(len(hits))]

        assert [sorted(found) for found in by_id(index.within(q_sheet, qx, qy, reach))] == [
            np.flatnonzero(row).tolist() for row in here & (away <= reach[:, None])
        ]
        hits = index.nearest(q_sheet, qx, qy, 5)
        for i in range(15):
            expected = np.sort(away[i, here[i]])[:5]
            np.testing.assert_allclose(hits.distance_m[hits.offset[i] : hits.offset[i + 1]], expected, atol=1e-9)
        assert [sorted(found) for found in by_id(index.within_polygons(q_sheet, polygons))] == [np.flatnonzero(row).tolist() for row in here & meets]
        assert [sorted(found) for found in by_id(index.along(q_sheet, segment, 6.0))] == [
            np.flatnonzero(row).tolist() for row in here & (beside <= 6.0)
        ]


def test_what_lies_along_a_way_comes_in_the_order_of_passing() -> None:
    index = ShapeIndex.build(
        SHEETS, [Placed(1, 0, Spot(9, 1)), Placed(2, 0, Area([[RING[0]]])), Placed(3, 0, Disc(6, 4, 3)), Placed(4, 1, Spot(5, 0))]
    )
    hits = index.along(np.array([0, 0]), np.array([(-5.0, 0.0, 20.0, 0.0), (20.0, 0.0, -5.0, 0.0)]), 1.0)
    assert [index.id[hits.of(i)].tolist() for i in range(2)] == [[2, 3, 1], [1, 3, 2]]


def test_bad_rows_are_named_and_the_rest_is_indexed() -> None:
    x = np.array([0.0, math.nan, 2.0, 3.0, math.inf, 5.0, 1e7])
    index = CrowdIndex.build(SHEETS, np.array([7, 8, 7, 9, 10, 11, 12]), np.array([0, 0, 0, 4, 0, -1, 0]), x, np.zeros(7))
    assert dict(index.refused) == {
        0: rules.RULES[rules.REPLACED], 1: rules.RULES[rules.NOT_FINITE], 3: rules.RULES[rules.NO_SUCH_SHEET], 4: rules.RULES[rules.NOT_FINITE],
        5: rules.RULES[rules.NO_SUCH_SHEET], 6: rules.RULES[rules.NOT_FINITE],
    }  # fmt: skip
    assert lists(index.within(np.array([0]), np.zeros(1), np.zeros(1), 100.0)) == [[2]]


def test_a_bad_question_answers_nothing_and_the_others_are_answered() -> None:
    spots = [Placed(1, 0, Spot(0, 0)), Placed(2, 0, Spot(1, 0))]
    crowd_index = CrowdIndex.build(SHEETS, np.array([1, 2]), np.array([0, 0]), np.array([0.0, 1.0]), np.zeros(2))
    for index in (crowd_index, ShapeIndex.build(SHEETS, spots)):
        hits = index.within(np.array([0, 9, 0, 0, 0]), np.array([0.0, 0, math.nan, 0, 0]), np.zeros(5), np.array([5.0, 5, 5, -1, math.nan]))
        assert lists(hits) == [[0, 1], [], [], [], []]
        assert [rule for _, rule in hits.refused] == [
            rules.RULES[k] for k in (rules.NO_SUCH_SHEET, rules.NOT_FINITE, rules.NEGATIVE_RADIUS, rules.NEGATIVE_RADIUS)
        ]
        assert lists(index.nearest(np.array([0, -1]), np.zeros(2), np.zeros(2), 1)) == [[0], []]
        bow = [[[(0.0, 0.0), (4.0, 4.0), (4.0, 0.0), (0.0, 4.0)]]]
        square = [[[(0.0, -1.0), (4.0, -1.0), (4.0, 1.0), (0.0, 1.0)]]]
        areas = index.within_polygons(np.array([0, 0, 0]), [bow, square, [[[(0.0, 0.0)]]]])
        assert lists(areas) == [[], [0, 1], []]
        assert list(areas.refused) == [(0, rules.RULES[rules.BAD_SHAPE]), (2, rules.RULES[rules.BAD_SHAPE])]
        assert lists(index.along(np.array([0, 0]), np.array([(0.0, 0, 2, 0), (0, 0, math.inf, 0)]), 1.0)) == [[0, 1], []]
        for k in (0, -1, rules.MAX_K + 1):
            with pytest.raises(InvalidInput, match=f"k={k}"):
                index.nearest(np.array([0]), np.zeros(1), np.zeros(1), k)


def test_shapes_that_break_a_rule_are_named_in_a_batch_and_refused_one_by_one() -> None:
    bad: list[Placed] = [
        Placed(1, 0, Spot(math.nan, 0)), Placed(2, 9, Spot(0, 0)), Placed(3, 0, Disc(0, 0, -1)), Placed(4, 0, Area([[[(0.0, 0.0), (1.0, 1.0)]]])),
    ]  # fmt: skip
    index = ShapeIndex.build(SHEETS, [*bad, Placed(5, 0, Spot(0, 0)), Placed(5, 0, Spot(1, 0))])
    expected = [rules.NOT_FINITE, rules.NO_SUCH_SHEET, rules.NEGATIVE_RADIUS, rules.BAD_SHAPE, rules.REPLACED]
    assert list(index.refused) == [(row, rules.RULES[rule]) for row, rule in enumerate(expected)]
    assert index.within(np.array([0]), np.zeros(1), np.zeros(1), 9.0).row.tolist() == [5]
    edited = EditableShapeIndex(SHEETS)
    edited.put(Placed(1, 0, Spot(3, 3)))
    for item in bad:
        with pytest.raises(InvalidInput):
            edited.put(item)
    assert edited.within(np.array([0]), np.array([3.0]), np.array([3.0]), 0.0).row.tolist() == [0]
    edited.remove(1)
    with pytest.raises(NotFound, match="shape 1"):
        edited.remove(1)


def test_an_edited_index_is_right_while_it_fills_empties_and_packs_itself_anew() -> None:
    assert lists(ShapeIndex.build(SHEETS, []).nearest(np.array([0]), np.zeros(1), np.zeros(1), 3)) == [[]]
    rng = np.random.default_rng(6)
    edited, there = EditableShapeIndex(SHEETS), dict[int, tuple[float, float]]()
    for step in range(1500):
        who = int(rng.integers(0, 600))
        if who in there and rng.random() < 0.4:
            edited.remove(who)
            del there[who]
        else:
            x, y = (float(v) for v in rng.integers(0, 50, 2))
            edited.put(Placed(who, 0, Spot(x, y)))
            there[who] = x, y
        if step % 50 == 0:
            hits = edited.within(np.array([0, 1]), np.array([25.0, 25.0]), np.array([25.0, 25.0]), 12.0)
            assert sorted(edited.id[hits.of(0)].tolist()) == sorted(w for w, (x, y) in there.items() if (x - 25) ** 2 + (y - 25) ** 2 <= 144)
            assert len(hits.of(1)) == 0
    assert len(edited) == len(there)


def test_sheets_keep_venues_and_levels_apart() -> None:
    assert [SHEETS.of("mall", 2), SHEETS.of("festival", 0)] == [2, 3]
    assert [SHEETS.place(s) for s in range(4)] == [("mall", 0), ("mall", 1), ("mall", 2), ("festival", 0)]
    assert SHEETS.of_rows(1, np.array([0, 1, LEFT], np.uint8)).tolist() == [3, -1, -1]
    for venue, level in (("mall", 3), ("mall", -1), ("park", 0)):
        with pytest.raises(NotFound):
            SHEETS.of(venue, level)
    with pytest.raises(InvalidInput):
        Sheets([("mall", 1), ("mall", 2)])


def test_one_lost_phone_does_not_make_the_grid_coarse() -> None:
    rng = np.random.default_rng(1)
    xy = rng.uniform(0, 100, (5000, 2))
    xy[0] = 9e5
    index = CrowdIndex.build(SHEETS, np.arange(5000), np.zeros(5000, np.int64), xy[:, 0], xy[:, 1])
    assert index._grid[0, 2] < 5
    assert lists(index.nearest(np.zeros(1, np.int64), np.array([8e5]), np.array([9e5]), 1)) == [[0]]
