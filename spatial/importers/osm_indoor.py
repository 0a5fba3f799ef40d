"""OpenStreetMap's Simple Indoor Tagging (wiki.openstreetmap.org/wiki/Simple_Indoor_Tagging) turned into a venue. Reads OSM XML (`.osm`), no network.

Owns the mapping from tags. Coordinates become metres on the tangent plane at the middle of what was read. Ways and multipolygon relations are areas; `level`
may name several levels (`0;1`, `0-2`), half levels are rounded down with a note.

| OSM | venue |
| --- | --- |
| `indoor=level` | the level's outline; a level without one gets the union of what lies on it, marked `inferred` |
| `indoor=room`, `indoor=area` with `shop`, `amenity` | room; restroom where `amenity=toilets`; nonpublic where `access=private` or `no` |
| `indoor=area`, `indoor=corridor` | walkway |
| `highway=elevator`, `stairs=yes`, `highway=steps` (areas), `conveying=*` | elevator, stairs, escalator, one unit a level, and a connector through all of its levels |
| `door=*` or `entrance=*` node of a room's way | an opening DOOR_M wide along the wall; `entrance=main` or `yes` an entrance too |
| `indoor=wall` | barrier |
| `shop`, `amenity`, `name` of a room | occupant |
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Final
from xml.etree import ElementTree

import numpy as np
import shapely
from pydantic import ValidationError
from shapely.geometry.base import BaseGeometry

from esplanade.core.errors import InvalidInput
from spatial.frames import Frame
from spatial.importers.account import Note
from spatial.importers.inference import in_front
from spatial.venue import Amenity, Barrier, Connector, Entrance, Level, MultiPolygon, Occupant, Opening, Origin, Point, Stop, Unit, Venue
from spatial.venue_files import explain

MAX_BYTES: Final = 64 * 2**20
MAX_LEVELS: Final = 200
DOOR_M: Final = 1.2

RAISED: Final = {"elevator": "elevator", "stairs": "stairs", "escalator": "escalator"}


@dataclass(frozen=True, slots=True)
class OsmVenue:
    """A venue, and what was left out or concluded. read: indoor features; imported: those that are in the venue."""

    venue: Venue
    notes: tuple[Note, ...]
    read: int
    imported: int


@dataclass(frozen=True, slots=True)
class _Feature:
    id: str
    tags: dict[str, str]
    shape: BaseGeometry
    nodes: tuple[str, ...]
    levels: tuple[int, ...]


def parse_osm(data: bytes, where: str, *, venue_id: str, name: str | None = None) -> OsmVenue:
    """A venue from an OSM document. Raises InvalidInput for what is no OSM XML, or holds nothing indoors."""
    if len(data) > MAX_BYTES:
        raise InvalidInput(f"{where}: {len(data)} bytes; at most {MAX_BYTES}, cut it to the building")
    if b"<!DOCTYPE" in data[:4096] or b"<!ENTITY" in data:
        raise InvalidInput(f"{where}: declares entities; OSM documents have none")
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise InvalidInput(f"{where}: {error}; must be OSM XML") from None
    return _Reader(root, where).venue(venue_id, name)


class _Reader:
    def __init__(self, root: ElementTree.Element, where: str) -> None:
        self._where = where
        self.notes: list[Note] = []
        self._tags = {element.get("id", ""): _tags(element) for element in root.iter("node")}
        degrees = {
            node.get("id", ""): (float(node.get("lat", "nan")), float(node.get("lon", "nan")))
            for node in root.iter("node")
            if node.get("lat") and node.get("lon")
        }
        if not degrees or not np.isfinite(list(degrees.values())).all():
            raise InvalidInput(f"{where}: {len(degrees)} nodes with coordinates; must be OSM XML with finite lat and lon")
        lat, lon = np.array(list(degrees.values())).T
        self.origin = Origin(lat_deg=round(float(lat.mean()), 7), lon_deg=round(float(lon.mean()), 7))
        xyz = Frame(self.origin).to_venue(lat, lon)
        self._xy: dict[str, Point] = {i: (float(x), float(y)) for i, (x, y) in zip(degrees, np.round(xyz[:, :2], 4), strict=True)}
        self._ways = {way.get("id", ""): tuple(nd.get("ref", "") for nd in way.iter("nd")) for way in root.iter("way")}
        self.features = [f for element in (*root.iter("way"), *root.iter("relation")) if (f := self._feature(element)) is not None]
        self.read = len(self.features) + sum(n.feature_id != "" for n in self.notes)

    def _feature(self, element: ElementTree.Element) -> _Feature | None:
        tags, number = _tags(element), f"{element.tag}-{element.get('id')}"
        if "level" not in tags or not ({"indoor", "conveying", "stairs"} & tags.keys() or tags.get("highway") in ("elevator", "steps")):
            return None
        try:
            levels = _levels(tags["level"])
        except ValueError:
            self.notes.append(Note("", number, f"left out: level {tags['level'][:40]!r}; must be numbers such as 0, 0;1 or 0-2"))
            return None
        if any(part != int(part) for part in levels):
            self.notes.append(Note("", "", f"{number}: half levels in {tags['level']!r} were rounded down"))
        nodes = self._ways.get(element.get("id", ""), ()) if element.tag == "way" else self._relation_nodes(element)
        shape = self._shape(element, tags)
        if shape is None:
            self.notes.append(Note("", number, "left out: its ring is not closed, crosses itself or lacks nodes"))
            return None
        return _Feature(number, tags, shape, nodes, tuple(sorted({math.floor(part) for part in levels})))

    def _relation_nodes(self, element: ElementTree.Element) -> tuple[str, ...]:
        return tuple(node for member in element.iter("member") for node in self._ways.get(member.get("ref", ""), ()))

    def _shape(self, element: ElementTree.Element, tags: dict[str, str]) -> BaseGeometry | None:
        if element.tag == "way":
            points = [self._xy[n] for n in self._ways[element.get("id", "")] if n in self._xy]
            if tags.get("indoor") == "wall":
                return shapely.LineString(points) if len(points) > 1 else None
            if len(points) < 4 or points[0] != points[-1]:
                return None
            return _fit(shapely.Polygon(points))
        lines: dict[str, list[shapely.LineString]] = {"outer": [], "inner": []}
        for member in element.iter("member"):
            points = [self._xy[n] for n in self._ways.get(member.get("ref", ""), ()) if n in self._xy]
            if len(points) > 1:
                lines["inner" if member.get("role") == "inner" else "outer"].append(shapely.LineString(points))
        outer, inner = (shapely.union_all(list(shapely.get_parts(shapely.polygonize(lines[role])))) for role in ("outer", "inner"))
        return _fit(outer.difference(inner))

    def venue(self, venue_id: str, name: str | None) -> OsmVenue:
        by_level: dict[int, list[_Feature]] = defaultdict(list)
        for feature in self.features:
            for level in feature.levels:
                by_level[level].append(feature)
        if not by_level or len(by_level) > MAX_LEVELS:
            raise InvalidInput(f"{self._where}: {len(by_level)} levels of indoor features; must be 1 to {MAX_LEVELS}")
        levels = [self._level(ordinal, features) for ordinal, features in sorted(by_level.items())]
        units, openings, occupants, amenities, barriers, entrances = [], [], [], [], [], []
        imported: set[str] = set()
        rises: dict[str, list[Unit]] = defaultdict(list)
        for ordinal, features in sorted(by_level.items()):
            floor = f"level_{ordinal}"
            for feature in features:
                imported.add(feature.id)
                suffix = f"_{ordinal}" if len(feature.levels) > 1 else ""
                if feature.tags.get("indoor") == "wall":
                    line = tuple((float(x), float(y)) for x, y in shapely.get_coordinates(feature.shape))
                    barriers.append(Barrier(id=feature.id + suffix, level_id=floor, line=line))
                    continue
                if feature.tags.get("indoor") == "level":
                    continue
                category = _category(feature.tags)
                label = feature.tags.get("name") or feature.tags.get("ref")
                unit = Unit(id=feature.id + suffix, level_id=floor, category=category, name=label, polygon=_rings(feature.shape))  # type: ignore[arg-type]
                units.append(unit)
                if category in RAISED:
                    rises[feature.id].append(unit)
                elif category in ("room", "restroom"):
                    doors = [
                        n
                        for n in dict.fromkeys(feature.nodes)
                        if {"door", "entrance"} & self._tags.get(n, {}).keys() and self._tags[n].get("door") != "no"
                    ]
                    openings += [
                        _door(f"{unit.id}-door-{k}", unit, self._xy[n], feature.shape) for k, n in enumerate(doors, start=1) if n in self._xy
                    ]
                    what = feature.tags.get("shop") or feature.tags.get("amenity")
                    if what and what != "toilets":
                        occupants.append(Occupant(id=f"{unit.id}-occupant", unit_id=unit.id, name=label or what, category=what))
        for node, tags in self._tags.items():
            if tags.get("entrance") in ("yes", "main") and node in self._xy:
                number = math.floor(_levels(tags["level"])[0]) if _is_levels(tags.get("level")) else min(by_level, key=abs)
                if number in by_level:
                    entrances.append(
                        Entrance(
                            id=f"node-{node}",
                            code=f"entrance_{node}",
                            name=tags.get("name", "Entrance"),
                            level_id=f"level_{number}",
                            point=self._xy[node],
                        )
                    )
            elif "amenity" in tags and _is_levels(tags.get("level")) and node in self._xy and math.floor(_levels(tags["level"])[0]) in by_level:
                floor = f"level_{math.floor(_levels(tags['level'])[0])}"
                amenities.append(Amenity(id=f"node-{node}", level_id=floor, category=tags["amenity"], name=tags.get("name"), point=self._xy[node]))
        connectors = self._connectors(rises, units, {level.id: level for level in levels})
        try:
            venue = Venue(
                id=venue_id, name=name or venue_id, kind="mall", origin=self.origin, levels=tuple(levels), units=tuple(units), openings=tuple(openings),
                occupants=tuple(occupants), amenities=tuple(amenities), barriers=tuple(barriers), entrances=tuple(entrances), connectors=tuple(connectors),
            )  # fmt: skip
        except ValidationError as error:
            raise InvalidInput(f"{self._where}: {explain(error)}") from None
        return OsmVenue(venue, tuple(self.notes), self.read, len(imported))

    def _level(self, ordinal: int, features: list[_Feature]) -> Level:
        drawn = [f.shape for f in features if f.tags.get("indoor") == "level"]
        areas = [f.shape for f in features if f.shape.geom_type != "LineString"]
        if not (drawn or areas):
            raise InvalidInput(f"{self._where}: level {ordinal} has walls alone; draw its outline (indoor=level) or its rooms")
        outline = shapely.union_all(drawn or areas)
        named = next((f.tags["name"] for f in features if f.tags.get("indoor") == "level" and "name" in f.tags), f"Level {ordinal}")
        return Level(
            id=f"level_{ordinal}",
            ordinal=ordinal,
            name=named,
            short_name=str(ordinal),
            outline=_rings(outline),
            inferred=None if drawn else "union_of_features",
        )

    def _connectors(self, rises: dict[str, list[Unit]], units: list[Unit], levels: dict[str, Level]) -> list[Connector]:
        solid: dict[str, list[BaseGeometry]] = defaultdict(list)
        for unit in units:
            if unit.category not in ("walkway", "parking"):
                solid[unit.level_id].append(_shape_of(unit.polygon))
        found = []
        for feature_id, parts in sorted(rises.items()):
            stops = []
            for unit in parts:
                ground = _shape_of(levels[unit.level_id].outline).difference(shapely.union_all(solid[unit.level_id]))
                point = in_front(_shape_of(unit.polygon), ground)
                if point is None:
                    self.notes.append(Note(unit.level_id, unit.id, "no stop here: it touches no open ground"))
                else:
                    stops.append(Stop(level_id=unit.level_id, point=point, unit_id=unit.id))
            if len(stops) < 2:
                self.notes.append(Note("", feature_id, "no connector: it stops on fewer than two levels; give `level` all levels that it serves"))
                continue
            tags = next(f.tags for f in self.features if f.id == feature_id)
            way = {"forward": "forward", "backward": "backward"}.get(tags.get("conveying", ""), "both")
            kind = RAISED[parts[0].category]
            found.append(Connector(id=f"{feature_id}-link", kind=kind, stops=tuple(stops), direction=way, inferred="stops_in_front"))  # type: ignore[arg-type]
        return found


def _tags(element: ElementTree.Element) -> dict[str, str]:
    return {tag.get("k", ""): tag.get("v", "") for tag in element.iter("tag")}


def _levels(text: str) -> list[float]:
    """Numbers of a `level` tag: `1`, `0;1`, `-1-2`, `0.5`. Raises ValueError."""
    found: list[float] = []
    for part in text.split(";"):
        bare = part.strip()
        dash = bare.find("-", 1)
        if dash > 0:
            low, high = float(bare[:dash]), float(bare[dash + 1 :])
            if not (math.isfinite(low) and math.isfinite(high) and 0 <= high - low <= MAX_LEVELS):
                raise ValueError(bare)
            found += [low + k for k in range(int(high - low) + 1)]
        else:
            found.append(float(bare))
    if not all(math.isfinite(level) and abs(level) < 1000 for level in found):
        raise ValueError(text)
    return found


def _is_levels(text: str | None) -> bool:
    try:
        return text is not None and bool(_levels(text))
    except ValueError:
        return False


def _category(tags: dict[str, str]) -> str:
    if tags.get("highway") == "elevator":
        return "elevator"
    if tags.get("conveying", "no") != "no":
        return "escalator"
    if tags.get("stairs") == "yes" or tags.get("highway") == "steps":
        return "stairs"
    if tags.get("access") in ("private", "no"):
        return "nonpublic"
    if tags.get("amenity") == "toilets":
        return "restroom"
    if tags.get("indoor") == "room" or {"shop", "amenity"} & tags.keys():
        return "room"
    return "walkway"


def _door(name: str, unit: Unit, at: Point, shape: BaseGeometry) -> Opening:
    """An opening about a node of the room's wall, along the longer of the two walls that meet there."""
    rings = [np.array(ring) for rings in unit.polygon for ring in rings]
    ring = min(rings, key=lambda points: float(np.hypot(*(points - at).T).min()))
    k = int(np.hypot(*(ring - at).T).argmin())
    walls = [ring[(k + side) % len(ring)] - ring[k] for side in (-1, 1)]
    lengths = [float(np.hypot(*wall)) for wall in walls]
    turn = float(walls[0][0] * walls[1][1] - walls[0][1] * walls[1][0])
    straight = abs(turn) <= 0.05 * lengths[0] * lengths[1] and float(walls[0] @ walls[1]) < 0
    longest = int(np.argmax(lengths))
    along = walls[longest] / lengths[longest]
    half = min(DOOR_M / 2, *lengths) if straight else 0.0
    start = ring[k] - along * half
    end = ring[k] + along * min(DOOR_M - half, lengths[longest])
    return Opening(
        id=name, level_id=unit.level_id, unit_id=unit.id, a=(float(start[0]), float(start[1])), b=(float(end[0]), float(end[1])), inferred="door_node"
    )


def _fit(shape: BaseGeometry) -> BaseGeometry | None:
    return shape if shape.is_valid and not shape.is_empty and shape.area > 0 else None


def _shape_of(polygon: MultiPolygon) -> BaseGeometry:
    return shapely.MultiPolygon([shapely.Polygon(rings[0], rings[1:]) for rings in polygon])


def _rings(shape: BaseGeometry) -> MultiPolygon:
    parts: list[Any] = [part for part in shapely.get_parts(shape) if part.geom_type == "Polygon"]
    return tuple(tuple(tuple((float(x), float(y)) for x, y in ring.coords[:-1]) for ring in (part.exterior, *part.interiors)) for part in parts)
