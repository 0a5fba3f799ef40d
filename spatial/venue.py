"""The venue model: IMDF's shapes (OGC 20-094) in a metric frame with a WGS84 origin.

Owns the document that the rest of the system reads: levels, units, openings, amenities, occupants, entrances, connectors.
It validates types and references; what is wrong with a *plan* (overlaps, isolated pieces) is the business of `spatial.checks`,
what follows from it geometrically (walkable space, walls) of `spatial.plan`.

Venue frame: metres, x east, y north (turned by `Origin.bearing_deg`), z up; origin at `Origin` in WGS84. A ring is a list of (x, y)
points, closed implicitly (first point not repeated); a polygon is a list of rings, the outer first, then holes; a multipolygon is a list of polygons.
`inferred` names the rule by which a feature (or its essential part) was concluded rather than read; None means: it is in the source.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Finite = Annotated[float, Field(allow_inf_nan=False, ge=-1e6, le=1e6)]
Point = tuple[Finite, Finite]
Ring = Annotated[tuple[Point, ...], Field(min_length=3)]
Polygon = Annotated[tuple[Ring, ...], Field(min_length=1)]
MultiPolygon = Annotated[tuple[Polygon, ...], Field(min_length=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._\-]{0,95}$")]

UnitCategory = Literal[
    "room",  # a shop or another room people may enter through an opening
    "walkway",  # explicit walkable area (rest areas, plazas); walkable anyway
    "parking",  # one bay
    "restroom",
    "restroom.male",
    "restroom.female",
    "restroom.wheelchair",
    "stairs",
    "escalator",
    "elevator",
    "opentobelow",  # void
    "nonpublic",  # service areas, closed areas, vacant units: solid
    "stage",
    "structure",  # a solid obstacle (festival: tower, kiosk back, tent)
    "unspecified",
]


class _Feature(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Name
    inferred: str | None = None


class Origin(BaseModel):
    """Where the venue frame's (0, 0) lies, and how its x axis is turned from east, counter-clockwise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lat_deg: Annotated[float, Field(ge=-90, le=90)]
    lon_deg: Annotated[float, Field(ge=-180, le=180)]
    bearing_deg: Annotated[float, Field(ge=-180, le=180)] = 0.0


class Level(_Feature):
    ordinal: int
    name: str
    short_name: str
    outline: MultiPolygon
    # The source floor's own metres (real malls: each floor starts at its own corner, on a sphere) are venue metres * scale + offset: `to_source`.
    source_offset_m: Point = (0.0, 0.0)
    source_scale: Point = (1.0, 1.0)

    def to_source(self, x_m: float, y_m: float) -> Point:
        """The source floor's own metres of a venue-frame point."""
        return x_m * self.source_scale[0] + self.source_offset_m[0], y_m * self.source_scale[1] + self.source_offset_m[1]

    def from_source(self, x_m: float, y_m: float) -> Point:
        """The venue-frame point of the source floor's own metres."""
        return (x_m - self.source_offset_m[0]) / self.source_scale[0], (y_m - self.source_offset_m[1]) / self.source_scale[1]


class Unit(_Feature):
    level_id: Name
    category: UnitCategory
    name: str | None = None
    polygon: MultiPolygon
    till: bool = False  # has a till: things can be bought here


class Opening(_Feature):
    """A gap in the wall of `unit_id`, along the segment from `a` to `b`."""

    level_id: Name
    unit_id: Name
    a: Point
    b: Point


class Amenity(_Feature):
    level_id: Name
    category: str
    name: str | None = None
    point: Point
    unit_id: Name | None = None


class Occupant(_Feature):
    """Who is in a unit: the shop's name and category, tags for search, popularity weight for itineraries."""

    unit_id: Name
    name: str
    category: str = "shop"
    tags: tuple[str, ...] = ()
    popularity: Annotated[float, Field(ge=0)] = 1.0


class Entrance(_Feature):
    """Where people come in. `code` is what a QR carries (`location=north_entrance`)."""

    code: Name
    name: str
    level_id: Name
    point: Point
    kind: Literal["pedestrian", "parking"] = "pedestrian"


class Stop(BaseModel):
    """Where a connector meets a level: people step on and off at `point` (walkable)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    level_id: Name
    point: Point
    unit_id: Name | None = None


class Connector(_Feature):
    """Stairs, an escalator or a lift between levels; `direction` is from the first stop to the last ('up' = along the order of stops)."""

    kind: Literal["stairs", "escalator", "elevator", "ramp"]
    stops: Annotated[tuple[Stop, ...], Field(min_length=2)]
    direction: Literal["both", "forward", "backward"] = "both"
    access: Literal["public", "staff"] = "public"


class Barrier(_Feature):
    """A free-standing wall or fence: a polyline nobody walks through."""

    level_id: Name
    line: Annotated[tuple[Point, ...], Field(min_length=2)]


class Zone(_Feature):
    """A named area to watch beyond the units: in front of a stage, a gate's queue, a plaza."""

    level_id: Name
    name: str
    category: str
    polygon: MultiPolygon


def _said(feature: _Feature) -> str:
    """What a feature is, and where."""
    level = getattr(feature, "level_id", None)
    return f"{type(feature).__name__.lower()}{'' if level is None else f' on level {level}'}"


class Venue(BaseModel):
    """A whole venue. Order matters: `level` columns index `levels`, `till` and `unit` columns index `units`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["esplanade.venue/1"] = "esplanade.venue/1"
    id: Name
    name: str
    kind: Literal["mall", "festival"]
    timezone: str = "UTC"
    origin: Origin
    levels: Annotated[tuple[Level, ...], Field(min_length=1, max_length=200)]
    units: tuple[Unit, ...] = ()
    openings: tuple[Opening, ...] = ()
    amenities: tuple[Amenity, ...] = ()
    occupants: tuple[Occupant, ...] = ()
    entrances: tuple[Entrance, ...] = ()
    connectors: tuple[Connector, ...] = ()
    barriers: tuple[Barrier, ...] = ()
    zones: tuple[Zone, ...] = ()

    @model_validator(mode="after")
    def _references_hold(self) -> Self:
        features: tuple[_Feature, ...] = (
            *self.levels, *self.units, *self.openings, *self.amenities, *self.occupants,
            *self.entrances, *self.connectors, *self.barriers, *self.zones,
        )  # fmt: skip
        first: dict[str, _Feature] = {}
        for feature in features:
            if feature.id in first:
                raise ValueError(
                    f"id {feature.id!r} belongs to two features ({_said(first[feature.id])}, {_said(feature)}); an id is of one feature in the whole venue: give one of them another"
                )
            first[feature.id] = feature
        ordinals = [level.ordinal for level in self.levels]
        if ordinals != sorted(set(ordinals)):
            raise ValueError(f"levels have ordinals {ordinals}; list them from the lowest to the highest, each once")
        levels = {level.id for level in self.levels}
        units = {unit.id for unit in self.units}
        placed: tuple[Unit | Opening | Amenity | Entrance | Barrier | Zone, ...] = (
            *self.units, *self.openings, *self.amenities, *self.entrances, *self.barriers, *self.zones,
        )  # fmt: skip
        for item in placed:
            if item.level_id not in levels:
                raise ValueError(f"{item.id}: level_id {item.level_id!r} is no level; levels are {sorted(levels)}")
        held: list[tuple[str, str]] = [(opening.id, opening.unit_id) for opening in self.openings]
        held += [(occupant.id, occupant.unit_id) for occupant in self.occupants]
        held += [(amenity.id, amenity.unit_id) for amenity in self.amenities if amenity.unit_id is not None]
        for part_id, unit_id in held:
            if unit_id not in units:
                raise ValueError(f"{part_id}: unit_id {unit_id!r} is no unit of this venue")
        for connector in self.connectors:
            for stop in connector.stops:
                if stop.level_id not in levels:
                    raise ValueError(f"{connector.id}: stop at level {stop.level_id!r}, which is no level of this venue")
        return self

    def level_index(self, level_id: str) -> int:
        """Index of a level in `levels`, as the position columns carry it. Raises KeyError."""
        for i, level in enumerate(self.levels):
            if level.id == level_id:
                return i
        raise KeyError(level_id)
