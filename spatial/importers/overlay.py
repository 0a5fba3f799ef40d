"""The overlay: a small hand-written file that says what a plan leaves open. What it says is no longer inferred.

Format in `docs/venues.md`: TOML or JSON, all coordinates in venue metres. It adds and overrides; it never deletes a unit.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from esplanade.core.errors import InvalidInput, NotFound
from spatial.venue import Connector, Entrance, Name, Occupant, Opening, Point, Stop, Unit, UnitCategory, Venue, Zone
from spatial.venue_files import explain

MAX_BYTES: Final = 4 * 2**20


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class VenuePart(_Part):
    id: Name | None = None
    name: str | None = None
    timezone: str | None = None


class UnitPart(_Part):
    id: Name
    category: UnitCategory | None = None
    name: str | None = None
    till: bool | None = None


class OpeningPart(_Part):
    """Replaces the unit's inferred openings."""

    unit: Name
    a: Point
    b: Point


class OccupantPart(_Part):
    """Replaces the unit's occupant."""

    unit: Name
    name: str
    category: str = "shop"
    tags: tuple[str, ...] = ()
    popularity: Annotated[float, Field(ge=0)] = 1.0


class StopPart(_Part):
    level: Name
    point: Point
    unit: Name | None = None


class ConnectorPart(_Part):
    """Replaces the connector with this id, else adds one."""

    id: Name
    kind: Literal["stairs", "escalator", "elevator", "ramp"]
    stops: Annotated[tuple[StopPart, ...], Field(min_length=2)]
    direction: Literal["both", "forward", "backward"] = "both"
    access: Literal["public", "staff"] = "public"


class EntrancePart(_Part):
    """Replaces the entrance with this code, else adds one."""

    code: Name
    name: str
    level: Name
    point: Point
    kind: Literal["pedestrian", "parking"] = "pedestrian"


class Overlay(_Part):
    venue: VenuePart = VenuePart()
    unit: tuple[UnitPart, ...] = ()
    opening: tuple[OpeningPart, ...] = ()
    occupant: tuple[OccupantPart, ...] = ()
    connector: tuple[ConnectorPart, ...] = ()
    entrance: tuple[EntrancePart, ...] = ()
    zone: tuple[Zone, ...] = ()
    remove_connectors: tuple[Name, ...] = ()
    remove_entrances: tuple[Name, ...] = ()


def load_overlay(path: Path) -> Overlay:
    """Read a TOML (`.toml`) or JSON overlay. Raises NotFound or InvalidInput with the file, the place and the rule."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file; give the path of an overlay (TOML or JSON)") from None
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read ({error.strerror}); give the path of an overlay (TOML or JSON)") from None
    if len(data) > MAX_BYTES:
        raise InvalidInput(f"{path}: {len(data)} bytes; an overlay has at most {MAX_BYTES}")
    try:
        document = tomllib.loads(data.decode()) if path.suffix == ".toml" else json.loads(data)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InvalidInput(f"{path}: {str(error)[:200]}; must be {'TOML' if path.suffix == '.toml' else 'JSON'} in UTF-8") from None
    try:
        return Overlay.model_validate(document)
    except ValidationError as error:
        raise InvalidInput(f"{path}: {explain(error)}") from None


def apply_units(overlay: Overlay, units: list[Unit]) -> list[Unit]:
    """Categories, names and tills first: what is inferred later follows from them. Raises InvalidInput for a unit that is not there."""
    parts = {part.id: part for part in overlay.unit}
    _known("unit", parts, {unit.id for unit in units})
    changed = []
    for unit in units:
        part = parts.get(unit.id)
        if part is not None:
            said = {name: value for name, value in part.model_dump(exclude={"id"}).items() if value is not None}
            unit = unit.model_copy(update={**said, "inferred": None})
        changed.append(unit)
    return changed


def apply_rest(overlay: Overlay, venue: Venue) -> Venue:
    """Openings, occupants, connectors, entrances, zones, the venue's name. Raises InvalidInput for a reference that does not hold."""
    units = {unit.id: unit for unit in venue.units}
    _known("unit", [part.unit for part in overlay.opening] + [part.unit for part in overlay.occupant], set(units))
    _known("connector", overlay.remove_connectors, {c.id for c in venue.connectors})
    _known("entrance", overlay.remove_entrances, {e.code for e in venue.entrances})
    replaced = {part.unit for part in overlay.opening}
    openings = [o for o in venue.openings if o.unit_id not in replaced]
    for k, opening in enumerate(overlay.opening):
        unit = units[opening.unit]
        openings.append(Opening(id=f"overlay-opening-{k + 1}", level_id=unit.level_id, unit_id=unit.id, a=opening.a, b=opening.b))
    renamed = {part.unit for part in overlay.occupant}
    occupants = [o for o in venue.occupants if o.unit_id not in renamed]
    occupants += [
        Occupant(id=f"{who.unit}-occupant", unit_id=who.unit, name=who.name, category=who.category, tags=who.tags, popularity=who.popularity)
        for who in overlay.occupant
    ]
    gone = {*overlay.remove_connectors, *(part.id for part in overlay.connector)}
    connectors = [c for c in venue.connectors if c.id not in gone]
    for link in overlay.connector:
        stops = tuple(Stop(level_id=stop.level, point=stop.point, unit_id=stop.unit) for stop in link.stops)
        connectors.append(Connector(id=link.id, kind=link.kind, stops=stops, direction=link.direction, access=link.access))
    codes = {*overlay.remove_entrances, *(part.code for part in overlay.entrance)}
    entrances = [e for e in venue.entrances if e.code not in codes]
    entrances += [
        Entrance(id=f"entrance-{way.code}", code=way.code, name=way.name, level_id=way.level, point=way.point, kind=way.kind)
        for way in overlay.entrance
    ]
    said = {name: value for name, value in overlay.venue.model_dump().items() if value is not None}
    document = venue.model_dump() | said
    document |= {
        "openings": openings, "occupants": occupants, "connectors": connectors, "entrances": entrances, "zones": (*venue.zones, *overlay.zone),
    }  # fmt: skip
    try:
        return Venue.model_validate(document)
    except ValidationError as error:
        raise InvalidInput(f"overlay: {explain(error)}") from None


def _known(what: str, asked: Iterable[str], there: set[str]) -> None:
    for name in asked:
        if name not in there:
            raise InvalidInput(f"overlay: {what} {name!r} is not in the plan; take an id from `esplanade venue show` or the source")
