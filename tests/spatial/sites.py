"""A small site in the format of the real malls, written for a test: 60 x 40 m, two floors, every kind of feature, its rough edges included."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from spatial.frames import Frame
from spatial.venue import Origin

ORIGIN = Origin(lat_deg=30.3, lon_deg=120.13)
WIDE, HIGH = 60.0, 40.0


def ring(*points: tuple[float, float]) -> list[list[float]]:
    lat, lon, _ = Frame(ORIGIN).to_wgs84([p[0] for p in points], [p[1] for p in points])
    degrees = [[float(a), float(b)] for a, b in zip(lon, lat, strict=True)]
    return [*degrees, degrees[0]]


def box(x0: float, y0: float, x1: float, y1: float) -> list[list[float]]:
    return ring((x0, y0), (x1, y0), (x1, y1), (x0, y1))


def feature(feature_id: str, name: str, outline: list[list[float]], *, category: str = "shop0bfbea", version: str = "2019") -> dict[str, Any]:
    return {
        "type": "Feature", "id": feature_id, "properties": {"name": name, "category": [category], "version": version},
        "geometry": {"type": "Polygon", "coordinates": [outline]},
    }  # fmt: skip


def floor_outline() -> dict[str, Any]:
    return {"type": "Feature", "id": "outline", "properties": {}, "geometry": {"type": "MultiPolygon", "coordinates": [[box(0, 0, WIDE, HIGH)]]}}


def ground_floor() -> list[dict[str, Any]]:
    return [
        feature("books", "Books &amp; Co", box(0, 30, 12, 40)),
        feature("books-again", "Books &amp; Co", box(0, 30, 12, 40)),
        feature("books-unnamed", "", box(0, 30, 12, 40), version="2020"),
        feature("old", "Old Name", box(12, 30, 24, 40)),
        feature("new", "New Name", box(12, 30, 24, 40), version="2020"),
        feature("vacant", "kongpu", box(24, 30, 30, 40)),
        feature("big", "Big Store", box(30, 28, 50, 40)),
        feature("within", "", box(40, 32, 44, 36), category="x0bfc57"),
        feature("closed", "", box(50, 30, 60, 40), category="x0bfc57"),
        feature("lift", "dianti", box(0, 0, 3, 3)),
        feature("freight", "huoti", box(4, 0, 7, 3)),
        feature("stairs", "louti", box(8, 0, 11, 6)),
        feature("escalator", "zidongfuti", box(20, 18, 32, 20)),
        feature("lonely", "zidongfuti", box(40, 18, 50, 20)),
        feature("door", "churukou", box(58, 14, 60, 18)),
        feature("bench", "xiuxiqu", box(36, 10, 38, 12)),
        feature("men", "nanweishengjian", box(52, 0, 60, 6)),
        feature("shut-in", "Shut In", box(50.5, 34, 55, 38)),
    ]


def upper_floor() -> list[dict[str, Any]]:
    return [
        feature("lift-2", "dianti", box(0, 0, 3, 3)),
        feature("freight-2", "huoti", box(4, 0, 7, 3)),
        feature("stairs-2", "louti", box(8, 0, 11, 6)),
        feature("escalator-2", "zidongfuti", box(22, 18, 34, 20)),
        feature("void", "", box(36, 14, 54, 24), category="x0bfc43"),
        feature("cafe", "Cafe", box(0, 30, 60, 40)),
    ]


def write_site(folder: Path, floors: dict[str, list[dict[str, Any]]] | None = None) -> Path:
    """Write the site into `folder`; the floors' own metres are its metres times (1.001, 0.996), as the real ones differ from the ground."""
    for name, features in (floors or {"F1": ground_floor(), "F2": upper_floor()}).items():
        (folder / name).mkdir(parents=True)
        document = {"type": "FeatureCollection", "features": [floor_outline(), *features]}
        (folder / name / "geojson_map.json").write_text(json.dumps(document))
        (folder / name / "floor_info.json").write_text(json.dumps({"map_info": {"width": WIDE * 1.001, "height": HIGH * 0.996}}))
    return folder
