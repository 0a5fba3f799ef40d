"""IMDF: an archive is read and written whole, and a venue survives the way through one."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from esplanade.core.errors import InvalidInput, NotFound
from spatial.importers.imdf import ImdfArchive, archive_of, dump_archive, parse_archive, read_archive, venue_of
from spatial.venue import Venue
from spatial.venue_files import load_venue

OWN = Path(__file__).parents[2] / "scenarios" / "venues"
DATA = os.environ.get("ESPLANADE_DATA")


def same(a: object, b: object, where: str = "") -> None:
    """The documents are equal, numbers to two micrometres."""
    match a, b:
        case dict(), dict():
            assert a.keys() == b.keys(), where
            for key in a:
                same(a[key], b[key], f"{where}.{key}")
        case ((list() | tuple()), (list() | tuple())):
            assert len(a) == len(b), where
            for i, (x, y) in enumerate(zip(a, b, strict=True)):
                same(x, y, f"{where}[{i}]")
        case float(), float():
            assert abs(a - b) <= 2e-6, where
        case _:
            assert a == b, where


@pytest.mark.parametrize("name", ["parkside_mall.json", "meadow_festival.json"])
def test_a_venue_survives_the_way_through_an_archive(name: str) -> None:
    venue = load_venue(OWN / name)
    packed = dump_archive(archive_of(venue))
    back = venue_of(parse_archive(packed, name))
    assert {note.feature_id for note in back.notes} <= {"address", "building"}
    same(back.venue.model_dump(), venue.model_dump())
    assert dump_archive(archive_of(venue)) == packed


def test_an_archive_keeps_what_a_venue_has_no_place_for() -> None:
    archive = archive_of(load_venue(OWN / "meadow_festival.json"))
    kiosk = {"id": "k", "type": "Feature", "feature_type": "kiosk", "geometry": None, "properties": {"x": [1, None, "ü"]}}
    more = ImdfArchive(archive.manifest | {"language": "ar"}, archive.features | {"kiosk": [kiosk], "zzz_custom": [kiosk]})
    back = parse_archive(dump_archive(more), "test")
    assert back == more
    assert {"kiosk", "zzz_custom"} <= {note.feature_id for note in venue_of(back).notes}


@pytest.mark.parametrize(
    ("data", "rule"),
    [(b"no zip", "not a ZIP"), ({"venue.geojson": "{}"}, "FeatureCollection"), ({"venue.geojson": "{"}, "JSON"), ({}, "needs venue"),
     ({"venue.geojson": '{"features": [{"id": 3}]}'}, "has an id")],
)  # fmt: skip
def test_what_is_no_archive_is_refused_with_the_rule(data: bytes | dict[str, str], rule: str) -> None:
    if isinstance(data, dict):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as packed:
            for name, text in data.items():
                packed.writestr(name, text)
        data = out.getvalue()
    with pytest.raises(InvalidInput, match=rule):
        parse_archive(data, "test")
    with pytest.raises(NotFound):
        read_archive(Path("/nowhere/archive.zip"))


@pytest.mark.data
@pytest.mark.skipif(DATA is None, reason="set ESPLANADE_DATA to the folder of real data")
def test_a_real_campus_is_read_with_every_unit_and_its_quirks_noted() -> None:
    archive = read_archive(Path(str(DATA)) / "imdf_campus")
    again = parse_archive(dump_archive(archive), "again")
    assert again.features == archive.features
    found = venue_of(archive)
    venue: Venue = found.venue
    assert (len(archive.of("unit")), len(venue.units)) == (144, 144)
    openings_out = {note.feature_id for note in found.notes} & {feature["id"] for feature in archive.of("opening")}
    assert len(venue.openings) + len(openings_out) == 142
    assert len(venue.amenities) + len(venue.entrances) + len({n.feature_id for n in found.notes} & {f["id"] for f in archive.of("amenity")}) == 15
    assert len(venue.openings) > 50
    spread = np.array([point for unit in venue.units for rings in unit.polygon for ring in rings for point in ring])
    assert np.abs(spread).max() < 2000
    back = venue_of(parse_archive(dump_archive(archive_of(venue)), "back")).venue
    same(back.model_dump(), venue.model_dump())
