"""Reader of the "Indoor Location 2.0" mall plans: a folder a floor, each with `geojson_map.json` (EPSG:4326) and `floor_info.json` (metres).

Owns the rules by which such a plan becomes a venue. The plans hold outlines, units and names (pinyin or English), and neither doors, walkable
space nor links between floors: those are concluded by `spatial.importers.inference`, marked `inferred`, and overridden by an overlay.

1. Repeats: features of a floor with the same outline, name and category are merged. Same outline, other name: the named one wins, then the newest.
2. Overlaps of OVERLAP_M2 and more: the named one wins (a shop over a vacant unit over one without name), then the smaller; the other's outline is cut; what is left of
   less than half a square metre is rejected.
3. Frame: venue metres are the tangent plane at the south-west corner of the site; each floor keeps scale and offset of its own metres.
"""

from __future__ import annotations

import html
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import shapely
from pydantic import ValidationError
from shapely import STRtree
from shapely.geometry.base import BaseGeometry

from esplanade.core.errors import InvalidInput, NotFound
from spatial.frames import Frame
from spatial.importers import inference
from spatial.importers.account import ImportResult, ImportSummary, LevelAccount, Note, Rejected
from spatial.importers.links import link_levels
from spatial.importers.overlay import Overlay, apply_rest, apply_units, load_overlay
from spatial.plan import PIECE_LEAST_M2, level_plan
from spatial.venue import Entrance, Level, MultiPolygon, Occupant, Opening, Origin, Unit, UnitCategory, Venue
from spatial.venue_files import explain

MAX_BYTES: Final = 64 * 2**20
OVERLAP_M2: Final = 0.5
SHOP_DOOR_M: Final = 3.0
RESTROOM_DOOR_M: Final = 1.5

NAMED: Final[dict[str, UnitCategory]] = {
    "dianti": "elevator", "huoti": "elevator", "elevator": "elevator", "lift": "elevator",
    "zidongfuti": "escalator", "futi": "escalator", "escalator": "escalator",
    "louti": "stairs", "stairs": "stairs",
    "churukou": "nonpublic", "entrance": "nonpublic", "tingchechangchurukou": "nonpublic",
    "nanweishengjian": "restroom.male", "nvweishengjian": "restroom.female", "canjirenweishengjian": "restroom.wheelchair",
    "xishoujianfuzhumian": "restroom", "restroom": "restroom", "toilet": "restroom",
    "zhongkong": "opentobelow", "void": "opentobelow",
    "fuzhumian": "nonpublic", "feikaifangquyu": "nonpublic", "kongpu": "nonpublic", "vacant": "nonpublic",
    "xiuxiqu": "walkway",
}  # fmt: skip
"""What a name says, lower case. Any other name is a shop's."""

VACANT: Final = frozenset({"kongpu", "vacant"})
ENTRANCES: Final = frozenset({"churukou", "entrance"})
PARKING_ENTRANCES: Final = frozenset({"tingchechangchurukou"})
STAFF: Final = frozenset({"huoti"})
BAY_SUFFIX: Final = "107b6a"

UNNAMED: Final[dict[str, tuple[UnitCategory, str]]] = {
    "0bfc43": ("opentobelow", "unnamed, category 0bfc43: looks like a void or outside"),
    "0bfc57": ("nonpublic", "unnamed, category 0bfc57: looks like a closed area"),
}
UNNAMED_ELSE: Final[tuple[UnitCategory, str]] = ("nonpublic", "unnamed: taken for a closed area")

TRADES: Final[dict[str, str]] = {
    "5599ac": "food", "5599ed": "shopping", "559a41": "services", "559a75": "leisure", "559b0b": "education",
    "0bfbda": "food", "0bfbea": "fashion", "0bfba4": "shopping", "0bfbad": "children", "0bfbce": "boutique", "0bfbd6": "services", "0bfbdb": "food",
}  # fmt: skip
"""Trade by the first category's ending; the plans carry ids without names, these follow from the shops that bear them."""


@dataclass(slots=True)
class _Raw:
    """A feature as read: outline in degrees."""

    id: str
    name: str
    category: tuple[str, ...]
    version: str
    outline: BaseGeometry

    @property
    def word(self) -> str:
        return self.name.lower()

    @property
    def rank(self) -> int:
        """Who wins a place: 3 a name, 2 a service area or void, 1 vacant, 0 none."""
        if not self.name:
            return 0
        if self.word in VACANT:
            return 1
        return 2 if self.word in ("fuzhumian", "feikaifangquyu", "zhongkong") else 3

    @property
    def is_bay(self) -> bool:
        return any(category.endswith(BAY_SUFFIX) for category in self.category)


@dataclass(slots=True)
class _Floor:
    name: str
    ordinal: int
    width_m: float
    height_m: float
    outline: BaseGeometry
    outline_id: str
    kept: list[_Raw]
    read: int
    merged: int
    rejected: list[Rejected] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)


def read_site(site_dir: Path, overlay: Path | None = None) -> ImportResult:
    """Read a site's folder and an optional overlay. Raises NotFound or InvalidInput with the file, the rule and the remedy; a bad feature is rejected by itself."""
    said = load_overlay(overlay) if overlay is not None else Overlay()
    floors = _read_floors(site_dir)
    boxes = np.array([floor.outline.bounds for floor in floors])
    lon, lat = (float(v) for v in np.round(boxes[:, :2].min(axis=0), 6))
    origin = Origin(lat_deg=lat, lon_deg=lon)
    frame = Frame(origin)

    levels: list[Level] = []
    units: list[Unit] = []
    raws: dict[str, _Raw] = {}
    errors: list[float] = []
    for floor in floors:
        level, error = _level(floor, frame)
        levels.append(level)
        errors.append(error)
        for unit, raw in _units(floor, level.id, frame):
            raws[unit.id] = raw
            units.append(unit)
    units = apply_units(said, units)
    name = site_dir.resolve().name
    venue_id = re.sub(r"[^A-Za-z0-9._-]", "-", name).lstrip("._-")[:64] or "site"
    notes = [note for floor in floors for note in floor.notes]
    try:
        bare = Venue(id=venue_id, name=name, kind="mall", timezone="UTC", origin=origin, levels=tuple(levels), units=tuple(units))
        venue, links = _conclude(bare, raws, notes)
    except ValidationError as error:
        raise InvalidInput(f"{site_dir}: {explain(error)}") from None
    venue = apply_rest(said, venue)
    accounts = tuple(_account(floor, venue, i) for i, floor in enumerate(floors))
    rejected = tuple(r for floor in floors for r in floor.rejected)
    return ImportResult(venue, ImportSummary(accounts, rejected, links, tuple(notes), max(errors)))


# --- reading ----------------------------------------------------------------------------------------------------------


def _read_floors(site_dir: Path) -> list[_Floor]:
    if not site_dir.is_dir():
        raise NotFound(f"{site_dir}: no such folder; give a site's folder with a folder a floor (B1, F1, ...)")
    folders = sorted(path for path in site_dir.iterdir() if (path / "geojson_map.json").is_file())
    if not folders:
        raise NotFound(f"{site_dir}: no floor folders with a geojson_map.json in it; give a site's folder (with B1, F1, ... in it)")
    floors = [_read_floor(folder) for folder in folders]
    ordinals = [floor.ordinal for floor in floors]
    if len(set(ordinals)) != len(ordinals):
        raise InvalidInput(f"{site_dir}: floors {[f.name for f in floors]} give the ordinals {ordinals}; each must be given once")
    return sorted(floors, key=lambda floor: floor.ordinal)


def _json(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InvalidInput(f"{path}: larger than {MAX_BYTES} bytes; a floor's file must be smaller")
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file; each floor needs geojson_map.json and floor_info.json") from None
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InvalidInput(f"{path}: {str(error)[:200]}; must be JSON in UTF-8") from None


def _ordinal(name: str) -> int:
    """By the name: B1 and 1B are -1, F1, L1 and 1F are 0, F2 is 1."""
    match = re.fullmatch(r"([BFL])(\d{1,2})|(\d{1,2})([BFL])", name.upper())
    letter, number = (match[1] or match[4], int(match[2] or match[3])) if match is not None else ("", 0)
    if number == 0:
        raise InvalidInput(f"floor folder {name!r}: must be B, F or L and a number from 1, in either order (B1, F1, F2, 3F, ...)")
    return -number if letter == "B" else number - 1


def _read_floor(folder: Path) -> _Floor:
    document = _json(folder / "geojson_map.json")
    info = _json(folder / "floor_info.json")
    try:
        width, height = (float(info["map_info"][key]) for key in ("width", "height"))
    except (KeyError, TypeError, ValueError):
        width = height = math.nan
    if not (0 < width < 1e5 and 0 < height < 1e5):
        raise InvalidInput(f"{folder / 'floor_info.json'}: map_info.width and map_info.height must be metres above 0")
    features = document.get("features") if isinstance(document, dict) else None
    if not isinstance(features, list):
        raise InvalidInput(f"{folder / 'geojson_map.json'}: has no list `features`; must be a GeoJSON FeatureCollection")
    rejected: list[Rejected] = []
    raws: list[_Raw] = []
    outlines: list[_Raw] = []
    for position, feature in enumerate(features):
        raw = _read_feature(feature, position, folder.name, rejected)
        if raw is not None:
            (outlines if raw.outline.geom_type == "MultiPolygon" else raws).append(raw)
    if len(outlines) != 1:
        raise InvalidInput(f"{folder / 'geojson_map.json'}: {len(outlines)} features of type MultiPolygon; must be one, the floor's outline")
    kept, merged = _without_repeats(raws, folder.name, rejected)
    return _Floor(
        name=folder.name, ordinal=_ordinal(folder.name), width_m=width, height_m=height, outline=outlines[0].outline, outline_id=outlines[0].id,
        kept=kept, read=len(features), merged=merged, rejected=rejected,
    )  # fmt: skip


def _read_feature(feature: Any, position: int, level: str, rejected: list[Rejected]) -> _Raw | None:
    feature_id, name = f"feature {position}", ""
    try:
        feature_id = str(feature.get("id") or feature_id)[:96]
        properties = feature.get("properties") or {}
        name = html.unescape(str(properties.get("name") or "")).strip()[:200]
        kinds = properties.get("category") or ()
        category = tuple(str(k) for k in kinds) if isinstance(kinds, list) else (str(kinds),)
        geometry = feature["geometry"]
        if geometry["type"] not in ("Polygon", "MultiPolygon"):
            raise ValueError(f"geometry {str(geometry['type'])[:40]!r}")
        outline = shapely.from_geojson(json.dumps({"type": geometry["type"], "coordinates": geometry["coordinates"]}))
        xy = shapely.get_coordinates(outline)
        if len(xy) < 4 or not (np.isfinite(xy).all() and (np.abs(xy) <= [180, 90]).all()):
            raise ValueError("coordinates that are not longitudes and latitudes")
        if not outline.is_valid:
            raise ValueError(shapely.is_valid_reason(outline))
        return _Raw(feature_id, name, category, str(properties.get("version") or ""), shapely.force_2d(outline))
    except (AttributeError, KeyError, TypeError, ValueError, shapely.errors.GEOSException) as error:
        rejected.append(Rejected(level, feature_id, name, f"not a readable polygon: {str(error)[:120]}", "mend its ring in the source"))
        return None


def _without_repeats(raws: list[_Raw], level: str, rejected: list[Rejected]) -> tuple[list[_Raw], int]:
    """Rule 1. (features kept in the order read, number merged)."""
    merged = 0
    distinct: dict[tuple[bytes, str, tuple[str, ...]], _Raw] = {}
    for raw in raws:
        key = (shapely.to_wkb(raw.outline), raw.name, raw.category)
        if key in distinct:
            merged += 1
            if raw.version <= distinct[key].version:
                continue
        distinct[key] = raw
    by_outline: dict[bytes, list[_Raw]] = {}
    for (outline, _, _), raw in distinct.items():
        by_outline.setdefault(outline, []).append(raw)
    kept = []
    seen: set[str] = set()
    for same in by_outline.values():
        winner = max(same, key=lambda raw: (raw.rank, raw.version, raw.id))
        for raw in same:
            if raw is not winner:
                why = "the named one wins" if raw.rank < winner.rank else "the newest one wins"
                rejected.append(
                    Rejected(level, raw.id, raw.name, f"same outline as {winner.id} ({winner.name}): {why}", "rename the other by an overlay")
                )
        if winner.id in seen or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,95}", winner.id):
            rejected.append(
                Rejected(level, winner.id, winner.name, "an id that is taken on this floor or no id", "give it an id of its own in the source")
            )
            continue
        seen.add(winner.id)
        kept.append(winner)
    return kept, merged


# --- from degrees to the venue ----------------------------------------------------------------------------------------


def _metres(frame: Frame, outline: BaseGeometry) -> BaseGeometry:
    def convert(lonlat: Any) -> Any:
        return np.round(frame.to_venue(lonlat[:, 1], lonlat[:, 0])[:, :2], 3)

    return shapely.transform(outline, convert)


def _coordinates(geometry: BaseGeometry) -> MultiPolygon:
    return tuple(
        tuple(tuple((float(x), float(y)) for x, y in np.round(shapely.get_coordinates(ring)[:-1], 3)) for ring in (part.exterior, *part.interiors))
        for part in shapely.get_parts(geometry)
    )


def _level(floor: _Floor, frame: Frame) -> tuple[Level, float]:
    """The level with scale and offset to the floor's own metres, and the fit's largest error in metres."""
    x0, y0, x1, y1 = floor.outline.bounds
    lonlat = np.concatenate([shapely.get_coordinates(floor.outline), *(shapely.get_coordinates(raw.outline) for raw in floor.kept)])
    own = (lonlat - [x0, y0]) / [x1 - x0, y1 - y0] * [floor.width_m, floor.height_m]
    here = frame.to_venue(lonlat[:, 1], lonlat[:, 0])[:, :2]
    scale, offset = np.polynomial.polynomial.polyfit(here[:, 0], own[:, 0], 1)[::-1], np.polynomial.polynomial.polyfit(here[:, 1], own[:, 1], 1)[::-1]
    fitted = here * [scale[0], offset[0]] + [scale[1], offset[1]]
    level = Level(
        id=floor.name, ordinal=floor.ordinal, name=floor.name, short_name=floor.name, outline=_coordinates(_metres(frame, floor.outline)),
        source_scale=(float(scale[0]), float(offset[0])), source_offset_m=(round(float(scale[1]), 4), round(float(offset[1]), 4)),
    )  # fmt: skip
    return level, float(np.hypot(*(fitted - own).T).max())


def _units(floor: _Floor, level_id: str, frame: Frame) -> list[tuple[Unit, _Raw]]:
    """Rule 2, and a unit of each feature that is left."""
    shapes = [_metres(frame, raw.outline) for raw in floor.kept]
    cut = _settle_overlaps(floor, shapes)
    made = []
    for raw, shape in zip(floor.kept, cut, strict=True):
        if shape is None:
            continue
        category, inferred = _category(raw)
        shop = category == "room"
        made.append(
            (
                Unit(
                    id=raw.id, level_id=level_id, category=category, name=raw.name or None, polygon=_coordinates(shape), till=shop, inferred=inferred,
                ),
                raw,
            )
        )  # fmt: skip
    return made


def _settle_overlaps(floor: _Floor, shapes: list[BaseGeometry]) -> list[BaseGeometry | None]:
    order = sorted(range(len(shapes)), key=lambda i: (-floor.kept[i].rank, shapes[i].area, floor.kept[i].id))
    place = {i: k for k, i in enumerate(order)}
    tree = STRtree(shapes)
    settled: list[BaseGeometry | None] = list(shapes)
    for i in order:
        raw = floor.kept[i]
        if raw.is_bay or NAMED.get(raw.word) == "walkway":
            continue  # open ground gives way by itself: what others take is not walkable
        winners = [int(j) for j in tree.query(shapes[i], predicate="intersects") if place[int(j)] < place[i] and settled[int(j)] is not None]
        winners = [j for j in winners if not floor.kept[j].is_bay and NAMED.get(floor.kept[j].word) != "walkway"]
        winners = [j for j in winners if shapes[i].intersection(shapes[j]).area >= OVERLAP_M2]
        if not winners:
            continue
        rest = shapes[i].difference(shapely.union_all([shapes[j] for j in winners]))
        parts = [part for part in shapely.get_parts(rest) if part.geom_type == "Polygon" and part.area >= OVERLAP_M2]
        who = ", ".join(f"{floor.kept[j].id} ({floor.kept[j].name})" for j in winners)
        if not parts:
            settled[i] = None
            rule = f"lies within {who}: the named one wins, then the smaller"
            floor.rejected.append(Rejected(floor.name, raw.id, raw.name, rule, "give it an outline of its own in the source"))
        else:
            settled[i] = shapely.MultiPolygon(parts)
            floor.notes.append(Note(floor.name, raw.id, f"outline of {raw.name or 'unnamed'} cut where it overlaps {who}"))
    return settled


def _category(raw: _Raw) -> tuple[UnitCategory, str | None]:
    if raw.is_bay:
        return "parking", None
    if not raw.name:
        return UNNAMED.get(raw.category[-1][-6:] if raw.category else "", UNNAMED_ELSE)
    return NAMED.get(raw.word, "room"), None


# --- what is concluded ------------------------------------------------------------------------------------------------


def _conclude(venue: Venue, raws: dict[str, _Raw], notes: list[Note]) -> tuple[Venue, Any]:
    """Openings and occupants, then (with rooms open) entrances and links."""
    openings: list[Opening] = []
    occupants: list[Occupant] = []
    entrances: list[Entrance] = []
    from_centre: list[tuple[str, tuple[float, float], str, str]] = []
    for i, level in enumerate(venue.levels):
        plan = level_plan(venue, i)
        grounds = [*inference.passable(plan.walkway_pieces), *plan.walkway_pieces]
        for unit in (unit for unit in venue.units if unit.level_id == level.id):
            raw = raws[unit.id]
            shape = shapely.MultiPolygon([shapely.Polygon(rings[0], rings[1:]) for rings in unit.polygon])
            vacant = raw.word in VACANT and unit.category == "nonpublic"
            if unit.category == "room" or vacant or unit.category.startswith("restroom"):
                found = inference.door(shape, grounds, widest_m=RESTROOM_DOOR_M if unit.category.startswith("restroom") else SHOP_DOOR_M)
                if found is None:
                    notes.append(
                        Note(level.id, unit.id, f"{unit.name or unit.category}: touches no walkable ground, so no opening could be inferred")
                    )
                else:
                    a, b = (tuple(round(v, 3) for v in point) for point in found)
                    rule = "longest straight contact with the main walkway, 3 m at most"
                    openings.append(Opening(id=f"{unit.id}-door", level_id=level.id, unit_id=unit.id, a=(a[0], a[1]), b=(b[0], b[1]), inferred=rule))
            if unit.category == "room" and unit.name:
                trade = TRADES.get(raw.category[0][-6:], "shop") if raw.category else "shop"
                weight = round(min(8.0, max(0.3, math.sqrt(shape.area / 150.0))), 2)
                occupants.append(
                    Occupant(
                        id=f"{unit.id}-occupant",
                        unit_id=unit.id,
                        name=unit.name,
                        category=trade,
                        popularity=weight,
                        inferred="popularity from floor area",
                    )
                )
            if raw.word in ENTRANCES | PARKING_ENTRANCES:
                point = inference.in_front(shape, grounds[0]) if grounds else None
                if point is None:
                    notes.append(Note(level.id, unit.id, f"{raw.name}: touches no walkable ground, so it leads nowhere; place it by an overlay"))
                else:
                    centre = plan.outline.centroid
                    kind = "pedestrian" if raw.word in ENTRANCES else "parking"
                    from_centre.append((inference.compass((centre.x, centre.y), point), point, level.id, kind))
    entrances = _entrances(from_centre)
    opened = venue.model_copy(update={"openings": tuple(openings), "occupants": tuple(occupants), "entrances": tuple(entrances)})
    staff = {unit_id for unit_id, raw in raws.items() if raw.word in STAFF}
    connectors, links, more = link_levels(opened, staff)
    notes += more
    return Venue.model_validate(opened.model_copy(update={"connectors": connectors}).model_dump()), links


def _entrances(found: list[tuple[str, tuple[float, float], str, str]]) -> list[Entrance]:
    """Codes from the bearing seen from the middle of the level; a second one of the same eighth gets a number."""
    entrances = []
    count: dict[str, int] = {}
    for bearing, point, level_id, kind in sorted(found):
        stem = f"{bearing}_{'parking_' if kind == 'parking' else ''}entrance"
        count[stem] = count.get(stem, 0) + 1
        code = stem if count[stem] == 1 else f"{stem}_{count[stem]}"
        entrances.append(
            Entrance(
                id=f"entrance-{code}", code=code, name=code.replace("_", " ").capitalize(), level_id=level_id,
                point=(round(point[0], 3), round(point[1], 3)), kind="parking" if kind == "parking" else "pedestrian",
                inferred="code from the bearing; point in front of the longest contact with the walkway",
            )
        )  # fmt: skip
    return entrances


def _account(floor: _Floor, venue: Venue, index: int) -> LevelAccount:
    units = [unit for unit in venue.units if unit.level_id == floor.name]
    shapes = [shapely.MultiPolygon([shapely.Polygon(rings[0], rings[1:]) for rings in unit.polygon]) for unit in units]
    outline = shapely.MultiPolygon([shapely.Polygon(rings[0], rings[1:]) for rings in venue.levels[index].outline])
    scale = venue.levels[index].source_scale
    bare = sorted((part.area * scale[0] * scale[1] for part in shapely.get_parts(outline.difference(shapely.union_all(shapes)))), reverse=True)
    vacant = {unit.id for unit in units if unit.category == "nonpublic" and (unit.name or "").lower() in VACANT}
    shops = {unit.id for unit in units if unit.category == "room"} | vacant
    return LevelAccount(
        level=floor.name, read=floor.read, imported=1 + len(units), merged=floor.merged, rejected=len(floor.rejected), shops=len(shops), vacant=len(vacant),
        openings=len({o.unit_id for o in venue.openings} & shops), largest_m2=bare[0] if bare else 0.0,
        pieces=sum(area >= PIECE_LEAST_M2 for area in bare),
    )  # fmt: skip
