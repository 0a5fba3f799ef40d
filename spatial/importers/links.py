"""Connectors concluded from units that lie above one another: lifts and stairs through several levels, escalators in pairs.

Owns the linking rules; it reads a venue whose openings are known and changes nothing in it.

* Lifts and stairs: consecutive levels, each unit with the one it overlaps most (`inference.LINK_LEAST`); chains make one connector.
* Escalators: every overlapping pair makes two connectors, one up and one down (directions are not given).
* A stop lies on the main walkway in front of the unit; a unit inside a shop stops in the shop, and its connector is for staff.
* What overlaps nothing, or touches no ground that people can reach, is reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

from shapely.geometry.base import BaseGeometry

from spatial.importers import inference
from spatial.importers.account import Links, Note
from spatial.plan import LevelPlan, level_plans, shape
from spatial.venue import Connector, Stop, Unit, Venue

RULE: Final = "units overlap on consecutive levels"
KINDS: Final[tuple[Literal["elevator", "stairs", "escalator"], ...]] = ("elevator", "stairs", "escalator")


@dataclass(frozen=True, slots=True)
class _Place:
    """A connector's unit on its level: its shape and the ground that it serves; `private` where that is a shop's inside."""

    level: int
    unit: Unit
    shape: BaseGeometry
    ground: BaseGeometry | None
    private: bool


def link_levels(venue: Venue, staff: set[str]) -> tuple[tuple[Connector, ...], tuple[Links, ...], list[Note]]:
    """Connectors, counts of links by kind, and what could not be linked. `staff`: ids of units that the public may not use."""
    plans = level_plans(venue)
    grounds = [inference.passable(plan.walkway_pieces)[:1] for plan in plans]
    connectors: list[Connector] = []
    links: list[Links] = []
    notes: list[Note] = []
    for kind in KINDS:
        for label, group in ((kind, False), (f"{kind}, staff", True)):
            places = [
                [_place(plans[i], unit, grounds[i]) for unit in _of(venue, i, kind, staff if group else None, staff)]
                for i in range(len(venue.levels))
            ]
            if not any(places):
                continue
            pairs = [inference.overlaps([p.shape for p in a], [p.shape for p in b]) for a, b in pairwise(places)]
            if kind == "escalator":
                made = _escalators(places, pairs, notes)
                links.append(Links(label, tuple(len(found) for found in pairs)))
            else:
                singles = [inference.one_to_one(found) for found in pairs]
                made = _shafts(kind, places, singles, group, notes)
                links.append(Links(label, tuple(len(found) for found in singles)))
            connectors += made
            if len(places) > 1:
                _report_unlinked(kind, places, pairs, venue, notes)
    return tuple(connectors), tuple(links), notes


def _of(venue: Venue, level: int, kind: str, only: set[str] | None, staff: set[str]) -> list[Unit]:
    here = [unit for unit in venue.units if unit.category == kind and unit.level_id == venue.levels[level].id]
    return [unit for unit in here if (unit.id in staff) == (only is not None)]


def _place(plan: LevelPlan, unit: Unit, grounds: list[BaseGeometry]) -> _Place:
    outline = shape(unit.polygon)
    for ground in grounds:
        if inference.touches(outline, ground):
            return _Place(plan.level, unit, outline, ground, False)
    near = [(outline.boundary.intersection(room.buffer(inference.TOUCH_M)).length, i) for i, room in plan.interiors.items()]
    touch, i = max(near, default=(0.0, -1))
    room = max(plan.interiors[i].geoms, key=lambda part: part.area) if touch >= inference.DOOR_LEAST_M else None
    return _Place(plan.level, unit, outline, room, room is not None)


def _stop(place: _Place, point: inference.XY) -> Stop:
    return Stop(level_id=place.unit.level_id, point=(round(point[0], 3), round(point[1], 3)), unit_id=place.unit.id)


def _shafts(
    kind: Literal["elevator", "stairs", "escalator"], places: list[list[_Place]], links: list[list[tuple[int, int]]], staff: bool, notes: list[Note]
) -> list[Connector]:
    """Follow each chain of links from its lowest unit upwards."""
    above = [dict(pairs) for pairs in links]
    linked_below = [set[int](), *({j for _, j in pairs} for pairs in links)]
    made = []
    for level in range(len(places)):
        for index in range(len(places[level])):
            if index in linked_below[level]:
                continue
            chain = [places[level][index]]
            at, here = level, index
            while at < len(above) and here in above[at]:
                here = above[at][here]
                at += 1
                chain.append(places[at][here])
            if len(chain) < 2:
                continue
            stops = []
            for place in chain:
                point = inference.in_front(place.shape, place.ground) if place.ground is not None else None
                if point is None:
                    notes.append(
                        Note(place.unit.level_id, place.unit.id, f"{kind}: touches no walkable ground here, so it does not stop on this level")
                    )
                else:
                    stops.append(_stop(place, point))
            if len(stops) >= 2:
                private = staff or any(place.private for place in chain)
                made.append(
                    Connector(
                        id=f"{kind}-{chain[0].unit.id}", kind=kind, stops=tuple(stops), access="staff" if private else "public", inferred=RULE,
                    )
                )  # fmt: skip
    return made


def _escalators(places: list[list[_Place]], links: list[list[tuple[int, int, float]]], notes: list[Note]) -> list[Connector]:
    made = []
    for level, pairs in enumerate(links):
        for i, j, _ in sorted(pairs):
            lower, upper = places[level][i], places[level + 1][j]
            found = None
            if lower.ground is not None and upper.ground is not None:
                found = inference.escalator_stops(lower.shape, upper.shape, lower.ground, upper.ground)
            if found is None:
                notes.append(
                    Note(lower.unit.level_id, lower.unit.id, f"escalator: overlaps {upper.unit.id} above, but one of them touches no walkable ground")
                )
                continue
            private = lower.private or upper.private
            if private:
                notes.append(Note(lower.unit.level_id, lower.unit.id, "escalator: lies inside a shop, linked for staff only"))
            for way, direction in (("up", "forward"), ("down", "backward")):
                made.append(
                    Connector(
                        id=f"escalator-{lower.unit.id}-{upper.unit.id}-{way}"[:96], kind="escalator",
                        stops=(_stop(lower, found[0]), _stop(upper, found[1])), direction="forward" if direction == "forward" else "backward",
                        access="staff" if private else "public", inferred=f"{RULE}; one each way assumed",
                    )
                )  # fmt: skip
    return made


def _report_unlinked(kind: str, places: list[list[_Place]], pairs: list[list[tuple[int, int, float]]], venue: Venue, notes: list[Note]) -> None:
    for level, here in enumerate(places):
        linked = {j for _, j, _ in pairs[level - 1]} if level > 0 else set()
        linked |= {i for i, _, _ in pairs[level]} if level < len(pairs) else set()
        for k, place in enumerate(here):
            if k not in linked:
                notes.append(Note(venue.levels[level].id, place.unit.id, f"{kind}: overlaps none on the levels above and below, so it is not linked"))
