"""IMDF archives (OGC 20-094): read and written whole, and turned into a venue and back.

Owns the mapping between IMDF's feature types and `spatial.venue`. An `ImdfArchive` keeps every feature as it was read, those that a venue has no place for too;
so reading and writing loses nothing. `venue_of` takes what a venue can hold and says in notes what it could not; `archive_of` writes a venue so that
`venue_of` gives the same one again: what IMDF cannot say is kept in a property `esplanade` of the feature, which other readers ignore.

| IMDF | venue |
| --- | --- |
| level | level; levels of one ordinal (several buildings) become one |
| unit | unit; categories as in UNIT_CATEGORY, others become `unspecified`, with a note |
| opening | opening of the room within OPENING_REACH_M of its middle, the nearest; without one it is left out, with a note |
| amenity | amenity; category `entry` an entrance |
| anchor + occupant | occupant of the anchor's unit |
| section | zone |
| relationship (stairs, escalator, elevator, ramp) | connector, where it names two units or more; people step on and off in front of each |
| detail | barrier, where this program wrote it |
| all others | kept in the archive |
"""

from __future__ import annotations

import io
import json
import uuid
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import shapely
from pydantic import ValidationError
from shapely.geometry.base import BaseGeometry

from esplanade.core.errors import InvalidInput, NotFound
from spatial.frames import Frame
from spatial.importers.account import Note
from spatial.plan import ROOMS
from spatial.venue import Amenity, Barrier, Connector, Entrance, Level, MultiPolygon, Occupant, Opening, Origin, Point, Stop, Unit, Venue, Zone
from spatial.venue_files import explain

Feature = dict[str, Any]

TYPES: Final = (
    "address", "venue", "building", "footprint", "level", "unit", "fixture", "section", "geofence", "kiosk", "opening", "amenity", "anchor", "occupant",
    "detail", "relationship",
)  # fmt: skip
MAX_BYTES: Final = 256 * 2**20
"""Bytes of an archive, unpacked."""

MAX_FILES: Final = 200
OPENING_REACH_M: Final = 0.5
STEP_OFF_M: Final = 0.6

OWN: Final = frozenset(Unit.model_fields["category"].annotation.__args__)  # type: ignore[union-attr]
UNIT_CATEGORY: Final[dict[str, str]] = {
    **{name: name for name in OWN - {"stage"}},
    **dict.fromkeys(("lobby", "foyer", "ramp", "platform", "terrace", "movingwalkway", "waitingroom", "walkway.island"), "walkway"),
    **dict.fromkeys(
        ("auditorium", "classroom", "conferenceroom", "conferenceroom.publicly", "foodservice", "huddleroom", "laboratory", "library", "lounge", "office",
         "privatelounge", "serviceroom", "shower", "smokingarea", "theater", "firstaid", "fitnessroom", "gym", "mothersroom", "phoneroom", "recreation"), "room",
    ),
    **dict.fromkeys(("restroom.transgender", "restroom.unisex", "restroom.unisex.wheelchair", "restroom.male.wheelchair", "restroom.female.wheelchair"), "restroom"),
    **dict.fromkeys(("brick", "column", "concrete", "drywall", "glass", "structure", "wood", "vegetation", "fieldofplay"), "structure"),
    **dict.fromkeys(("storage", "kitchen", "unenclosedarea", "mailroom", "elevator.service"), "nonpublic"),
}  # fmt: skip
_NAMESPACE: Final = uuid.UUID("5e0e1f5a-6f4b-5c0e-9a37-3d8e6f0f9b1c")


@dataclass(frozen=True, slots=True)
class ImdfArchive:
    """manifest: the document of `manifest.json` ({} where the source had none). features: by file name without `.geojson`, in the order read."""

    manifest: dict[str, Any]
    features: dict[str, list[Feature]] = field(default_factory=dict)

    def of(self, kind: str) -> list[Feature]:
        return self.features.get(kind, [])


@dataclass(frozen=True, slots=True)
class ImdfVenue:
    """A venue, and what of the archive is not in it or was concluded."""

    venue: Venue
    notes: tuple[Note, ...]


# --- files --------------------------------------------------------------------------------------------------------------


def read_archive(path: Path) -> ImdfArchive:
    """Read a folder or a ZIP file of GeoJSON files. Raises NotFound, or InvalidInput with the file and the rule."""
    if path.is_dir():
        parts = {file.name: file.read_bytes() for file in sorted(path.iterdir()) if file.suffix in (".json", ".geojson")}
        return _parsed(parts, str(path))
    try:
        return parse_archive(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file or folder; give the path of an IMDF archive") from None


def parse_archive(data: bytes, where: str) -> ImdfArchive:
    """An archive from the bytes of a ZIP file; `where` names them in errors. Raises InvalidInput."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            members = [info for info in packed.infolist() if not info.is_dir() and info.filename.endswith((".json", ".geojson"))]
            if len(members) > MAX_FILES or sum(info.file_size for info in members) > MAX_BYTES:
                raise InvalidInput(f"{where}: {len(members)} files; an archive has at most {MAX_FILES} files and {MAX_BYTES} bytes unpacked")
            return _parsed({Path(info.filename).name: packed.read(info) for info in members}, where)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise InvalidInput(f"{where}: not a ZIP file that can be read ({error}); give an IMDF archive") from None


def _parsed(parts: Mapping[str, bytes], where: str) -> ImdfArchive:
    manifest: dict[str, Any] = {}
    features: dict[str, list[Feature]] = {}
    for name, data in parts.items():
        try:
            document = json.loads(data)
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise InvalidInput(f"{where}: {name}: {str(error)[:200]}; must be JSON in UTF-8") from None
        if name == "manifest.json":
            manifest = document
        elif isinstance(document, dict) and isinstance(document.get("features"), list):
            for feature in document["features"]:
                if not (isinstance(feature, dict) and isinstance(feature.get("properties"), dict) and isinstance(feature.get("id"), str)):
                    raise InvalidInput(f"{where}: {name}: {str(feature)[:80]}; a feature has an id and properties")
            features[name.removesuffix(".geojson").removesuffix(".json")] = document["features"]
        else:
            raise InvalidInput(f"{where}: {name}: no list of features; must be a GeoJSON FeatureCollection")
    if not features.get("venue") or not features.get("level"):
        raise InvalidInput(f"{where}: has {sorted(features)}; an archive needs venue.geojson and level.geojson")
    return ImdfArchive(manifest, features)


def dump_archive(archive: ImdfArchive) -> bytes:
    """The archive as a ZIP file; equal archives give equal bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        documents: dict[str, Any] = {"manifest.json": archive.manifest or _manifest("")}
        documents |= {f"{kind}.geojson": {"type": "FeatureCollection", "features": features} for kind, features in archive.features.items()}
        for name, document in documents.items():
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(info, json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False))
    return out.getvalue()


# --- archive to venue ---------------------------------------------------------------------------------------------------


class _Reader:
    def __init__(self, archive: ImdfArchive) -> None:
        self.archive = archive
        self.notes: list[Note] = []
        top = archive.of("venue")[0]
        self.own = top["properties"].get("esplanade", {})
        if "origin" in self.own:
            self.origin = Origin.model_validate(self.own["origin"])
        else:
            middle = self._shape(top).centroid
            self.origin = Origin(lat_deg=middle.y, lon_deg=middle.x)
        self.frame = Frame(self.origin)
        self.level_of: dict[str, str] = {}
        """IMDF's level id to ours."""

    def _shape(self, feature: Feature) -> BaseGeometry:
        try:
            return shapely.from_geojson(json.dumps(feature["geometry"]))
        except (KeyError, shapely.errors.GEOSException, TypeError) as error:
            raise InvalidInput(f"imdf: {feature.get('id')}: its geometry cannot be read ({str(error)[:80]})") from None

    def shape(self, feature: Feature) -> BaseGeometry:
        """A feature's geometry in venue metres, to a tenth of a micrometre."""

        def convert(degrees: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
            x, y, _ = np.moveaxis(self.frame.to_venue(degrees[:, 1], degrees[:, 0]), -1, 0)
            return np.round(np.column_stack([x, y]), 7) + 0.0

        return shapely.transform(self._shape(feature), convert)

    def note(self, feature: Feature, message: str) -> None:
        level = self.level_of.get(str(feature["properties"].get("level_id")), "")
        self.notes.append(Note(level, feature["id"], message))


def venue_of(archive: ImdfArchive) -> ImdfVenue:
    """The venue of an archive. Raises InvalidInput where what is left does not make a venue."""
    read = _Reader(archive)
    top = archive.of("venue")[0]
    levels = _levels(read)
    units, shapes = _units(read)
    openings = _openings(read, units, shapes)
    amenities, entrances = _amenities(read, units)
    known = {unit.id for unit in units}
    anchors = {feature["id"]: feature["properties"].get("unit_id") for feature in archive.of("anchor")}
    ids: dict[str, str] = {feature["id"]: str(_own(feature).get("id", feature["id"])) for feature in archive.of("unit")}
    occupants = []
    for feature in archive.of("occupant"):
        unit = ids.get(str(anchors.get(feature["properties"].get("anchor_id"))))
        if unit not in known:
            read.note(feature, "occupant without a unit: its anchor names none that is here")
            continue
        name = _text(feature["properties"].get("name")) or "unnamed"
        plain = {"id": feature["id"], "name": name, "category": feature["properties"].get("category") or "shop"}
        occupants.append(Occupant.model_validate(plain | _own(feature) | {"unit_id": unit}))
    zones = [
        Zone.model_validate(
            {"id": f["id"], "name": _text(f["properties"].get("name")) or f["id"], "category": f["properties"].get("category") or "unspecified"}
            | _own(f) | {"level_id": read.level_of[f["properties"]["level_id"]], "polygon": _rings(read.shape(f))}
        )
        for f in archive.of("section") if f["properties"].get("level_id") in read.level_of
    ]  # fmt: skip
    barriers = [
        Barrier.model_validate(_own(f) | {"level_id": read.level_of[f["properties"]["level_id"]], "line": _points(read.shape(f))})
        for f in archive.of("detail") if _own(f)
    ]  # fmt: skip
    for kind in sorted(
        set(archive.features) - {"venue", "level", "unit", "opening", "amenity", "anchor", "occupant", "section", "detail", "relationship"}
    ):
        if archive.of(kind):
            read.notes.append(Note("", kind, f"{len(archive.of(kind))} features of this type are kept in the archive; a venue has no place for them"))
    document = {
        "id": _id(_text(top["properties"].get("name")) or top["id"], top["id"]),
        "name": _text(top["properties"].get("name")) or top["id"],
        "kind": "mall",
    }
    document |= {key: value for key, value in read.own.items() if key != "origin"}
    try:
        venue = Venue.model_validate(
            document | {
                "origin": read.origin, "levels": levels, "units": units, "openings": openings, "amenities": amenities, "occupants": occupants,
                "entrances": entrances, "connectors": _connectors(read, units, dict(zip([u.id for u in units], shapes, strict=True)), ids),
                "barriers": barriers, "zones": zones,
            }
        )  # fmt: skip
    except ValidationError as error:
        raise InvalidInput(f"imdf: {explain(error)}") from None
    return ImdfVenue(venue, tuple(read.notes))


def _levels(read: _Reader) -> list[Level]:
    by_ordinal: dict[int, list[Feature]] = {}
    for feature in read.archive.of("level"):
        by_ordinal.setdefault(int(feature["properties"].get("ordinal") or 0), []).append(feature)
    levels = []
    for ordinal, features in sorted(by_ordinal.items()):
        first = features[0]
        name = _text(first["properties"].get("name")) or f"Level {ordinal}"
        plain = {"id": first["id"], "ordinal": ordinal, "name": name, "short_name": _text(first["properties"].get("short_name")) or str(ordinal)}
        own = plain | _own(first)
        shapes = [read.shape(feature) for feature in features]
        outline = shapes[0] if len(shapes) == 1 else shapely.union_all(shapes)
        levels.append(Level.model_validate(own | {"outline": _rings(outline)}))
        for feature in features:
            read.level_of[feature["id"]] = levels[-1].id
        if len(features) > 1:
            read.notes.append(Note(levels[-1].id, first["id"], f"{len(features)} levels of ordinal {ordinal} became one"))
    return levels


def _units(read: _Reader) -> tuple[list[Unit], list[BaseGeometry]]:
    units, shapes = [], []
    for feature in read.archive.of("unit"):
        props = feature["properties"]
        level = read.level_of.get(str(props.get("level_id")))
        shape = read.shape(feature)
        if level is None or shape.geom_type not in ("Polygon", "MultiPolygon") or shape.is_empty:
            read.note(feature, f"left out: level {props.get('level_id')!r} is not in the archive, or its shape {shape.geom_type} is no polygon")
            continue
        said = str(props.get("category") or "unspecified")
        category = UNIT_CATEGORY.get(said, "unspecified")
        if said not in UNIT_CATEGORY:
            read.note(feature, f"category {said!r} is not known here and became unspecified (solid)")
        plain = {"id": feature["id"], "category": category, "name": _text(props.get("name"))}
        units.append(Unit.model_validate(plain | _own(feature) | {"level_id": level, "polygon": _rings(shape)}))
        shapes.append(shape)
    return units, shapes


def _openings(read: _Reader, units: list[Unit], shapes: list[BaseGeometry]) -> list[Opening]:
    rooms = [i for i, unit in enumerate(units) if unit.category in ROOMS]
    borders = [shapes[i].boundary for i in rooms]
    tree = shapely.STRtree(borders)
    found = []
    for feature in read.archive.of("opening"):
        line = read.shape(feature)
        level = read.level_of.get(str(feature["properties"].get("level_id")))
        if line.geom_type != "LineString" or level is None:
            read.note(feature, f"left out: level {feature['properties'].get('level_id')!r} is not in the archive, or {line.geom_type} is no line")
            continue
        a, b = _points(line)[0], _points(line)[-1]
        own = _own(feature)
        if "unit_id" not in own:
            middle = line.interpolate(0.5, normalized=True)
            near = [int(k) for k in tree.query(middle, predicate="dwithin", distance=OPENING_REACH_M) if units[rooms[int(k)]].level_id == level]
            if not near:
                read.note(feature, f"left out: no room's wall lies within {OPENING_REACH_M} m of its middle")
                continue
            best = min(near, key=lambda k: (middle.distance(borders[k]), k))
            own = {"id": feature["id"], "unit_id": units[rooms[best]].id, "inferred": "nearest_wall"}
        found.append(Opening.model_validate(own | {"level_id": level, "a": a, "b": b}))
    return found


def _amenities(read: _Reader, units: list[Unit]) -> tuple[list[Amenity], list[Entrance]]:
    unit_of = {unit.id: unit for unit in units}
    ids: dict[str, str] = {feature["id"]: str(_own(feature).get("id", feature["id"])) for feature in read.archive.of("unit")}
    amenities: list[Amenity] = []
    entrances: list[Entrance] = []
    for feature in read.archive.of("amenity"):
        props, own = feature["properties"], _own(feature)
        unit = next((unit_of[ids[u]] for u in props.get("unit_ids") or [] if ids.get(u) in unit_of), None)
        level = own.get("level_id") or (unit.level_id if unit else None)
        if level is None:
            read.note(feature, "amenity without a unit: its level is not known, left out")
            continue
        (point,) = _points(read.shape(feature))
        name, where = _text(props.get("name")), {"level_id": level, "point": point}
        if props.get("category") == "entry":
            plain = {"id": feature["id"], "code": _id(name or "", feature["id"]), "name": name or "Entrance"}
            entrances.append(Entrance.model_validate(plain | own | where))
        else:
            plain = {"id": feature["id"], "category": props.get("category") or "unspecified", "name": name, "unit_id": unit.id if unit else None}
            amenities.append(Amenity.model_validate(plain | own | where))
    return amenities, entrances


def _connectors(read: _Reader, units: list[Unit], shapes: dict[str, BaseGeometry], ids: dict[str, str]) -> list[Connector]:
    level_of = {unit.id: unit.level_id for unit in units}
    found = []
    for feature in read.archive.of("relationship"):
        props, own = feature["properties"], _own(feature)
        if own:
            stops = [stop | {"point": _points(read.shape({"id": feature["id"], "geometry": stop["point"]}))[0]} for stop in own["stops"]]
            found.append(Connector.model_validate(own | {"stops": stops}))
            continue
        kind = props.get("category")
        chain = [ref["id"] for ref in (props.get("origin"), *(props.get("intermediary") or []), props.get("destination")) if isinstance(ref, dict)]
        joined = [ids[u] for u in chain if ids.get(u) in level_of]
        if kind not in ("stairs", "escalator", "elevator", "ramp"):
            continue
        if len({level_of[u] for u in joined}) < 2:
            read.note(feature, f"{kind} left out: it names no two units of different levels")
            continue
        stops = []
        for unit in joined:
            point = _in_front(unit, level_of[unit], read, shapes, units)
            stops.append(Stop(level_id=level_of[unit], point=point, unit_id=unit))
        direction = "forward" if props.get("direction") == "directed" else "both"
        found.append(Connector(id=feature["id"], kind=kind, stops=tuple(stops), direction=direction, inferred="stops_in_front"))  # type: ignore[arg-type]
    return found


def _in_front(unit: str, level: str, read: _Reader, shapes: dict[str, BaseGeometry], units: list[Unit]) -> Point:
    """A point STEP_OFF_M off the unit that no other solid covers, else on its border; the same for the same plan."""
    ring = shapes[unit].buffer(STEP_OFF_M).boundary
    others = shapely.union_all([shapes[u.id] for u in units if u.level_id == level and u.id != unit and u.category not in ("walkway", "parking")])
    free = ring.difference(others)
    best = max(shapely.get_parts(free), key=lambda part: part.length, default=ring)
    point = best.interpolate(0.5, normalized=True)
    return round(point.x, 6), round(point.y, 6)


# --- venue to archive ---------------------------------------------------------------------------------------------------


def archive_of(venue: Venue) -> ImdfArchive:
    """The venue as an archive that `venue_of` turns into the same venue (coordinates to a micrometre). Ids that are no UUID become one, derived from the venue's and theirs."""
    frame = Frame(venue.origin)

    def uid(name: str) -> str:
        try:
            return str(uuid.UUID(name))
        except ValueError:
            return str(uuid.uuid5(_NAMESPACE, f"{venue.id}/{name}"))

    def degrees(xy: Point) -> list[float]:
        lat, lon, _ = frame.to_wgs84(xy[0], xy[1])
        return [round(float(lon), 12), round(float(lat), 12)]

    def area(polygon: MultiPolygon) -> dict[str, Any]:
        parts = [[[degrees(p) for p in (*ring, ring[0])] for ring in rings] for rings in polygon]
        return {"type": "Polygon", "coordinates": parts[0]} if len(parts) == 1 else {"type": "MultiPolygon", "coordinates": parts}

    def make(kind: str, name: str, geometry: dict[str, Any] | None, said: dict[str, Any], own: dict[str, Any]) -> Feature:
        return {
            "id": uid(name), "type": "Feature", "feature_type": kind, "geometry": geometry, "properties": said | {"esplanade": own},
        }  # fmt: skip

    def own(item: Level | Unit | Opening | Amenity | Occupant | Entrance | Zone | Barrier, *left_out: str) -> dict[str, Any]:
        return {"id": item.id} | item.model_dump(mode="json", exclude_defaults=True, exclude=set(left_out))

    def point(xy: Point) -> dict[str, Any]:
        return {"type": "Point", "coordinates": degrees(xy)}

    def line(points: tuple[Point, ...]) -> dict[str, Any]:
        return {"type": "LineString", "coordinates": [degrees(p) for p in points]}

    building = uid(f"{venue.id}/building")
    outline = shapely.union_all(
        [shapely.make_valid(shapely.MultiPolygon([shapely.Polygon(r[0], r[1:]) for r in lv.outline])) for lv in venue.levels]
    ).convex_hull
    ground = tuple((float(x), float(y)) for x, y in shapely.get_coordinates(outline)[:-1])
    middle = point((outline.centroid.x, outline.centroid.y))
    whole = {key: value for key, value in venue.model_dump(mode="json").items() if key in ("id", "name", "kind", "timezone", "origin")}
    address = uid(f"{venue.id}/address")
    features: dict[str, list[Feature]] = {
        "address": [make("address", f"{venue.id}/address", None, {"address": venue.name, "locality": "unspecified", "country": "ZZ"}, {})],
        "venue": [
            make(
                "venue", f"{venue.id}/venue", area(((ground,),)),
                {"name": {"en": venue.name}, "category": "shoppingcenter" if venue.kind == "mall" else "unspecified", "display_point": middle, "address_id": address},
                whole,
            )
        ],
        "building": [make("building", f"{venue.id}/building", None, {"name": {"en": venue.name}, "category": "unspecified", "display_point": middle}, {})],
        "level": [
            make("level", lv.id, area(lv.outline), {
                "name": {"en": lv.name}, "short_name": {"en": lv.short_name}, "ordinal": lv.ordinal, "outdoor": False, "category": "unspecified",
                "building_ids": [building],
            }, own(lv, "outline"))
            for lv in venue.levels
        ],
        "unit": [
            make("unit", u.id, area(u.polygon), {
                "category": "unspecified" if u.category == "stage" else u.category, "name": {"en": u.name} if u.name else None, "level_id": uid(u.level_id),
            }, own(u, "polygon", "level_id"))
            for u in venue.units
        ],
        "opening": [
            make("opening", o.id, line((o.a, o.b)), {"category": "pedestrian", "level_id": uid(o.level_id)}, own(o, "a", "b", "level_id"))
            for o in venue.openings
        ],
        "amenity": [
            *(make("amenity", a.id, point(a.point), {
                "category": a.category, "name": {"en": a.name} if a.name else None, "unit_ids": [uid(a.unit_id)] if a.unit_id else [],
            }, own(a, "point")) for a in venue.amenities),
            *(make("amenity", e.id, point(e.point), {"category": "entry", "name": {"en": e.name}, "unit_ids": []}, own(e, "point")) for e in venue.entrances),
        ],
        "anchor": [
            make("anchor", f"{o.id}/anchor", point(_inside(venue, o.unit_id)), {"unit_id": uid(o.unit_id), "address_id": address}, {})
            for o in venue.occupants
        ],
        "occupant": [
            make("occupant", o.id, None, {"name": {"en": o.name}, "category": o.category, "anchor_id": uid(f"{o.id}/anchor")}, own(o, "unit_id"))
            for o in venue.occupants
        ],
        "section": [
            make("section", z.id, area(z.polygon), {"category": z.category, "name": {"en": z.name}, "level_id": uid(z.level_id)}, own(z, "polygon", "level_id"))
            for z in venue.zones
        ],
        "detail": [make("detail", b.id, line(b.line), {"level_id": uid(b.level_id)}, own(b, "line", "level_id")) for b in venue.barriers],
        "relationship": [
            make("relationship", c.id, None, {
                "category": c.kind, "direction": "undirected" if c.direction == "both" else "directed",
                "origin": _reference(c.stops[0], uid), "intermediary": [_reference(s, uid) for s in c.stops[1:-1]], "destination": _reference(c.stops[-1], uid),
            }, {"id": c.id} | c.model_dump(mode="json", exclude_defaults=True) | {
                "stops": [s.model_dump(mode="json", exclude_defaults=True) | {"point": point(s.point)} for s in c.stops],
            })
            for c in venue.connectors
        ],
    }  # fmt: skip
    return ImdfArchive(_manifest(venue.timezone), features)


def _manifest(timezone: str) -> dict[str, Any]:
    said = {"version": "1.0.0", "language": "en", "generated_by": "esplanade"}
    return said | ({"extensions": [f"timezone:{timezone}"]} if timezone else {})


def _reference(stop: Stop, uid: Any) -> dict[str, str] | None:
    return {"id": uid(stop.unit_id), "feature_type": "unit"} if stop.unit_id else None


def _inside(venue: Venue, unit_id: str) -> Point:
    unit = next(u for u in venue.units if u.id == unit_id)
    at = shapely.make_valid(shapely.MultiPolygon([shapely.Polygon(r[0], r[1:]) for r in unit.polygon])).representative_point()
    return at.x, at.y


# --- small parts --------------------------------------------------------------------------------------------------------


def _own(feature: Feature) -> dict[str, Any]:
    own = feature["properties"].get("esplanade")
    return dict(own) if isinstance(own, dict) else {}


def _text(labels: object) -> str | None:
    """English where there is a label in it, else the first."""
    if isinstance(labels, dict) and labels:
        return str(labels.get("en") or next(iter(labels.values())))
    return labels if isinstance(labels, str) else None


def _id(name: str, fallback: str) -> str:
    """A name as an id: letters, digits, dots and dashes of ASCII; the fallback where too little is left."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name.strip().lower()).strip("._-")[:96]
    return kept if sum(c.isalnum() for c in kept) >= 3 else fallback


def _points(shape: BaseGeometry) -> tuple[Point, ...]:
    return tuple((float(x), float(y)) for x, y in shapely.get_coordinates(shape))


def _rings(shape: BaseGeometry) -> MultiPolygon:
    parts = [part for part in shapely.get_parts(shape) if part.geom_type == "Polygon" and not part.is_empty]
    return tuple(tuple(_points(ring)[:-1] for ring in (part.exterior, *part.interiors)) for part in parts)
