"""A small building in simple indoor tagging becomes a venue that people can walk in; what cannot be read is named."""

from __future__ import annotations

import pytest

from esplanade.core.errors import InvalidInput
from spatial.checks import check_venue
from spatial.frames import Frame
from spatial.importers.osm_indoor import OsmVenue, parse_osm
from spatial.plan import shape
from spatial.routes import Route
from spatial.routing import Router
from spatial.venue import Origin

FRAME = Frame(Origin(lat_deg=48.1, lon_deg=11.5))


class Document:
    """Writes OSM XML from metres."""

    def __init__(self) -> None:
        self.nodes: dict[tuple[float, float], tuple[int, dict[str, str]]] = {}
        self.rest: list[str] = []

    def node(self, x: float, y: float, **tags: str) -> int:
        number, there = self.nodes.setdefault((x, y), (len(self.nodes) + 1, {}))
        there.update(tags)
        return number

    def way(self, number: int, points: list[tuple[float, float]], **tags: str) -> None:
        refs = "".join(f'<nd ref="{self.node(*p)}"/>' for p in points)
        self.rest.append(f'<way id="{number}">{refs}{_tags(tags)}</way>')

    def box(self, number: int, x0: float, y0: float, x1: float, y1: float, *more: tuple[float, float], **tags: str) -> None:
        """A closed way; `more` are extra nodes along its lower wall."""
        self.way(number, [(x0, y0), *more, (x1, y0), (x1, y1), (x0, y1), (x0, y0)], **tags)

    def read(self) -> OsmVenue:
        lines = []
        for (x, y), (number, tags) in self.nodes.items():
            lat, lon, _ = FRAME.to_wgs84(x, y)
            lines.append(f'<node id="{number}" lat="{float(lat):.9f}" lon="{float(lon):.9f}">{_tags(tags)}</node>')
        return parse_osm(f"<osm>{''.join(lines)}{''.join(self.rest)}</osm>".encode(), "test", venue_id="house", name="House")


def _tags(tags: dict[str, str]) -> str:
    return "".join(f'<tag k="{key}" v="{value}"/>' for key, value in tags.items())


def building() -> Document:
    made = Document()
    made.box(1, 0, 0, 40, 20, indoor="level", level="0", name="Ground floor")
    made.box(2, 0, 0, 40, 20, indoor="level", level="1")
    made.box(3, 5, 12, 15, 20, (10, 12), indoor="room", level="0", shop="books", name="Books")
    made.node(10, 12, door="yes")
    made.box(4, 20, 12, 30, 20, (25, 12), indoor="room", level="1", amenity="toilets")
    made.node(25, 12, door="yes")
    made.box(5, 34, 4, 37, 7, highway="elevator", level="0-1", indoor="room")
    made.box(6, 30, 12, 34, 20, indoor="room", level="0", access="private")
    made.way(7, [(5, 5), (9, 5)], indoor="wall", level="0")
    made.node(0, 10, entrance="main", level="0", name="West door")
    made.node(3, 3, amenity="atm", level="0")
    return made


def test_rooms_doors_lifts_and_entrances_make_a_venue_to_walk_in() -> None:
    found = building().read()
    venue = found.venue
    assert (found.read, found.imported, found.notes) == (7, 7, ())
    assert [(level.ordinal, level.name) for level in venue.levels] == [(0, "Ground floor"), (1, "Level 1")]
    assert {unit.id: unit.category for unit in venue.units} == {
        "way-3": "room", "way-4": "restroom", "way-5_0": "elevator", "way-5_1": "elevator", "way-6": "nonpublic",
    }  # fmt: skip
    assert shape(venue.units[0].polygon).area == pytest.approx(80, abs=0.05)
    assert [(o.name, o.category) for o in venue.occupants] == [("Books", "books")]
    assert [(a.category) for a in venue.amenities] == ["atm"]
    assert not [finding for finding in check_venue(venue) if finding.severity == "error"]
    way = Router.build(venue).route(venue.entrances[0].code, "way-4")
    assert isinstance(way, Route)
    assert [ride.way for ride in way.rides] == ["elevator"]


def test_an_area_with_a_hole_is_read_from_its_relation() -> None:
    made = building()
    made.way(20, [(1, 1), (30, 1), (30, 11), (1, 11), (1, 1)])
    made.way(21, [(5, 7), (9, 7), (9, 9), (5, 9), (5, 7)])
    made.rest.append(
        '<relation id="9"><member type="way" ref="20" role="outer"/><member type="way" ref="21" role="inner"/>'
        + _tags({"type": "multipolygon", "indoor": "corridor", "level": "1"}) + "</relation>"
    )  # fmt: skip
    (unit,) = [unit for unit in made.read().venue.units if unit.id == "relation-9"]
    assert (unit.category, len(unit.polygon[0])) == ("walkway", 2)
    assert shape(unit.polygon).area == pytest.approx(290 - 8, abs=0.2)


def test_what_cannot_be_read_is_left_out_by_name() -> None:
    made = building()
    made.box(30, 1, 1, 3, 3, indoor="room", level="first")
    made.way(31, [(1, 1), (3, 3), (3, 1)], indoor="room", level="0")
    made.way(32, [(1, 1), (3, 3), (3, 1), (1, 3), (1, 1)], indoor="room", level="0")
    found = made.read()
    assert [note.feature_id for note in found.notes] == ["way-30", "way-31", "way-32"]
    assert (found.read, found.imported) == (10, 7)


@pytest.mark.parametrize(
    ("data", "rule"),
    [(b"{}", "must be OSM XML"), (b"<osm/>", "0 nodes"), (b'<!DOCTYPE x [<!ENTITY a "b">]><osm/>', "entities"),
     (b'<osm><node id="1" lat="1" lon="1"/></osm>', "0 levels")],
)  # fmt: skip
def test_what_is_no_building_is_refused_with_the_rule(data: bytes, rule: str) -> None:
    with pytest.raises(InvalidInput, match=rule):
        parse_osm(data, "test", venue_id="v")
