"""Which index for what: the candidates on the same crowd and shapes, one table (decision 5). No peer and no ratio.

A crowd of n people on one level at 0.0064 a square metre, 2,000 questions of 50 m (about 50 hits) and of the nearest 20; then 10,000 polygons that stand still;
then 2,000 changes one by one, each followed by a question.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import rtree.index
import shapely
from scipy.spatial import cKDTree

from spatial.drawn_zones import MAX_ZONES, outline
from spatial.index import CrowdIndex, Sheets
from spatial.shape_index import Area, EditableShapeIndex, Placed, ShapeIndex, Spot
from spatial.zone_board import ZoneBoard
from spatial.zone_shapes import Circle, DrawnZone

QUESTIONS, CHANGES, SHAPES, REDRAWN = 2000, 2000, 10_000, 200


def _took_ms(work: Callable[[], object], repeats: int) -> float:
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return round(statistics.median(times) * 1e3, 2)


def run(*, n: int = 100_000, repeats: int = 5) -> None:
    rng = np.random.default_rng(4)
    sheets = Sheets([("v", 1)])
    side = float(np.sqrt(n / 0.0064))
    xy = rng.uniform(0, side, (n, 2))
    x, y, zero, ids = np.ascontiguousarray(xy[:, 0]), np.ascontiguousarray(xy[:, 1]), np.zeros(n, np.int32), np.arange(n)
    asked = rng.choice(n, QUESTIONS, replace=False)
    ax, ay, a0 = x[asked], y[asked], zero[asked]
    points, questions = np.asarray(shapely.points(x, y)), np.asarray(shapely.points(ax, ay))
    grid, kd, packed = CrowdIndex.build(sheets, ids, zero, x, y), cKDTree(xy), shapely.STRtree(points)
    table: dict[str, dict[str, float]] = {
        "build": {
            "grid": _took_ms(lambda: CrowdIndex.build(sheets, ids, zero, x, y), repeats),
            "cKDTree": _took_ms(lambda: cKDTree(xy), repeats),
            "STRtree, points made": _took_ms(lambda: shapely.STRtree(np.asarray(shapely.points(x, y))).query(questions[0]), repeats),
        },
        "within": {
            "grid": _took_ms(lambda: grid.within(a0, ax, ay, 50.0), repeats),
            "cKDTree": _took_ms(lambda: kd.query_ball_point(xy[asked], 50.0), repeats),
            "STRtree": _took_ms(lambda: packed.query(questions, predicate="dwithin", distance=50.0), repeats),
        },
        "nearest": {
            "grid": _took_ms(lambda: grid.nearest(a0, ax, ay, 20), repeats),
            "cKDTree": _took_ms(lambda: kd.query(xy[asked], k=20), repeats),
        },
    }
    corner = rng.uniform(0, side, (SHAPES, 2))
    shapes = [Placed(i, 0, Area([[[(a, b), (a + 8, b), (a + 8, b + 8), (a, b + 8)]]])) for i, (a, b) in enumerate(corner)]
    still, edited = ShapeIndex.build(sheets, shapes), EditableShapeIndex(sheets)
    for shape in shapes:
        edited.put(shape)
    table["shapes, within"] = {
        "STRtree": _took_ms(lambda: still.within(a0, ax, ay, 50.0), repeats),
        "STRtree and changes": _took_ms(lambda: edited.within(a0, ax, ay, 50.0), repeats),
    }
    boxes = np.asarray(shapely.box(corner[:, 0], corner[:, 1], corner[:, 0] + 8, corner[:, 1] + 8))
    bare = rtree.index.Index()
    for i, (a, b) in enumerate(corner):
        bare.insert(i, (a, b, a + 8, b + 8))

    def one_by_one() -> None:
        for k in range(CHANGES):
            edited.put(Placed(k, 0, Spot(float(x[k]), float(y[k]))))
            edited.within(a0[k : k + 1], ax[k : k + 1], ay[k : k + 1], 50.0)

    def tree_alone() -> None:
        for k in range(CHANGES):
            box = (float(corner[k, 0]), float(corner[k, 1]), float(corner[k, 0]) + 8, float(corner[k, 1]) + 8)
            bare.delete(k, box)
            bare.insert(k, box)
            list(bare.intersection((float(ax[k]) - 50, float(ay[k]) - 50, float(ax[k]) + 50, float(ay[k]) + 50)))

    changes = {"STRtree and changes, exact": _took_ms(one_by_one, repeats), "R-tree, boxes alone": _took_ms(tree_alone, repeats)}
    rebuilt = _took_ms(lambda: shapely.STRtree(boxes).query(boxes[0]), repeats)
    table[f"{CHANGES} changes"] = changes | {"STRtree built anew each time": round(rebuilt * CHANGES, 1)}
    board, side_m = ZoneBoard(), 200.0
    zones = [
        DrawnZone(id=f"z{i}", name="z", level=0, shape=Circle(float(a), float(b), 4.0))
        for i, (a, b) in enumerate(rng.uniform(0, side_m, (MAX_ZONES, 2)))
    ]
    for zone in zones:
        board.draw(zone)
    grounds = {zone.id: outline(zone) for zone in zones}

    def by_hand() -> None:
        for zone in zones[:REDRAWN]:
            board.draw(zone)
            board.in_box(0, (50.0, 50.0, 80.0, 80.0))

    def packed_anew() -> None:
        for zone in zones[:REDRAWN]:
            grounds[zone.id] = outline(zone)
            shapely.STRtree(list(grounds.values())).query(shapely.box(50.0, 50.0, 80.0, 80.0), predicate="intersects")

    def all_looked_at() -> None:
        for zone in zones[:REDRAWN]:
            grounds[zone.id] = outline(zone)
            shapely.intersects(list(grounds.values()), shapely.box(50.0, 50.0, 80.0, 80.0))

    table[f"{REDRAWN} of {MAX_ZONES} zones redrawn, a view after each"] = {
        "R-tree": _took_ms(by_hand, repeats), "STRtree built anew each time": _took_ms(packed_anew, repeats), "all looked at": _took_ms(all_looked_at, repeats),
    }  # fmt: skip
    for name, row in table.items():
        print(f"{name:16} " + "   ".join(f"{what} {ms:,.2f} ms" for what, ms in row.items()), flush=True)
    print(json.dumps({"name": "indexes", "n": n, "questions": QUESTIONS, "shapes": SHAPES, "ms": table}))
