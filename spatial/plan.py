"""What follows geometrically from a venue: where people can stand, and what they cannot cross.

Owns the rules below; it never mends a plan (importers and overlays do) and never judges one (`spatial.checks` does).

* **Ground.** Walkway = the level's outline minus every unit, except `walkway` and `parking` units: rest areas and bays are open ground without walls.
* **Rooms.** A `room` or `restroom*` unit is entered through its openings alone; inside it is walkable. A room without a usable opening is solid.
  Where two rooms overlap, the first listed keeps the ground; solids always win.
* **Solid.** `nonpublic`, `structure`, `stage`, `unspecified`, voids (`opentobelow`), and the units of stairs, escalators and lifts.
* **Openings.** An opening is usable where, within OPENING_TOLERANCE_M, its own room lies on one side and other free ground on the other,
  over at least OPENING_LEAST_M. It takes away exactly the walls along that stretch; what is left over is *blind*.
* **Connectors.** Nobody walks inside a connector's unit. `Stop.point` lies on free ground in front of it: a person walks to the stop's point, leaves
  the level there, and appears at the other stop's point after the time that the ride or climb takes.
* **Barriers** cut the ground without taking any away.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import shapely
from shapely import STRtree
from shapely.geometry.base import BaseGeometry

from esplanade.core.errors import NotFound
from spatial.venue import MultiPolygon, Unit, Venue

OPENING_TOLERANCE_M: Final = 0.1
"""An opening may lie this far from the wall that it opens."""

OPENING_LEAST_M: Final = 0.3
"""A usable opening is at least this wide."""

_CUT_TOLERANCE_M: Final = OPENING_TOLERANCE_M / (1 - (OPENING_TOLERANCE_M / OPENING_LEAST_M) ** 2) ** 0.5
"""A wall within the tolerance of the opening over OPENING_LEAST_M may lean away from it; square to the opening it is then at most this far."""

PIECE_LEAST_M2: Final = 1.0
"""Scraps of ground below this are gaps between outlines, not places, and dropped."""

OPEN_GROUND: Final = frozenset({"walkway", "parking"})
ROOMS: Final = frozenset({"room", "restroom", "restroom.male", "restroom.female", "restroom.wheelchair"})


@dataclass(frozen=True, slots=True)
class Gap:
    """The usable stretch of an opening: a segment in metres, venue frame. `unit` and `opening` index `Venue.units` and `Venue.openings`."""

    opening: int
    unit: int
    a: tuple[float, float]
    b: tuple[float, float]

    @property
    def middle(self) -> tuple[float, float]:
        return (self.a[0] + self.b[0]) / 2, (self.a[1] + self.b[1]) / 2


@dataclass(frozen=True, slots=True)
class LevelPlan:
    """The plan of one level, metres, venue frame.

    outline: the level's polygon. walkway: open ground. walkway_pieces: its connected polygons (cut by barriers), largest first.
    interiors: free ground of each enterable room, by index into `Venue.units`. free: walkway and interiors together.
    pieces: what is connected on foot, openings considered, largest first; `main` is the first. gaps: usable openings; blind: indices into
    `Venue.openings` of the others. walls: (m, 4) float64, segments (x1, y1, x2, y2) that nobody crosses.
    """

    level: int
    outline: shapely.MultiPolygon
    walkway: shapely.MultiPolygon
    walkway_pieces: tuple[shapely.Polygon, ...]
    interiors: dict[int, shapely.MultiPolygon]
    gaps: tuple[Gap, ...]
    blind: tuple[int, ...]
    walls: npt.NDArray[np.float64]
    free: shapely.MultiPolygon
    pieces: tuple[shapely.MultiPolygon, ...]

    @property
    def main(self) -> shapely.MultiPolygon:
        """The largest connected piece; empty where the level has no free ground."""
        return self.pieces[0] if self.pieces else shapely.MultiPolygon()


def shape(coordinates: MultiPolygon) -> shapely.MultiPolygon:
    """A Shapely multipolygon of a venue's coordinates, as they are (not mended)."""
    return shapely.MultiPolygon([shapely.Polygon(rings[0], rings[1:]) for rings in coordinates])


def level_plan(venue: Venue, level_index: int) -> LevelPlan:
    """Apply the module's rules to one level. Self-crossing rings are taken as Shapely's `make_valid` mends them. Raises NotFound for no such level."""
    if not 0 <= level_index < len(venue.levels):
        raise NotFound(f"level {level_index}: venue {venue.id} has levels 0 to {len(venue.levels) - 1}")
    level = venue.levels[level_index]
    units = [(i, unit) for i, unit in enumerate(venue.units) if unit.level_id == level.id]
    shapes = {i: _valid(shape(unit.polygon)) for i, unit in units}
    outline = _polygonal(_valid(shape(level.outline)))
    taken = shapely.union_all([shapes[i] for i, unit in units if unit.category not in OPEN_GROUND])
    walkway = _polygonal(outline.difference(taken))
    barriers = [shapely.LineString(b.line) for b in venue.barriers if b.level_id == level.id]
    ground = walkway
    if barriers:
        ground = _polygonal(walkway.difference(shapely.union_all(shapely.buffer(barriers, 1e-3, cap_style="square"))))
    walkway_pieces = tuple(sorted(ground.geoms, key=lambda piece: -piece.area))

    index = {unit.id: i for i, unit in units}
    opened = {index[o.unit_id] for o in venue.openings if o.level_id == level.id and o.unit_id in index}
    rooms = _rooms(units, shapes, outline, opened)
    nodes: list[shapely.Polygon] = [*walkway_pieces, *(part for room in rooms.values() for part in room.geoms)]
    owner = [-1] * len(walkway_pieces) + [i for i, room in rooms.items() for _ in room.geoms]
    gaps: list[Gap] = []
    blind: list[int] = []
    links: list[tuple[int, int]] = []
    tree = STRtree(nodes)
    for number, opening in enumerate(venue.openings):
        if opening.level_id != level.id:
            continue
        gap, joined = _gap(number, index.get(opening.unit_id, -1), (opening.a, opening.b), tree, nodes, owner)
        if gap is None:
            blind.append(number)
        else:
            gaps.append(gap)
            links += joined

    entered = {gap.unit for gap in gaps}
    kept = [n for n, who in enumerate(owner) if who < 0 or who in entered]
    interiors = {i: room for i, room in rooms.items() if i in entered}
    pieces = _connected(nodes, kept, links)
    walls = _walls([nodes[n] for n in kept if owner[n] >= 0], walkway, barriers, gaps)
    free = shapely.MultiPolygon([*walkway.geoms, *(part for room in interiors.values() for part in room.geoms)])
    return LevelPlan(level_index, outline, walkway, walkway_pieces, interiors, tuple(gaps), tuple(blind), walls, free, pieces)


def level_plans(venue: Venue) -> tuple[LevelPlan, ...]:
    """Every level's plan, in the order of `Venue.levels`."""
    return tuple(level_plan(venue, i) for i in range(len(venue.levels)))


def anchor_of(venue: Venue, unit_id: str) -> tuple[int, float, float]:
    """(level index, x, y): where the unit meets people: the middle of its first opening, else a point inside it. Raises NotFound."""
    return anchors(venue, (unit_id,))[0]


def anchors(venue: Venue, unit_ids: Iterable[str]) -> list[tuple[int, float, float]]:
    """`anchor_of` for many units in one pass. Raises NotFound for an id that is no unit."""
    levels = {level.id: i for i, level in enumerate(venue.levels)}
    units = {unit.id: unit for unit in venue.units}
    middle: dict[str, tuple[float, float]] = {}
    for opening in venue.openings:
        middle.setdefault(opening.unit_id, ((opening.a[0] + opening.b[0]) / 2, (opening.a[1] + opening.b[1]) / 2))
    found = []
    for unit_id in unit_ids:
        unit = units.get(unit_id)
        if unit is None:
            raise NotFound(f"unit {unit_id[:100]!r}: no unit of venue {venue.id} has this id")
        at = middle.get(unit_id)
        if at is None:
            point = _valid(shape(unit.polygon)).representative_point()
            at = point.x, point.y
        found.append((levels[unit.level_id], *at))
    return found


def _valid(geometry: BaseGeometry) -> BaseGeometry:
    return geometry if geometry.is_valid else shapely.make_valid(geometry)


def _polygonal(geometry: BaseGeometry) -> shapely.MultiPolygon:
    """The polygons of a geometry that are more than scraps."""
    parts = [part for part in shapely.get_parts(geometry, return_index=False) if part.geom_type in ("Polygon", "MultiPolygon")]
    return shapely.MultiPolygon([polygon for part in parts for polygon in shapely.get_parts(part) if polygon.area >= PIECE_LEAST_M2])


def _rooms(
    units: list[tuple[int, Unit]], shapes: dict[int, BaseGeometry], outline: shapely.MultiPolygon, opened: set[int]
) -> dict[int, shapely.MultiPolygon]:
    """Ground of each room that has an opening: within the outline, less solids and rooms listed before it."""
    tree_ids = [i for i, unit in units if unit.category not in OPEN_GROUND]
    tree = STRtree([shapes[i] for i in tree_ids])
    category = {i: unit.category for i, unit in units}
    rooms: dict[int, shapely.MultiPolygon] = {}
    for i, unit in units:
        if unit.category not in ROOMS or i not in opened:
            continue
        near = (tree_ids[k] for k in tree.query(shapes[i]))
        others = [j for j in near if j != i and (category[j] not in ROOMS or j < i)]
        others = [j for j in others if shapely.relate_pattern(shapes[i], shapes[j], "2********")]
        ground = shapes[i] if outline.covers(shapes[i]) else shapes[i].intersection(outline)
        if others:
            ground = ground.difference(shapely.union_all([shapes[j] for j in others]))
        room = _polygonal(ground)
        if not room.is_empty:
            rooms[i] = room
    return rooms


Interval = tuple[float, float]


def _gap(
    number: int,
    unit: int,
    segment: tuple[tuple[float, float], tuple[float, float]],
    tree: STRtree,
    nodes: list[shapely.Polygon],
    owner: list[int],
) -> tuple[Gap | None, list[tuple[int, int]]]:
    """The usable stretch of an opening and the pairs of nodes that it joins; (None, []) where it is blind."""
    line = shapely.LineString(segment)
    own: list[tuple[int, Interval]] = []
    other: list[tuple[int, Interval]] = []
    if line.length > 0:
        for n in sorted(int(k) for k in tree.query(line.buffer(OPENING_TOLERANCE_M))):
            stretch = _stretch(line, nodes[n])
            if stretch is not None:
                (own if owner[n] == unit else other).append((n, stretch))
    best: Interval = (0.0, 0.0)
    joined: list[tuple[int, int]] = []
    for n, mine in own:
        for m, theirs in other:
            both = max(mine[0], theirs[0]), min(mine[1], theirs[1])
            if both[1] - both[0] >= OPENING_LEAST_M:
                joined.append((n, m))
                best = (min(best[0], both[0]), max(best[1], both[1])) if best[1] > 0 else both
    if not joined:
        return None, []
    (ax, ay), (bx, by) = segment
    s, t = best[0] / line.length, best[1] / line.length
    a = (ax + (bx - ax) * s, ay + (by - ay) * s)
    b = (ax + (bx - ax) * t, ay + (by - ay) * t)
    return Gap(number, unit, a, b), joined


def _stretch(line: shapely.LineString, node: shapely.Polygon) -> Interval | None:
    """From where to where along `line` (metres from its start) the node is within the tolerance, the longest run; None below OPENING_LEAST_M.

    One run, not first to last: a chord across a bent wall is near the ground at both its ends and far from it between.
    """
    near = line.intersection(node.buffer(OPENING_TOLERANCE_M, cap_style="flat", join_style="mitre"))
    run = max(shapely.get_parts(near), key=lambda part: part.length, default=None)
    if run is None or run.length < OPENING_LEAST_M:
        return None
    along = shapely.line_locate_point(line, shapely.points(shapely.get_coordinates(run)))
    return float(along.min()), float(along.max())


def _connected(nodes: list[shapely.Polygon], kept: list[int], links: list[tuple[int, int]]) -> tuple[shapely.MultiPolygon, ...]:
    """Multipolygons of the nodes that the links join, largest first."""
    root = {n: n for n in kept}

    def find(n: int) -> int:
        while root[n] != n:
            root[n] = root[root[n]]
            n = root[n]
        return n

    for a, b in links:
        if a in root and b in root:
            root[find(a)] = find(b)
    groups: dict[int, list[shapely.Polygon]] = {}
    for n in kept:
        groups.setdefault(find(n), []).append(nodes[n])
    return tuple(sorted((shapely.MultiPolygon(group) for group in groups.values()), key=lambda piece: -piece.area))


def _walls(
    rooms: list[shapely.Polygon], walkway: shapely.MultiPolygon, barriers: list[shapely.LineString], gaps: list[Gap]
) -> npt.NDArray[np.float64]:
    """Borders of all free ground without the gaps, and the barriers: (m, 4) segments, each once."""
    borders = shapely.union_all([walkway.boundary, *(room.boundary for room in rooms)])
    segments = _segments(borders)
    if len(segments):
        tree = STRtree([shapely.LineString(pair) for pair in segments.reshape(-1, 2, 2)])
        cuts: dict[int, list[Interval]] = {}
        for gap in gaps:
            zone = shapely.LineString([gap.a, gap.b]).buffer(OPENING_TOLERANCE_M, cap_style="flat")
            for k in tree.query(zone, predicate="intersects"):
                cut = _cut(segments[k], gap)
                if cut is not None:
                    cuts.setdefault(int(k), []).append(cut)
        whole = np.delete(segments, sorted(cuts), axis=0)
        rest = [remain for k, holes in sorted(cuts.items()) for remain in _without(segments[k], holes)]
        segments = np.concatenate([whole, np.array(rest).reshape(-1, 4)])
    return np.concatenate([segments, *(_segments(barrier) for barrier in barriers)])


def _segments(lines: BaseGeometry) -> npt.NDArray[np.float64]:
    parts = [shapely.get_coordinates(part) for part in shapely.get_parts(lines)]
    return np.concatenate([np.zeros((0, 4)), *(np.hstack([xy[:-1], xy[1:]]) for xy in parts)])


def _cut(segment: npt.NDArray[np.float64], gap: Gap) -> Interval | None:
    """The stretch of a wall segment (0 to 1 along it) that lies along the gap within the tolerance; None for a wall that only touches or crosses."""
    start, along = segment[:2], segment[2:] - segment[:2]
    a, b = np.array(gap.a), np.array(gap.b)
    way = (b - a) / np.hypot(*(b - a))
    across = np.array([-way[1], way[0]])
    s0, s1 = float((start - a) @ way), float((start + along - a) @ way)
    if abs(s1 - s0) < 1e-9:
        return None
    width = float(np.hypot(*(b - a)))
    t = sorted(((0.0 - s0) / (s1 - s0), (width - s0) / (s1 - s0)))
    low, high = max(0.0, t[0]), min(1.0, t[1])
    if (high - low) * float(np.hypot(*along)) < 1e-3:
        return None
    off = [abs(float((start + along * at - a) @ across)) for at in (low, high)]
    return (low, high) if max(off) <= _CUT_TOLERANCE_M else None


def _without(segment: npt.NDArray[np.float64], holes: list[Interval]) -> list[npt.NDArray[np.float64]]:
    start, along = segment[:2], segment[2:] - segment[:2]
    length = float(np.hypot(*along))
    rest = []
    at = 0.0
    for low, high in [*sorted(holes), (1.0, 1.0)]:
        if (low - at) * length > 1e-3:
            rest.append(np.concatenate([start + along * at, start + along * low]))
        at = max(at, high)
    return rest
