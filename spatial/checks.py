"""What is wrong in a venue's plan: each finding names the feature, the rule and the remedy. It changes nothing.

`error`: the venue cannot be used as it stands (people cannot get in, walk into walls, or a fence would be wrong). `warning`: it can be used, and something
is odd or was left out. `note`: what the reader should know.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import shapely
from shapely import STRtree

from spatial.plan import OPEN_GROUND, OPENING_TOLERANCE_M, ROOMS, LevelPlan, level_plans, shape
from spatial.venue import Unit, Venue

Severity = Literal["error", "warning", "note"]
RANK: Final[dict[str, int]] = {"error": 0, "warning": 1, "note": 2}

OVERLAP_M2: Final = 0.5
OUTSIDE_M2: Final = 0.5
NEAR_CONNECTOR_M: Final = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """`rule` is a stable name; `message` names the value, `remedy` what to do."""

    severity: Severity
    feature_id: str
    rule: str
    message: str
    remedy: str


def check_venue(venue: Venue) -> list[Finding]:
    """Every finding, errors first, then in the venue's order."""
    findings = _rings(venue)
    plans = level_plans(venue)
    for plan in plans:
        units = [unit for unit in venue.units if unit.level_id == venue.levels[plan.level].id]
        findings += _outside(venue, plan, units)
        findings += _overlaps(units)
        findings += _openings(venue, plan, units)
        findings += _pieces(venue, plan)
        findings += _entrances(venue, plan)
    findings += _connectors(venue, plans)
    findings += _reach(venue, plans)
    findings += _names(venue)
    return sorted(findings, key=lambda finding: RANK[finding.severity])


def _rings(venue: Venue) -> list[Finding]:
    found = []
    shapes = [(level.id, level.outline) for level in venue.levels]
    shapes += [(unit.id, unit.polygon) for unit in venue.units] + [(zone.id, zone.polygon) for zone in venue.zones]
    for feature_id, coordinates in shapes:
        polygon = shape(coordinates)
        if not polygon.is_valid:
            why = shapely.is_valid_reason(polygon)
            found.append(
                Finding("error", feature_id, "ring", f"outline is not a simple polygon: {why}", "redraw the ring so that it does not cross itself")
            )
        elif polygon.area < 0.05:
            found.append(
                Finding("error", feature_id, "ring", f"outline encloses {polygon.area:.3f} m2", "draw a polygon of 0.05 m2 at least, or leave it out")
            )
    return found


def _outside(venue: Venue, plan: LevelPlan, units: list[Unit]) -> list[Finding]:
    found = []
    grown = plan.outline.buffer(0.05)
    level = venue.levels[plan.level]
    for unit in units:
        polygon = shapely.make_valid(shape(unit.polygon))
        if not grown.covers(polygon):
            area = polygon.difference(plan.outline).area
            if area >= OUTSIDE_M2:
                found.append(
                    Finding(
                        "warning", unit.id, "outside", f"{area:.1f} m2 lie outside level {level.id}", "move it inside, or enlarge the level's outline"
                    )
                )
    points = [(item.id, item.point) for item in venue.amenities if item.level_id == level.id]
    for feature_id, point in points:
        if not grown.covers(shapely.Point(point)):
            found.append(
                Finding("warning", feature_id, "outside", f"({point[0]:g}, {point[1]:g}) lies outside level {level.id}", "move it inside the outline")
            )
    return found


def _overlaps(units: list[Unit]) -> list[Finding]:
    found = []
    shapes = [shapely.make_valid(shape(unit.polygon)) for unit in units]
    tree = STRtree(shapes)
    pairs = tree.query(np.array(shapes, dtype=object), predicate="intersects")
    for i, j in sorted((int(i), int(j)) for i, j in pairs.T if i < j):
        a, b = units[i], units[j]
        if a.category in OPEN_GROUND or b.category in OPEN_GROUND:
            continue
        area = shapes[i].intersection(shapes[j]).area
        if area >= OVERLAP_M2:
            message = f"{a.name or a.category} overlaps {b.id} ({b.name or b.category}) by {area:.1f} m2"
            found.append(Finding("warning", a.id, "overlap", message, "cut one of them; the first listed keeps the ground, solids win"))
    return found


def _openings(venue: Venue, plan: LevelPlan, units: list[Unit]) -> list[Finding]:
    found = []
    rooms = {unit.id: unit for unit in units if unit.category in ROOMS}
    declared = {opening.unit_id for opening in venue.openings}
    for unit in rooms.values():
        if unit.id not in declared:
            severity: Severity = "error" if unit.till else "warning"
            found.append(
                Finding(
                    severity, unit.id, "no_opening", f"{unit.name or unit.category} has no opening, so nobody can enter", "add an opening on its wall"
                )
            )
    for number in plan.blind:
        opening = venue.openings[number]
        room = rooms.get(opening.unit_id)
        if room is None:
            continue  # a shutter of a vacant or closed unit: it opens nothing until the unit is a room
        line = shapely.LineString([opening.a, opening.b])
        if line.distance(shape(room.polygon).boundary) > OPENING_TOLERANCE_M:
            message = f"lies {line.distance(shape(room.polygon).boundary):.2f} m from the wall of {room.id}"
            found.append(Finding("error", opening.id, "opening_off_wall", message, f"place it on the wall, within {OPENING_TOLERANCE_M} m"))
        else:
            message = f"opening of {room.id} has no walkable ground on the other side"
            found.append(Finding("error", opening.id, "blind_opening", message, "move it to a wall that faces walkable ground"))
    return found


def _pieces(venue: Venue, plan: LevelPlan) -> list[Finding]:
    level = venue.levels[plan.level]
    if not plan.pieces:
        return [Finding("error", level.id, "no_ground", "level has no walkable ground", "check that units do not cover the whole outline")]
    found = []
    for piece in plan.pieces[1:]:
        at = piece.representative_point()
        message = f"{piece.area:.0f} m2 at ({at.x:.1f}, {at.y:.1f}) are walkable and cut off from the rest ({plan.main.area:.0f} m2)"
        found.append(Finding("warning", level.id, "isolated", message, "open a way in the plan, or say in an overlay that a unit there is open"))
    return found


def _entrances(venue: Venue, plan: LevelPlan) -> list[Finding]:
    found = []
    for entrance in venue.entrances:
        if entrance.level_id == venue.levels[plan.level].id and not plan.free.covers(shapely.Point(entrance.point)):
            message = f"{entrance.code} at ({entrance.point[0]:g}, {entrance.point[1]:g}) is not on walkable ground"
            found.append(Finding("error", entrance.id, "entrance_off_ground", message, "move its point onto the walkway, just inside the door"))
    return found


def _connectors(venue: Venue, plans: tuple[LevelPlan, ...]) -> list[Finding]:
    found = []
    units = {unit.id: unit for unit in venue.units}
    for connector in venue.connectors:
        for stop in connector.stops:
            plan = plans[venue.level_index(stop.level_id)]
            point = shapely.Point(stop.point)
            if not plan.free.covers(point):
                message = f"stop on {stop.level_id} at ({stop.point[0]:g}, {stop.point[1]:g}) is not on walkable ground"
                found.append(Finding("error", connector.id, "stop_off_ground", message, "move it in front of the unit, onto the walkway"))
            if stop.unit_id is None:
                continue
            unit = units.get(stop.unit_id)
            if unit is None or unit.level_id != stop.level_id:
                message = f"stop on {stop.level_id} names unit {stop.unit_id}, which is not a unit of that level"
                found.append(Finding("error", connector.id, "stop_unit", message, "name a unit of the stop's level, or none"))
            elif (away := shape(unit.polygon).distance(point)) > NEAR_CONNECTOR_M:
                message = f"stop on {stop.level_id} is {away:.1f} m from its unit {unit.id}"
                found.append(Finding("warning", connector.id, "stop_far", message, f"place it within {NEAR_CONNECTOR_M:g} m of the unit"))
        if len({stop.level_id for stop in connector.stops}) < len(connector.stops):
            found.append(Finding("error", connector.id, "stop_twice", "stops twice at one level", "give each level one stop"))
    return found


def _reach(venue: Venue, plans: tuple[LevelPlan, ...]) -> list[Finding]:
    """Levels that public connectors join, from the entrances' largest pieces."""
    if not venue.entrances:
        found = [Finding("error", venue.id, "no_entrance", "venue has no entrance, so nobody can come in", "add entrances by an overlay")]
    else:
        found = []
    neighbours: defaultdict[str, set[str]] = defaultdict(set)
    for connector in venue.connectors:
        on_main = [s.level_id for s in connector.stops if plans[venue.level_index(s.level_id)].main.covers(shapely.Point(s.point))]
        if connector.access == "public":
            for level_id in on_main:
                neighbours[level_id].update(on_main)
    with_entrance = [entrance.level_id for entrance in venue.entrances]
    start = with_entrance[0] if with_entrance else venue.levels[0].id
    reached, edge = {start}, [start]
    while edge:
        fresh = neighbours[edge.pop()] - reached
        reached |= fresh
        edge += sorted(fresh)
    for level in venue.levels:
        if level.id not in reached:
            message = f"level is not connected to {start}: no public connector stops on the main ground of both"
            severity: Severity = "warning" if level.id in with_entrance else "error"
            found.append(Finding(severity, level.id, "not_connected", message, "add a connector by an overlay"))
    return found


def _names(venue: Venue) -> list[Finding]:
    found = []
    for code, count in Counter(entrance.code for entrance in venue.entrances).items():
        if count > 1:
            ids = ", ".join(entrance.id for entrance in venue.entrances if entrance.code == code)
            found.append(Finding("error", ids, "entrance_code", f"code {code} is used by {count} entrances", "give each entrance a code of its own"))
    twice = Counter(occupant.unit_id for occupant in venue.occupants)
    found += [
        Finding("warning", unit_id, "occupants", f"{count} occupants share this unit", "split the unit, or keep one of them")
        for unit_id, count in twice.items()
        if count > 1
    ]
    solid = {unit.id: unit.category for unit in venue.units if unit.category not in ROOMS and unit.category not in OPEN_GROUND}
    found += [
        Finding(
            "warning", o.id, "occupant_solid", f"{o.name} occupies {o.unit_id}, a {solid[o.unit_id]} unit that nobody enters", "make the unit a room"
        )
        for o in venue.occupants
        if o.unit_id in solid
    ]
    return found
