"""Editing a venue's map: commands that give a new venue, and a history that takes them back.

Owns what a command changes and its refusals. A venue is never changed in place; a command is applied whole or refused, and the venue that it gives keeps every
reference. Whether the plan still makes sense (overlaps, doors to nowhere) is for `spatial.checks` to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, assert_never

import msgspec
import shapely
from pydantic import BaseModel, ValidationError
from shapely.ops import split

from esplanade.core.errors import Conflict, InvalidInput, NotFound
from spatial.plan import shape
from spatial.venue import MultiPolygon, Occupant, Opening, Point, Unit, UnitCategory, Venue
from spatial.venue_files import explain

MAX_STEPS: Final = 1000
"""Steps kept to be taken back; the oldest is forgotten."""

LEAST_PART_M2: Final = 0.5
Id = Annotated[str, msgspec.Meta(min_length=1, max_length=96)]


class AddUnit(msgspec.Struct, frozen=True, tag="add_unit", kw_only=True):
    """A new unit; `doors` are openings along its wall, from a to b."""

    unit_id: Id
    level_id: Id
    category: UnitCategory
    polygon: MultiPolygon
    name: str | None = None
    doors: tuple[tuple[Point, Point], ...] = ()


class RemoveUnit(msgspec.Struct, frozen=True, tag="remove_unit", kw_only=True):
    """Takes its openings, occupants and amenities away with it. Refused while a connector uses it."""

    unit_id: Id


class MoveUnit(msgspec.Struct, frozen=True, tag="move_unit", kw_only=True):
    """Moves the unit, its openings and its amenities by some metres. Refused while a connector uses it."""

    unit_id: Id
    dx_m: float
    dy_m: float


class SplitUnit(msgspec.Struct, frozen=True, tag="split_unit", kw_only=True):
    """Cuts the unit along a line that crosses it once. The larger part keeps the id and the occupant, the other becomes `new_id`; openings go with their wall."""

    unit_id: Id
    new_id: Id
    line: tuple[Point, ...]


class CloseUnit(msgspec.Struct, frozen=True, tag="close_unit", kw_only=True):
    """Nobody may enter it any more: it becomes `nonpublic`."""

    unit_id: Id


class OpenUnit(msgspec.Struct, frozen=True, tag="open_unit", kw_only=True):
    """A `nonpublic` unit becomes one that people use."""

    unit_id: Id
    category: UnitCategory = "room"


class Relabel(msgspec.Struct, frozen=True, tag="relabel", kw_only=True):
    """Names the unit, and its occupant: None leaves as it is, an empty occupant moves out."""

    unit_id: Id
    name: str | None = None
    occupant: str | None = None
    category: str | None = None


Edit = AddUnit | RemoveUnit | MoveUnit | SplitUnit | CloseUnit | OpenUnit | Relabel


class History:
    """A venue under edit: what was done, in order, and what was taken back."""

    def __init__(self, venue: Venue) -> None:
        self._venues: list[Venue] = [venue]
        self._done: list[Edit] = []
        self._undone: list[tuple[Edit, Venue]] = []

    @property
    def venue(self) -> Venue:
        return self._venues[-1]

    @property
    def done(self) -> Sequence[Edit]:
        """Commands that the venue reflects and that can be taken back, oldest first."""
        return tuple(self._done)

    def do(self, edit: Edit) -> Venue:
        """Apply a command; what had been taken back can no longer be done again. Raises as `apply`, and then nothing changed."""
        self._push(edit, apply(self.venue, edit))
        self._undone.clear()
        return self.venue

    def undo(self) -> Edit:
        """Take the last command back and return it. Raises Conflict where there is none."""
        if not self._done:
            raise Conflict("undo: nothing to take back")
        edit = self._done.pop()
        self._undone.append((edit, self._venues.pop()))
        return edit

    def redo(self) -> Edit:
        """Do the last command that was taken back again. Raises Conflict where there is none."""
        if not self._undone:
            raise Conflict("redo: nothing was taken back")
        edit, venue = self._undone.pop()
        self._push(edit, venue)
        return edit

    def _push(self, edit: Edit, venue: Venue) -> None:
        self._done.append(edit)
        self._venues.append(venue)
        if len(self._done) > MAX_STEPS:
            del self._done[0], self._venues[0]


def apply(venue: Venue, edit: Edit) -> Venue:
    """The venue after a command. Raises NotFound for an id that is not there, Conflict for one that is there already or in use, InvalidInput for a shape or a
    value that breaks a rule."""
    match edit:
        case AddUnit():
            return _add(venue, edit)
        case RemoveUnit(unit_id=unit_id):
            _unit(venue, unit_id)
            _not_in_use(venue, unit_id)
            return _with(
                venue,
                units=tuple(u for u in venue.units if u.id != unit_id),
                openings=tuple(o for o in venue.openings if o.unit_id != unit_id),
                occupants=tuple(o for o in venue.occupants if o.unit_id != unit_id),
                amenities=tuple(a for a in venue.amenities if a.unit_id != unit_id),
            )
        case MoveUnit():
            return _move(venue, edit)
        case SplitUnit():
            return _split(venue, edit)
        case CloseUnit(unit_id=unit_id):
            if _unit(venue, unit_id).category == "nonpublic":
                raise Conflict(f"unit {unit_id}: closed already")
            _not_in_use(venue, unit_id)
            return _changed(venue, unit_id, category="nonpublic", inferred=None)
        case OpenUnit(unit_id=unit_id, category=category):
            if _unit(venue, unit_id).category != "nonpublic":
                raise Conflict(f"unit {unit_id}: open already, as {_unit(venue, unit_id).category}")
            if category == "nonpublic":
                raise InvalidInput(f"unit {unit_id}: opened as nonpublic; give a category that people use")
            return _changed(venue, unit_id, category=category, inferred=None)
        case Relabel():
            return _relabel(venue, edit)
        case _:
            assert_never(edit)


def _add(venue: Venue, edit: AddUnit) -> Venue:
    if any(u.id == edit.unit_id for u in venue.units):
        raise Conflict(f"unit {edit.unit_id}: there already; give another id")
    _polygonal(edit.unit_id, edit.polygon)
    unit = Unit(id=edit.unit_id, level_id=edit.level_id, category=edit.category, name=edit.name, polygon=edit.polygon)
    taken = {o.id for o in venue.openings}
    doors = []
    for k, (a, b) in enumerate(edit.doors, start=1):
        name = f"{edit.unit_id}-door-{k}"
        if name in taken:
            raise Conflict(f"opening {name}: there already; give the unit another id")
        doors.append(Opening(id=name, level_id=edit.level_id, unit_id=edit.unit_id, a=a, b=b))
    return _with(venue, units=(*venue.units, unit), openings=(*venue.openings, *doors))


def _move(venue: Venue, edit: MoveUnit) -> Venue:
    unit = _unit(venue, edit.unit_id)
    _not_in_use(venue, edit.unit_id)

    def moved(p: Point) -> Point:
        return p[0] + edit.dx_m, p[1] + edit.dy_m

    polygon = tuple(tuple(tuple(moved(p) for p in ring) for ring in rings) for rings in unit.polygon)
    return _with(
        venue,
        units=tuple(u.model_copy(update={"polygon": polygon}) if u.id == unit.id else u for u in venue.units),
        openings=tuple(o.model_copy(update={"a": moved(o.a), "b": moved(o.b)}) if o.unit_id == unit.id else o for o in venue.openings),
        amenities=tuple(a.model_copy(update={"point": moved(a.point)}) if a.unit_id == unit.id else a for a in venue.amenities),
    )


def _split(venue: Venue, edit: SplitUnit) -> Venue:
    unit = _unit(venue, edit.unit_id)
    _not_in_use(venue, edit.unit_id)
    if any(u.id == edit.new_id for u in venue.units):
        raise Conflict(f"unit {edit.new_id}: there already; give another id")
    whole = _polygonal(unit.id, unit.polygon)
    if len(edit.line) < 2 or len(whole.geoms) != 1:
        raise InvalidInput(
            f"split {unit.id}: a line of {len(edit.line)} points through {len(whole.geoms)} parts; give two points or more and a unit of one part"
        )
    try:
        parts = [part for part in split(whole.geoms[0], shapely.LineString(edit.line)).geoms if isinstance(part, shapely.Polygon)]
    except (ValueError, shapely.errors.GEOSException) as error:
        raise InvalidInput(f"split {unit.id}: {error}") from None
    if len(parts) != 2 or min(part.area for part in parts) < LEAST_PART_M2:
        raise InvalidInput(f"split {unit.id}: the line makes {len(parts)} parts; draw one that cuts it in two of {LEAST_PART_M2} m2 or more")
    kept, new = sorted(parts, key=lambda part: -part.area)
    openings = []
    for opening in venue.openings:
        if opening.unit_id == unit.id:
            line = shapely.LineString([opening.a, opening.b])
            if new.boundary.distance(line.centroid) < kept.boundary.distance(line.centroid):
                opening = opening.model_copy(update={"unit_id": edit.new_id})
        openings.append(opening)
    amenities = tuple(
        a.model_copy(update={"unit_id": edit.new_id}) if a.unit_id == unit.id and new.covers(shapely.Point(a.point)) else a for a in venue.amenities
    )
    units = [u.model_copy(update={"polygon": _rings(kept)}) if u.id == unit.id else u for u in venue.units]
    at = next(i for i, u in enumerate(units) if u.id == unit.id)
    units.insert(at + 1, unit.model_copy(update={"id": edit.new_id, "polygon": _rings(new), "name": None, "till": False}))
    return _with(venue, units=tuple(units), openings=tuple(openings), amenities=amenities)


def _relabel(venue: Venue, edit: Relabel) -> Venue:
    _unit(venue, edit.unit_id)
    if edit.name is not None:
        venue = _changed(venue, edit.unit_id, name=edit.name or None)
    if edit.occupant is None and edit.category is None:
        return venue
    there = [o for o in venue.occupants if o.unit_id == edit.unit_id]
    others = tuple(o for o in venue.occupants if o.unit_id != edit.unit_id)
    if edit.occupant == "":
        return _with(venue, occupants=others)
    if edit.occupant is None and not there:
        raise NotFound(f"unit {edit.unit_id}: nobody is in it, so there is no category to change; name an occupant")
    base = there[0] if there else Occupant(id=f"{edit.unit_id}-occupant", unit_id=edit.unit_id, name=edit.occupant or "")
    said = {"name": edit.occupant or base.name, "category": edit.category or base.category, "inferred": None}
    return _with(venue, occupants=tuple(base.model_copy(update=said) if o is base else o for o in (venue.occupants if there else (*others, base))))


def _unit(venue: Venue, unit_id: str) -> Unit:
    for unit in venue.units:
        if unit.id == unit_id:
            return unit
    raise NotFound(f"unit {unit_id[:100]!r}: no unit of venue {venue.id} has this id")


def _not_in_use(venue: Venue, unit_id: str) -> None:
    for connector in venue.connectors:
        if any(stop.unit_id == unit_id for stop in connector.stops):
            raise Conflict(f"unit {unit_id}: connector {connector.id} uses it; change the connector first")


def _polygonal(unit_id: str, polygon: MultiPolygon) -> shapely.MultiPolygon:
    made = shape(polygon)
    if not made.is_valid or made.area < LEAST_PART_M2:
        raise InvalidInput(
            f"unit {unit_id}: {shapely.is_valid_reason(made)}, {made.area:.2f} m2; draw rings that do not cross, of {LEAST_PART_M2} m2 or more"
        )
    return made


def _rings(part: shapely.Polygon) -> MultiPolygon:
    return (tuple(tuple((float(x), float(y)) for x, y in ring.coords[:-1]) for ring in (part.exterior, *part.interiors)),)


def _changed(venue: Venue, unit_id: str, **said: str | None) -> Venue:
    return _with(venue, units=tuple(u.model_copy(update=said) if u.id == unit_id else u for u in venue.units))


def _with(venue: Venue, **parts: tuple[BaseModel, ...]) -> Venue:
    """The venue with some lists replaced, references checked whole. What did not change is shared with the old one; what did is validated."""
    fields: dict[str, object] = {name: getattr(venue, name) for name in Venue.model_fields}
    for name, items in parts.items():
        old = {id(item) for item in getattr(venue, name)}
        fields[name] = tuple(item if id(item) in old else item.model_dump() for item in items)
    try:
        return Venue.model_validate(fields)
    except ValidationError as error:
        raise InvalidInput(f"edit: {explain(error)}") from None
