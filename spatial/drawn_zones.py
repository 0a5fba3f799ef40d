"""Zones that an operator draws while the venue lives: what one is, what may be drawn, and the fence that follows.

Owns the zone's own terms and their checks. Who enters, leaves and dwells is `spatial.fence_watch`'s to say; that a zone is in force is the venue's actors'.

Bad input. A ring that crosses itself, a shape of less than LEAST_M2, a coordinate that is not finite, an unknown level or unit, more than MAX_VERTICES corners: refused, by name,
rule and remedy. A first point repeated at the end of a ring is left out. A zone may lie outside its level's outline (a queue in the street).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, assert_never

import msgspec
import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from esplanade.core.clock import TICK_S
from esplanade.core.errors import InvalidInput
from esplanade.core.ids import check_name
from spatial.fence_watch import FenceRule, FenceWatch
from spatial.geofence import Corridor, MultiPolygonCoords
from spatial.plan import shape
from spatial.venue import Venue
from spatial.zone_shapes import Along, Circle, DrawnZone, Hours, InUnit, Line, Point, Polygon, Shape

MAX_ZONES: Final = 1_000
"""Drawn zones of a venue at a time: fewer than the fences that one person can be in at once (`spatial.fence_watch.MAX_SLOTS`)."""

MAX_VERTICES: Final = 10_000
LEAST_M2: Final = 0.5
LARGEST_M: Final = 1e6
MAX_ACCURACIES: Final = 8
"""Different `accuracy_m` among the zones of a venue: each is a watch of its own."""


def check_zone(zone: DrawnZone, venue: Venue) -> DrawnZone:
    """The zone as it is kept: a unit's shape filled in, rings without their repeated point. Raises InvalidInput."""
    check_name(zone.id, "zone id")
    if zone.level >= len(venue.levels):
        raise InvalidInput(f"zone {zone.id}: level {zone.level}; venue {venue.id} has levels 0 to {len(venue.levels) - 1}")
    taken = {z.id for z in venue.zones} | {unit.id for unit in venue.units}
    if zone.id in taken:
        raise InvalidInput(f"zone {zone.id}: the venue document has a unit or zone of this id; draw it under another")
    for hours in zone.hours:
        Hours(hours.from_s, hours.until_s, hours.every_s)
    return msgspec.structs.replace(zone, shape=_checked(zone, venue))


def _checked(zone: DrawnZone, venue: Venue) -> Shape:
    where = f"zone {zone.id}"
    drawn = zone.shape
    match drawn:
        case Circle():
            _finite(where, [(drawn.x_m, drawn.y_m)])
            if not 0.4 <= drawn.radius_m <= 10_000:
                raise InvalidInput(f"{where}: radius {drawn.radius_m} m; must be 0.4 to 10,000 m")
            return drawn
        case Along():
            _finite(where, drawn.line)
            if len(set(drawn.line)) < 2 or not 0.1 <= drawn.half_width_m <= 1_000:
                raise InvalidInput(
                    f"{where}: a corridor along {len(set(drawn.line))} points, {drawn.half_width_m} m to each side; give two or more, 0.1 to 1,000 m"
                )
            return drawn
        case Polygon():
            return _polygon(where, drawn)
        case Line():
            _finite(where, (drawn.a, drawn.b))
            if drawn.a == drawn.b:
                raise InvalidInput(f"{where}: a line from {drawn.a} to the same point; it must join two")
            return drawn
        case InUnit():
            unit = next((unit for unit in venue.units if unit.id == drawn.unit_id), None)
            if unit is None:
                raise InvalidInput(f"{where}: unit {drawn.unit_id[:100]!r} is not in venue {venue.id}; name one of its units")
            if venue.level_index(unit.level_id) != zone.level:
                raise InvalidInput(f"{where}: level {zone.level}, and unit {unit.id} is on level {venue.level_index(unit.level_id)}; give that one")
            return Polygon(unit.polygon)
        case _:
            assert_never(drawn)


def _finite(where: str, points: Iterable[Point]) -> None:
    listed = list(points)
    if len(listed) > MAX_VERTICES:
        raise InvalidInput(f"{where}: {len(listed)} points; at most {MAX_VERTICES}, draw it coarser")
    for point in listed:
        if not (abs(point[0]) <= LARGEST_M and abs(point[1]) <= LARGEST_M):
            raise InvalidInput(f"{where}: point {point}; must be finite metres, at most {LARGEST_M:,.0f} from the origin")


def _polygon(where: str, drawn: Polygon) -> Polygon:
    _finite(where, (point for rings in drawn.polygon for ring in rings for point in ring))
    rings_of = tuple(tuple(ring[:-1] if len(ring) > 1 and ring[0] == ring[-1] else ring for ring in rings) for rings in drawn.polygon)
    if not rings_of or not all(rings and all(len(set(ring)) >= 3 for ring in rings) for rings in rings_of):
        raise InvalidInput(f"{where}: a polygon without rings, or a ring of fewer than three different points; give polygons of rings of points")
    made = shape(rings_of)
    if not made.is_valid:
        raise InvalidInput(f"{where}: {shapely.is_valid_reason(made)}; draw rings that do not cross or overlap")
    if made.area < LEAST_M2:
        raise InvalidInput(f"{where}: {made.area:.2f} m2; draw {LEAST_M2} m2 or more")
    return Polygon(rings_of)


def outline(zone: DrawnZone) -> BaseGeometry:
    """The ground of a checked zone; a circle has 64 corners here."""
    match zone.shape:
        case Circle(x_m, y_m, radius_m):
            return shapely.Point(x_m, y_m).buffer(radius_m, quad_segs=16)
        case Along(line, half_width_m):
            return shapely.LineString(line).buffer(half_width_m, quad_segs=16)
        case Polygon(polygon):
            return shape(polygon)
        case Line(a, b):
            return shapely.LineString([a, b])
        case InUnit(unit_id):
            raise InvalidInput(f"zone {zone.id}: unit {unit_id} is not resolved; check_zone does")


def ground_m2(zone: DrawnZone) -> float:
    """Its area."""
    return float(np.pi * zone.shape.radius_m**2) if isinstance(zone.shape, Circle) else float(outline(zone).area)


@dataclass(frozen=True, slots=True)
class Watched:
    """Zones of one accuracy and the watch over them. `ids`: the zone of each of its fences. The watch's time counts ticks."""

    accuracy_m: float
    ids: tuple[str, ...]
    watch: FenceWatch


def watches(zones: Iterable[DrawnZone], n_levels: int, people: int) -> list[Watched]:
    """Fresh watches over checked zones, one an accuracy, in ascending order; fences by kind of shape, then id."""
    groups: dict[float, list[DrawnZone]] = {}
    for zone in sorted((zone for zone in zones if not isinstance(zone.shape, Line)), key=lambda zone: zone.id):
        groups.setdefault(zone.accuracy_m, []).append(zone)
    made = []
    for accuracy_m, mine in sorted(groups.items()):
        polygons: list[tuple[int, MultiPolygonCoords]] = []
        circles: list[tuple[int, float, float, float]] = []
        corridors: list[Corridor] = []
        order: tuple[list[DrawnZone], list[DrawnZone], list[DrawnZone]] = ([], [], [])
        for zone in mine:
            match zone.shape:
                case Polygon(polygon):
                    polygons.append((zone.level, polygon))
                    order[0].append(zone)
                case Circle(x_m, y_m, radius_m):
                    circles.append((zone.level, x_m, y_m, radius_m))
                    order[1].append(zone)
                case Along(line, half_width_m):
                    corridors.append(Corridor(zone.level, line, half_width_m))
                    order[2].append(zone)
                case InUnit() | Line():
                    raise InvalidInput(f"zone {zone.id}: {zone.shape} is no fence; check_zone resolves units, lines are not watched")
        sorted_zones = [zone for kind in order for zone in kind]
        watch = FenceWatch(n_levels, people, polygons, circles, corridors, rules=[_rule(zone) for zone in sorted_zones])
        made.append(Watched(accuracy_m, tuple(zone.id for zone in sorted_zones), watch))
    return made


def _rule(zone: DrawnZone) -> FenceRule:
    """In ticks, which are exact: a dwell of 3 s is 30 of them, whatever the hour."""
    return FenceRule(
        margin_m=zone.margin_m, confirm_s=_in_ticks(zone.confirm_s), dwell_s=None if zone.dwell_s is None else _in_ticks(zone.dwell_s), least=zone.least,
        cross=zone.cross, all_of=zone.segments, none_of=zone.without,
        hours=tuple(Hours(_in_ticks(h.from_s), _in_ticks(h.until_s), _in_ticks(h.every_s)) for h in zone.hours),
    )  # fmt: skip


def _in_ticks(seconds: float) -> float:
    return float(round(seconds / TICK_S))


FORWARD: Final = 4
BACKWARD: Final = 5
"""Kinds of what happens at a line, beside those of `spatial.fence_watch`."""


@dataclass(frozen=True, slots=True)
class Places:
    """Of n people: level index (n,) uint8, LEFT where nowhere; x_m, y_m (n,) float64."""

    level: npt.NDArray[np.uint8]
    x_m: npt.NDArray[np.float64]
    y_m: npt.NDArray[np.float64]

    def take(self, rows: npt.NDArray[np.integer]) -> Places:
        return Places(self.level[rows], self.x_m[rows], self.y_m[rows])


def passed(zone: DrawnZone, before: Places, now: Places) -> npt.NDArray[np.int8]:
    """(n,) +1 for those who went straight from one place to the other and passed the line forward, -1 backward, else 0."""
    line = zone.shape
    if not isinstance(line, Line):
        raise InvalidInput(f"zone {zone.id}: {type(line).__name__} is no line")
    (ax, ay), (bx, by) = line.a, line.b
    dx, dy = bx - ax, by - ay
    out = np.zeros(len(now.level), np.int8)
    moved = np.flatnonzero((before.level == zone.level) & (now.level == zone.level))
    p = np.column_stack([before.x_m[moved], before.y_m[moved]]) - (ax, ay)
    q = np.column_stack([now.x_m[moved], now.y_m[moved]]) - (ax, ay)
    side_p, side_q = dx * p[:, 1] - dy * p[:, 0], dx * q[:, 1] - dy * q[:, 0]
    other = np.flatnonzero((side_p >= 0) != (side_q >= 0))
    share = (side_p / np.where(side_p == side_q, 1.0, side_p - side_q))[other, None]
    meet = p[other] + share * (q[other] - p[other])
    along = (meet[:, 0] * dx + meet[:, 1] * dy) / (dx * dx + dy * dy)
    hit = other[(along >= 0) & (along <= 1)]
    out[moved[hit]] = np.where(side_p[hit] >= 0, 1, -1)
    return out
