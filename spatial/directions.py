"""A route in words: steps with landmarks, from which any language can be assembled, and their English.

Owns which bends are worth a word and which shops are worth a mention. It computes no route. A step carries names and numbers, never a sentence;
`english` is one table of phrases over the closed union `Step`, and another language is another such table.

Rules. The drawn way is smoothed by SMOOTH_M first, so that a curved wall is not ten turns. A bend below BEND_DEG is walking on; bends to the same side within
JOIN_M are one. A landmark is a shop, or a lift, stairs, escalator or washroom, whose door (or front) is seen from the way and near it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, assert_never

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from spatial import routing_kernels as kernels
from spatial.plan import shape
from spatial.profiles import Way
from spatial.routes import At, Place, Ride, Route, Walk
from spatial.routing import Router

F8 = npt.NDArray[np.float64]
Side = Literal["left", "right", "ahead"]
Bend = Literal["slight_left", "left", "sharp_left", "slight_right", "right", "sharp_right", "round"]

SMOOTH_M: Final = 1.2
BEND_DEG: Final = 35.0
JOIN_M: Final = 7.0
NEAR_M: Final = 9.0
"""A landmark's door is at most this far from the way."""

PASSED: Final = 2
"""Landmarks named on one stretch at most: the most popular, then the nearest."""

STRETCH_M: Final = 12.0
"""A stretch shorter than this names no shops passed."""

_ROUND_M: Final = 5


@dataclass(frozen=True, slots=True)
class Landmark:
    """What people can look for: `kind` is shop, elevator, stairs, escalator or restroom; a shop has its `name`."""

    kind: str
    name: str | None
    unit_id: str


@dataclass(frozen=True, slots=True)
class Passed:
    landmark: Landmark
    side: Side


@dataclass(frozen=True, slots=True)
class Start:
    """Where the way begins: the place's name (None for a point), the level's name, and what to walk towards."""

    place: str | None
    level: str
    towards: Landmark | None


@dataclass(frozen=True, slots=True)
class Turn:
    """A bend, after `after_m` metres of walking, at a landmark."""

    bend: Bend
    at: Landmark | None


@dataclass(frozen=True, slots=True)
class Go:
    """A stretch without a turn worth a word; metres are rounded to five."""

    metres: int
    passing: tuple[Passed, ...]


@dataclass(frozen=True, slots=True)
class Take:
    """A ride: its way, the level to get off at, how many storeys, up or down."""

    way: Way
    connector_id: str
    to_level: str
    storeys: int
    up: bool


@dataclass(frozen=True, slots=True)
class Arrive:
    """The end: the place's name (None for a point) and on which side it lies."""

    place: str | None
    side: Side


Step = Start | Turn | Go | Take | Arrive


class Guide:
    """Words for the routes of one router: knows every landmark of its venue."""

    def __init__(self, router: Router) -> None:
        venue = router.venue
        self._router = router
        self._names = {occupant.unit_id: occupant.name for occupant in reversed(venue.occupants)}
        popular = {occupant.unit_id: occupant.popularity for occupant in venue.occupants}
        self._names |= {entrance.code: entrance.name for entrance in venue.entrances} | {entrance.id: entrance.name for entrance in venue.entrances}
        self._names |= {amenity.id: amenity.name or amenity.category for amenity in venue.amenities}
        self._unit_names = {unit.id: unit.name for unit in venue.units if unit.name and unit.category == "room"}
        found: dict[int, list[tuple[Landmark, float, float, float, F8]]] = defaultdict(list)
        for unit in venue.units:
            kind = _kind(unit.category)
            name = self._names.get(unit.id) or self._unit_names.get(unit.id)
            if kind is None or (kind == "shop" and name is None):
                continue
            landmark = Landmark(kind, name if kind == "shop" else None, unit.id)
            for at in router.access(unit.id)[:1]:
                within = _just_inside(shapely.make_valid(shape(unit.polygon)), at)
                found[at.level].append((landmark, at.x_m, at.y_m, popular.get(unit.id, 0.0), within))
        self._landmarks = {level: [row[0] for row in rows] for level, rows in found.items()}
        self._at = {level: np.array([row[1:3] for row in rows]) for level, rows in found.items()}
        self._weight = {level: np.array([row[3] for row in rows]) for level, rows in found.items()}
        self._within = {level: np.array([row[4] for row in rows]) for level, rows in found.items()}

    def steps(self, route: Route, start: Place, goal: Place) -> tuple[Step, ...]:
        """The steps of a route that `Router.route` gave for these ends."""
        own = {place for place in (start, goal) if isinstance(place, str)}
        levels = self._router.venue.levels
        steps: list[Step] = []
        first = route.legs[0]
        level = first.level if isinstance(first, Walk) else first.from_level
        heading: float | None = None
        for k, leg in enumerate(route.legs):
            if isinstance(leg, Ride):
                if not steps:
                    steps.append(Start(self._called(start), levels[level].name, None))
                storeys = levels[leg.to_level].ordinal - levels[leg.from_level].ordinal
                if steps and isinstance(last := steps[-1], Take) and last.way == leg.way and leg.way.startswith("stairs"):
                    storeys += last.storeys if last.up else -last.storeys  # one flight after the other on the same stairs is one climb
                    steps.pop()
                steps.append(Take(leg.way, leg.connector_id, levels[leg.to_level].name, abs(storeys), storeys > 0))
                dx, dy = leg.to_point[0] - leg.from_point[0], leg.to_point[1] - leg.from_point[1]
                # Off an escalator one faces the way it ran; out of a lift, nobody knows where.
                heading = math.atan2(dy, dx) if leg.way.startswith("escalator") and math.hypot(dx, dy) > 2 else None
                continue
            away = {leg.connector_id for leg in route.legs[k + 1 : k + 2] if isinstance(leg, Ride)}
            steps += self._stretch(leg, heading, start if k == 0 else None, own, away)
            heading = None
        steps.append(Arrive(self._called(goal), self._side(route, goal)))
        return tuple(steps)

    def _called(self, place: Place) -> str | None:
        if isinstance(place, At):
            return None
        return self._names.get(place) or self._unit_names.get(place) or place

    def _stretch(self, walk: Walk, heading: float | None, start: Place | None, own: set[str], away: set[str]) -> list[Step]:
        """Go and Turn steps of a walk; the first says what to walk towards where nobody knows which way they face."""
        points = smooth(walk.points)
        turns = bends(points)
        cuts = [0, *(at for at, _ in turns), len(points) - 1]
        steps: list[Step] = []
        unsaid = own | self._units_of(away)
        if start is not None:
            ahead = self._towards(walk.level, points[: cuts[1] + 1], unsaid)
            steps.append(Start(self._called(start), self._router.venue.levels[walk.level].name, ahead))
        elif heading is not None and len(points) > 1 and walk.length_m >= _ROUND_M:
            turned = _wrap(math.degrees(math.atan2(*(points[1] - points[0])[::-1]) - heading))
            if abs(turned) >= BEND_DEG:
                steps.append(Turn(_bend(turned), None))
        for k in range(len(cuts) - 1):
            part = points[cuts[k] : cuts[k + 1] + 1]
            metres = float(np.hypot(*np.diff(part, axis=0).T).sum())
            if k > 0:
                steps.append(Turn(_bend(turns[k - 1][1]), self._nearest(walk.level, part[0], unsaid)))
            if metres >= _ROUND_M / 2:
                passing = self._passed(walk.level, _raw(walk.points, part), unsaid) if metres >= STRETCH_M else ()
                steps.append(Go(max(_ROUND_M, _ROUND_M * round(metres / _ROUND_M)), passing))
        return steps

    def _units_of(self, connectors: set[str]) -> set[str]:
        return {stop.unit_id for c in self._router.venue.connectors if c.id in connectors for stop in c.stops if stop.unit_id is not None}

    def _seen(self, level: int, points: F8, unsaid: set[str], reach_m: float) -> list[tuple[int, float, F8]]:
        """(landmark, metres from the way, the way's point nearest to it) of landmarks that are seen from there."""
        if level not in self._at:
            return []
        line = shapely.LineString(points) if len(points) > 1 else shapely.Point(points[0])
        doors = self._at[level]
        away = np.asarray(shapely.distance(line, shapely.points(doors)))
        found = []
        grid = self._router._network.grounds[level].grid
        for k in np.flatnonzero(away <= reach_m):
            if self._landmarks[level][k].unit_id in unsaid:
                continue
            near = np.asarray(shapely.get_coordinates(shapely.shortest_line(line, shapely.Point(doors[k]))))[0]
            eye = near + 0.02 * (doors[k] - near)
            if kernels.visible(grid, np.zeros((0, 4)), *eye, *(doors[k] + 0.01 * (near - doors[k]))) or away[k] < 0.5:
                found.append((int(k), float(away[k]), near))
        return found

    def _nearest(self, level: int, point: F8, unsaid: set[str]) -> Landmark | None:
        seen = self._seen(level, point[None], unsaid, NEAR_M)
        return self._landmarks[level][min(seen, key=lambda row: row[1])[0]] if seen else None

    def _towards(self, level: int, points: F8, unsaid: set[str]) -> Landmark | None:
        """The landmark nearest to where the first stretch ends, if that is far enough to walk towards."""
        if float(np.hypot(*(points[-1] - points[0]))) < STRETCH_M:
            return None
        return self._nearest(level, points[-1], unsaid)

    def _passed(self, level: int, part: F8, unsaid: set[str]) -> tuple[Passed, ...]:
        """The shops passed on a stretch in the order they come, not those at its very ends."""
        line = shapely.LineString(part)
        rows = []
        for k, away, near in self._seen(level, part, unsaid, NEAR_M):
            along = line.project(shapely.Point(near))
            if self._landmarks[level][k].kind == "shop" and 2.0 < along < line.length - 2.0:
                side = _side_of(part, near, self._within[level][k])
                if side != "ahead":
                    rows.append((-self._weight[level][k], away, along, Passed(self._landmarks[level][k], side)))
        best = sorted(rows, key=lambda row: row[:3])[:PASSED]
        return tuple(row[3] for row in sorted(best, key=lambda row: row[2]))

    def _side(self, route: Route, goal: Place) -> Side:
        """On which side a unit lies as one comes to its door: where its middle is, seen along the last metres of the way."""
        last = route.legs[-1]
        if isinstance(last, Ride) or isinstance(goal, At):
            return "ahead"
        unit = next((unit for unit in self._router.venue.units if unit.id == goal), None)
        points = smooth(last.points)
        if unit is None or len(points) < 2:
            return "ahead"
        polygon = shapely.Polygon(unit.polygon[0][0])
        middle = shapely.get_coordinates(polygon.centroid)[0]
        way, to = points[-1] - points[-2], middle - points[-1]
        turned = math.degrees(math.atan2(way[0] * to[1] - way[1] * to[0], float(way @ to)))
        if abs(turned) < BEND_DEG:
            return "ahead"
        return "left" if turned > 0 else "right"


def smooth(points: F8) -> F8:
    """The way (n, 2) without what strays less than SMOOTH_M from straight (Douglas and Peucker)."""
    if len(points) < 3:
        return points
    return np.asarray(shapely.get_coordinates(shapely.simplify(shapely.LineString(points), SMOOTH_M, preserve_topology=False)))


def bends(points: F8) -> list[tuple[int, float]]:
    """(index of the point, degrees, left positive) of the turns worth a word; turns to one side within JOIN_M are one, at the first of them."""
    if len(points) < 3:
        return []
    step = np.diff(points, axis=0)
    heading = np.degrees(np.arctan2(step[:, 1], step[:, 0]))
    length = np.hypot(*step.T)
    found: list[tuple[int, float]] = []
    until = 0.0
    for k in range(1, len(points) - 1):
        turned = _wrap(heading[k] - heading[k - 1])
        until += float(length[k - 1])
        if found and until <= JOIN_M and turned * found[-1][1] > 0:
            found[-1] = found[-1][0], found[-1][1] + turned
        else:
            found.append((k, turned))
            until = 0.0
    return [(k, turned) for k, turned in found if abs(turned) >= BEND_DEG]


def _wrap(degrees: float) -> float:
    return float((degrees + 180.0) % 360.0 - 180.0)


def _bend(turned: float) -> Bend:
    """The word for a turn in degrees, left positive."""
    size = abs(turned)
    if size > 160:
        return "round"
    if turned > 0:
        return "slight_left" if size < 55 else "left" if size < 120 else "sharp_left"
    return "slight_right" if size < 55 else "right" if size < 120 else "sharp_right"


def _raw(points: F8, part: F8) -> F8:
    """The drawn way between the ends of a stretch of the smoothed one, whose points are a subset of its: beside a door every decimetre tells the side."""
    first, last = (int(np.argmin(np.hypot(*(points - end).T))) for end in (part[0], part[-1]))
    return points[first : last + 1]


def _just_inside(unit: BaseGeometry, door: At) -> F8:
    """The middle of what lies of a unit around its door: on the unit's side of the door, also where the way runs along the very wall."""
    around = unit.intersection(shapely.Point(door.x_m, door.y_m).buffer(2.0))
    return np.array([door.x_m, door.y_m]) if around.is_empty else np.asarray(shapely.get_coordinates(around.centroid))[0]


def _side_of(part: F8, near: F8, door: F8) -> Side:
    """Side of the way on which a point lies, from the piece of the way nearest to it."""
    pieces = shapely.linestrings(np.stack([part[:-1], part[1:]], axis=1))
    k = int(np.argmin(shapely.distance(pieces, shapely.Point(near))))
    way, to = part[k + 1] - part[k], door - near
    across = float(way[0] * to[1] - way[1] * to[0])
    if abs(across) < 0.3 * float(np.hypot(*way)):
        return "ahead"
    return "left" if across > 0 else "right"


def _kind(category: str) -> str | None:
    if category == "room":
        return "shop"
    return category.split(".")[0] if category.startswith(("restroom", "elevator", "stairs", "escalator")) else None


_BEND_WORDS: Final[dict[Bend, str]] = {
    "slight_left": "Bear left", "left": "Turn left", "sharp_left": "Turn sharp left",
    "slight_right": "Bear right", "right": "Turn right", "sharp_right": "Turn sharp right", "round": "Turn round",
}  # fmt: skip
_KIND_WORDS: Final = {"elevator": "the lift", "stairs": "the stairs", "escalator": "the escalator", "restroom": "the toilets", "shop": "the shop"}
_WAY_WORDS: Final[dict[Way, str]] = {
    "stairs_up": "the stairs up", "stairs_down": "the stairs down", "escalator_up": "the escalator up", "escalator_down": "the escalator down",
    "elevator": "the lift", "ramp": "the ramp",
}  # fmt: skip


def english(steps: Sequence[Step]) -> tuple[str, ...]:
    """A sentence a step; a turn and the stretch after it are one."""
    lines: list[str] = []
    k = 0
    while k < len(steps):
        step = steps[k]
        match step:
            case Start():
                where = f"Start at {step.place} on {step.level}" if step.place else f"Start on {step.level}"
                lines.append(f"{where} and head for {_landmark(step.towards)}." if step.towards else f"{where}.")
            case Turn():
                line = _BEND_WORDS[step.bend] + (f" at {_landmark(step.at)}" if step.at else "")
                after = steps[k + 1] if k + 1 < len(steps) else None
                if isinstance(after, Go):
                    line += f" and walk {after.metres} m{_passing(after)}"
                    k += 1
                lines.append(line + ".")
            case Go():
                lines.append(f"Walk {step.metres} m{_passing(step)}.")
            case Take():
                lift = f" {'up' if step.up else 'down'}" if step.way == "elevator" else ""
                lines.append(f"Take {_WAY_WORDS[step.way]}{lift} to {step.to_level}.")
            case Arrive():
                place = step.place or "Your goal"
                lines.append(
                    f"{place} is {'straight ahead' if step.side == 'ahead' else f'on your {step.side}'}." if step.place else "You have arrived."
                )
            case _:
                assert_never(step)
        k += 1
    return tuple(lines)


def _landmark(landmark: Landmark) -> str:
    return landmark.name or _KIND_WORDS[landmark.kind]


def _passing(step: Go) -> str:
    if not step.passing:
        return ""
    return ", passing " + " and ".join(f"{_landmark(passed.landmark)} on your {passed.side}" for passed in step.passing)
