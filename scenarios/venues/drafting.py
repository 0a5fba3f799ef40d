"""A drawing board for venues of our own: collects features with ids and rounds coordinates to the millimetre.

It knows the venue model and plane geometry, and no particular venue.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import shapely
from shapely.geometry.base import BaseGeometry

from spatial.venue import (
    Amenity,
    Barrier,
    Connector,
    Entrance,
    Level,
    MultiPolygon,
    Occupant,
    Opening,
    Origin,
    Stop,
    Unit,
    UnitCategory,
    Venue,
    Zone,
)

XY = tuple[float, float]

FOLDER = Path(__file__).parent
"""Where the documents lie."""


def rectangle(x0: float, y0: float, x1: float, y1: float) -> shapely.Polygon:
    return shapely.Polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])


def regular(cx: float, cy: float, r: float, corners: int, turn_deg: float = 0.0) -> shapely.Polygon:
    """A regular polygon, its first corner at `turn_deg` counter-clockwise from the x axis."""
    steps = [math.radians(turn_deg) + 2 * math.pi * k / corners for k in range(corners)]
    return shapely.Polygon([(cx + r * math.cos(a), cy + r * math.sin(a)) for a in steps])


def turned(geometry: shapely.Polygon, at: XY, angle_deg: float) -> shapely.Polygon:
    """Turn about the origin by `angle_deg` counter-clockwise, then move the origin to `at`."""
    cos, sin = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    return shapely.transform(geometry, lambda xy: xy @ [[cos, sin], [-sin, cos]] + at)


def coordinates(geometry: BaseGeometry) -> MultiPolygon:
    """A polygon's or multipolygon's rings, to the millimetre, corners in line and repeated points left out, closed implicitly."""
    tidy = shapely.set_precision(shapely.simplify(geometry, 1e-4), 0.001)
    polygons = [part for part in shapely.get_parts(tidy) if part.geom_type == "Polygon" and part.area > 0.05]
    return tuple(tuple(_ring(ring) for ring in (polygon.exterior, *polygon.interiors)) for polygon in polygons)


def _ring(ring: shapely.LinearRing) -> tuple[XY, ...]:
    return tuple((round(x, 3), round(y, 3)) for x, y in ring.coords[:-1])


def _at(point: XY) -> XY:
    return round(point[0], 3), round(point[1], 3)


class Draft:
    """Features of a venue in the making; `venue()` checks the references and returns the document."""

    def __init__(self) -> None:
        self.levels: list[Level] = []
        self.units: list[Unit] = []
        self.openings: list[Opening] = []
        self.amenities: list[Amenity] = []
        self.occupants: list[Occupant] = []
        self.entrances: list[Entrance] = []
        self.connectors: list[Connector] = []
        self.barriers: list[Barrier] = []
        self.zones: list[Zone] = []
        self._count: dict[str, int] = {}

    def _id(self, stem: str) -> str:
        self._count[stem] = self._count.get(stem, 0) + 1
        return f"{stem}-{self._count[stem]}"

    def level(self, level_id: str, ordinal: int, name: str, outline: BaseGeometry) -> str:
        self.levels.append(Level(id=level_id, ordinal=ordinal, name=name, short_name=level_id, outline=coordinates(outline)))
        return level_id

    def unit(
        self, level: str, category: UnitCategory, polygon: BaseGeometry, *, name: str | None = None, till: bool = False, unit_id: str | None = None
    ) -> str:
        unit_id = unit_id or self._id(f"{level}-{category.partition('.')[0]}")
        self.units.append(Unit(id=unit_id, level_id=level, category=category, name=name, polygon=coordinates(polygon), till=till))
        return unit_id

    def opening(self, unit_id: str, a: XY, b: XY) -> None:
        level = next(unit.level_id for unit in self.units if unit.id == unit_id)
        self.openings.append(Opening(id=self._id(f"{unit_id}-door"), level_id=level, unit_id=unit_id, a=_at(a), b=_at(b)))

    def occupant(self, unit_id: str, name: str, category: str, tags: Sequence[str], popularity: float) -> None:
        occupant_id = f"{unit_id}-occupant"
        self.occupants.append(
            Occupant(id=occupant_id, unit_id=unit_id, name=name, category=category, tags=tuple(tags), popularity=round(popularity, 2))
        )

    def amenity(self, level: str, category: str, point: XY, *, name: str | None = None, unit_id: str | None = None) -> None:
        self.amenities.append(
            Amenity(id=self._id(f"{level}-{category}"), level_id=level, category=category, name=name, point=_at(point), unit_id=unit_id)
        )

    def entrance(self, code: str, name: str, level: str, point: XY, kind: Literal["pedestrian", "parking"] = "pedestrian") -> None:
        self.entrances.append(Entrance(id=f"entrance-{code}", code=code, name=name, level_id=level, point=_at(point), kind=kind))

    def connector(
        self,
        connector_id: str,
        kind: Literal["stairs", "escalator", "elevator", "ramp"],
        stops: Sequence[tuple[str, XY, str]],
        direction: Literal["both", "forward", "backward"] = "both",
    ) -> None:
        """`stops` are (level, point, unit) from the lowest to the highest."""
        made = tuple(Stop(level_id=level, point=_at(point), unit_id=unit) for level, point, unit in stops)
        self.connectors.append(Connector(id=connector_id, kind=kind, stops=made, direction=direction))

    def barrier(self, level: str, line: Sequence[XY]) -> None:
        self.barriers.append(Barrier(id=self._id(f"{level}-barrier"), level_id=level, line=tuple(_at(point) for point in line)))

    def zone(self, zone_id: str, level: str, name: str, category: str, polygon: BaseGeometry) -> None:
        self.zones.append(Zone(id=zone_id, level_id=level, name=name, category=category, polygon=coordinates(polygon)))

    def venue(self, venue_id: str, name: str, kind: Literal["mall", "festival"], timezone: str, origin: Origin) -> Venue:
        return Venue(
            id=venue_id, name=name, kind=kind, timezone=timezone, origin=origin,
            levels=tuple(self.levels), units=tuple(self.units), openings=tuple(self.openings), amenities=tuple(self.amenities),
            occupants=tuple(self.occupants), entrances=tuple(self.entrances), connectors=tuple(self.connectors),
            barriers=tuple(self.barriers), zones=tuple(self.zones),
        )  # fmt: skip
