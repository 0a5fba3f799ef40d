"""Geometry that a bare plan leaves to be concluded: doors, the ground in front of a unit, which units lie above one another.

Pure functions on Shapely geometries in metres; what is concluded is marked by the callers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

XY = tuple[float, float]

TOUCH_M: Final = 0.02
"""A unit touches ground this near."""

STRAIGHT_M: Final = (0.05, 0.09)
"""A run of wall is straight where no corner strays further from its chord: tried in this order (the second for round stands)."""

PASSABLE_M: Final = 0.7
"""Ground narrower than this is a slit between outlines; no door leads there while a unit touches wider ground."""

DOOR_LEAST_M: Final = 0.6
LINK_LEAST: Final = 0.1
"""Two units on consecutive levels are linked where they overlap by this share of the smaller, or more."""

STEP_OFF_M: Final = (0.8, 0.6, 0.45, 0.3)
"""Distances tried from a unit to the point where people step on and off."""


def passable(pieces: Sequence[BaseGeometry]) -> list[BaseGeometry]:
    """The parts of walkable pieces that are PASSABLE_M wide, largest first: what is left after slits between units are closed."""
    half = PASSABLE_M / 2
    opened = [piece.buffer(-half, join_style="mitre").buffer(half, join_style="mitre").intersection(piece) for piece in pieces]
    parts = [part for geometry in opened for part in shapely.get_parts(geometry) if part.geom_type == "Polygon"]
    return sorted(parts, key=lambda part: -part.area)


def door(unit: BaseGeometry, pieces: Sequence[BaseGeometry], *, widest_m: float) -> tuple[XY, XY] | None:
    """An opening of up to `widest_m`, in the middle of the longest straight run of the unit's longest contact with the first piece that it touches.

    `pieces` are walkable, the main one first. None where no contact is DOOR_LEAST_M long.
    """
    run = next((found for piece in pieces if (found := _longest_run(unit, piece)) is not None), None)
    if run is None:
        return None
    (ax, ay), (bx, by) = run
    length = math.hypot(bx - ax, by - ay)
    half = min(widest_m, length - 2 * TOUCH_M) / length / 2
    return (
        (ax + (bx - ax) * (0.5 - half), ay + (by - ay) * (0.5 - half)),
        (ax + (bx - ax) * (0.5 + half), ay + (by - ay) * (0.5 + half)),
    )


def _longest_run(unit: BaseGeometry, piece: BaseGeometry) -> tuple[XY, XY] | None:
    """The longest straight run of the longest contact whose run is DOOR_LEAST_M long."""
    if unit.distance(piece) > TOUCH_M:
        return None
    contact = shapely.intersection(unit.boundary, piece.buffer(TOUCH_M))
    parts = [part for part in shapely.get_parts(contact) if part.geom_type in ("LineString", "LinearRing")]
    lines = sorted(shapely.get_parts(shapely.line_merge(shapely.MultiLineString(parts))), key=lambda line: -line.length)
    for tolerance in STRAIGHT_M:
        runs = [_straight(line, tolerance) for line in lines]
        long = next((run for run in runs if math.dist(*run) >= DOOR_LEAST_M), None)
        if long is not None:
            return long
    return None


def _straight(line: BaseGeometry, tolerance: float) -> tuple[XY, XY]:
    """The longest straight run of a line."""
    corners = shapely.get_coordinates(shapely.simplify(line, tolerance))
    k = int(np.argmax(np.hypot(*np.diff(corners, axis=0).T)))
    (ax, ay), (bx, by) = corners[k].tolist(), corners[k + 1].tolist()
    return (ax, ay), (bx, by)


def touches(unit: BaseGeometry, ground: BaseGeometry) -> bool:
    """Whether the unit has a straight contact of DOOR_LEAST_M with the ground."""
    return _longest_run(unit, ground) is not None


def in_front(unit: BaseGeometry, ground: BaseGeometry) -> XY | None:
    """A point on the ground before the middle of the unit's longest contact with it; None where they do not touch."""
    run = _longest_run(unit, ground)
    if run is None:
        return None
    (ax, ay), (bx, by) = run
    length = math.hypot(bx - ax, by - ay)
    normal = (-(by - ay) / length, (bx - ax) / length)
    middle = ((ax + bx) / 2, (ay + by) / 2)
    return _step(middle, normal, ground) or _step(middle, (-normal[0], -normal[1]), ground) or _near(middle, ground)


def _step(start: XY, way: XY, ground: BaseGeometry) -> XY | None:
    for reach in STEP_OFF_M:
        point = shapely.Point(start[0] + way[0] * reach, start[1] + way[1] * reach)
        if ground.covers(point) and ground.boundary.distance(point) >= 0.9 * min(reach, 0.4):
            return point.x, point.y
    return None


def _near(start: XY, ground: BaseGeometry) -> XY | None:
    """The nearest ground that is 0.3 m from its border, within 2 m."""
    inner = ground.buffer(-0.3)
    if inner.is_empty:
        return None
    point = shapely.shortest_line(inner, shapely.Point(start)).coords[0]
    return (float(point[0]), float(point[1])) if math.dist(point, start) <= 2.0 else None


def ends(unit: BaseGeometry) -> tuple[tuple[XY, XY], tuple[XY, XY]]:
    """The two short sides of an elongated unit: (middle, outward direction) each, from its tightest rectangle."""
    corners = shapely.get_coordinates(unit.minimum_rotated_rectangle)[:4]
    if math.dist(corners[0], corners[1]) < math.dist(corners[1], corners[2]):
        corners = np.roll(corners, -1, axis=0)
    first, second = (corners[1] + corners[2]) / 2, (corners[3] + corners[0]) / 2
    along = (first - second) / max(1e-9, math.dist(first, second))
    return ((float(first[0]), float(first[1])), (float(along[0]), float(along[1]))), (
        (float(second[0]), float(second[1])),
        (-float(along[0]), -float(along[1])),
    )


def escalator_stops(lower: BaseGeometry, upper: BaseGeometry, ground: BaseGeometry, ground_above: BaseGeometry) -> tuple[XY, XY] | None:
    """Where people step on below and off above: opposite ends where both are on the ground, else whatever ground each touches."""
    below = ends(lower)
    above = ends(upper)
    if _dot(below[0][1], above[0][1]) < 0:
        above = (above[1], above[0])
    feet = [_step(middle, way, ground) for middle, way in below]
    heads = [_step(middle, way, ground_above) for middle, way in above]
    for k in (0, 1):
        foot, head = feet[k], heads[1 - k]
        if foot is not None and head is not None:
            return foot, head
    last_foot = feet[0] or feet[1] or in_front(lower, ground)
    last_head = heads[0] or heads[1] or in_front(upper, ground_above)
    return None if last_foot is None or last_head is None else (last_foot, last_head)


def _dot(a: XY, b: XY) -> float:
    return a[0] * b[0] + a[1] * b[1]


def overlaps(lower: Sequence[BaseGeometry], upper: Sequence[BaseGeometry]) -> list[tuple[int, int, float]]:
    """Pairs (i, j, share of the smaller) of units above one another, by LINK_LEAST; the largest share first."""
    found = []
    for i, a in enumerate(lower):
        for j, b in enumerate(upper):
            share = a.intersection(b).area / min(a.area, b.area)
            if share >= LINK_LEAST:
                found.append((i, j, float(share)))
    return sorted(found, key=lambda pair: (-pair[2], pair[0], pair[1]))


def one_to_one(pairs: Sequence[tuple[int, int, float]]) -> list[tuple[int, int]]:
    """Of `overlaps`, each unit at most once, the largest share first."""
    left: set[int] = set()
    right: set[int] = set()
    kept = []
    for i, j, _ in pairs:
        if i not in left and j not in right:
            left.add(i)
            right.add(j)
            kept.append((i, j))
    return sorted(kept)


COMPASS: Final = ("east", "north_east", "north", "north_west", "west", "south_west", "south", "south_east")


def compass(origin: XY, point: XY, bearing_deg: float = 0.0) -> str:
    """The eighth of the compass in which `point` lies, seen from `origin`; `bearing_deg` as in `Origin`."""
    angle = math.degrees(math.atan2(point[1] - origin[1], point[0] - origin[0])) + bearing_deg
    return COMPASS[round(angle / 45.0) % 8]
