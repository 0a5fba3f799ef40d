"""The mall importer accounts for every feature, concludes by its stated rules, marks what it concluded, and lets an overlay override it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import shapely

from esplanade.core.errors import EsplanadeError, InvalidInput, NotFound
from spatial.importers.account import ImportResult
from spatial.importers.malls import read_site
from spatial.plan import level_plans
from tests.spatial.sites import box, feature, ground_floor, upper_floor, write_site


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> ImportResult:
    return read_site(write_site(tmp_path_factory.mktemp("site")))


def test_read_is_imported_plus_merged_plus_rejected(result: ImportResult) -> None:
    for level in result.summary.levels:
        assert level.read == level.imported + level.merged + level.rejected
    assert [(level.read, level.merged, level.rejected) for level in result.summary.levels] == [(19, 1, 3), (7, 0, 0)]
    assert sum(level.imported for level in result.summary.levels) == len(result.venue.levels) + len(result.venue.units)


def test_an_id_on_two_floors_is_said_with_both_and_with_what_to_do(tmp_path: Path) -> None:
    upper = [*upper_floor(), next(one for one in ground_floor() if one["id"] == "books")]
    site = write_site(tmp_path, {"F1": ground_floor(), "F2": upper})
    with pytest.raises(InvalidInput) as refused:
        read_site(site)
    said = "id 'books' belongs to two features (unit on level F1, unit on level F2); an id is of one feature in the whole venue: give one of them another"
    assert str(refused.value) == f"{site}: document: {said}"


def test_every_rejected_feature_has_its_rule_and_remedy(result: ImportResult) -> None:
    said = {r.feature_id: r.rule for r in result.summary.rejected}
    assert said == {
        "books-unnamed": "same outline as books (Books & Co): the named one wins",
        "old": "same outline as new (New Name): the newest one wins",
        "within": "lies within big (Big Store): the named one wins, then the smaller",
    }
    assert all(r.remedy for r in result.summary.rejected)


def test_names_are_kept_and_categories_follow_from_them(result: ImportResult) -> None:
    units = {unit.id: unit for unit in result.venue.units}
    assert units["books"].name == "Books & Co"
    expected = {
        "books": "room", "vacant": "nonpublic", "lift": "elevator", "stairs": "stairs", "escalator": "escalator", "door": "nonpublic",
        "bench": "walkway", "men": "restroom.male", "closed": "nonpublic", "void": "opentobelow",
    }  # fmt: skip
    assert {name: units[name].category for name in expected} == expected
    assert units["books"].inferred is None
    assert "0bfc43" in (units["void"].inferred or "")
    assert all(unit.till == (unit.category == "room") for unit in units.values())


def test_every_shop_gets_one_inferred_opening_of_three_metres_at_most_on_the_walkway(result: ImportResult) -> None:
    doors = {o.unit_id: o for o in result.venue.openings}
    assert set(doors) == {"books", "new", "vacant", "big", "men", "cafe"}
    for door in doors.values():
        width = shapely.LineString([door.a, door.b]).length
        assert 0.6 <= width <= 3.001
        assert door.inferred
    plans = level_plans(result.venue)
    opened = {result.venue.units[gap.unit].id for plan in plans for gap in plan.gaps}
    assert opened == {"books", "new", "big", "men", "cafe"}
    assert len(plans[0].pieces) == 1


def test_a_shop_that_touches_no_ground_is_reported(result: ImportResult) -> None:
    assert any(note.feature_id == "shut-in" and "no opening" in note.message for note in result.summary.notes)


def test_lifts_stairs_and_escalators_are_linked_by_overlap(result: ImportResult) -> None:
    links = {link.kind: link.counts for link in result.summary.links}
    assert links == {"elevator": (1,), "elevator, staff": (1,), "stairs": (1,), "escalator": (1,)}
    connectors = {c.id: c for c in result.venue.connectors}
    assert connectors["elevator-lift"].access == "public"
    assert connectors["elevator-freight"].access == "staff"
    ways = [c.direction for c in result.venue.connectors if c.kind == "escalator"]
    assert ways == ["forward", "backward"]
    assert all(c.inferred for c in connectors.values())
    assert any(note.feature_id == "lonely" and "not linked" in note.message for note in result.summary.notes)
    plans = level_plans(result.venue)
    for connector in connectors.values():
        for stop in connector.stops:
            assert plans[result.venue.level_index(stop.level_id)].main.covers(shapely.Point(stop.point))


def test_the_escalator_is_entered_at_one_end_and_left_at_the_other(result: ImportResult) -> None:
    up = next(c for c in result.venue.connectors if c.id.endswith("-up"))
    foot, head = up.stops
    assert abs(foot.point[0] - head.point[0]) > 10


def test_entrances_have_codes_from_their_bearing(result: ImportResult) -> None:
    assert [e.code for e in result.venue.entrances] == ["east_entrance"]
    assert result.venue.entrances[0].point[0] < 58


def test_the_floors_own_metres_are_kept(result: ImportResult) -> None:
    level = result.venue.levels[0]
    x, y = level.to_source(60.0, 40.0)
    assert (x, y) == pytest.approx((60.06, 39.84), abs=0.01)
    assert level.from_source(x, y) == pytest.approx((60.0, 40.0), abs=1e-9)
    assert result.summary.fit_error_m < 0.005


def overlay(folder: Path, text: str) -> Path:
    path = folder / "overlay.toml"
    path.write_text(text)
    return path


def test_an_overlay_overrides_what_was_inferred_and_is_no_longer_marked(tmp_path: Path) -> None:
    said = overlay(
        tmp_path,
        """
[venue]
name = "The Arcade"
timezone = "Asia/Shanghai"

[[unit]]
id = "closed"
category = "room"
name = "Gallery"
till = true

[[opening]]
unit = "books"
a = [2.0, 30.0]
b = [4.0, 30.0]

[[connector]]
id = "stairs-stairs"
kind = "stairs"
access = "staff"
stops = [{ level = "F1", point = [12.0, 3.0], unit = "stairs" }, { level = "F2", point = [12.0, 3.0] }]

[[entrance]]
code = "east_entrance"
name = "Garden door"
level = "F1"
point = [56.0, 16.0]
""",
    )
    venue = read_site(write_site(tmp_path / "site"), said).venue
    assert (venue.name, venue.timezone) == ("The Arcade", "Asia/Shanghai")
    gallery = next(unit for unit in venue.units if unit.id == "closed")
    assert (gallery.category, gallery.till, gallery.inferred) == ("room", True, None)
    assert any(o.unit_id == "closed" for o in venue.openings)
    (books,) = (o for o in venue.openings if o.unit_id == "books")
    assert (books.a, books.b, books.inferred) == ((2.0, 30.0), (4.0, 30.0), None)
    (stairs,) = (c for c in venue.connectors if c.kind == "stairs")
    assert (stairs.access, stairs.inferred) == ("staff", None)
    assert [(e.name, e.inferred) for e in venue.entrances] == [("Garden door", None)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[unit]]\nid = 'nowhere'\n", "'nowhere' is not in the plan"),
        ("[[opening]]\nunit = 'books'\na = [1.0, 2.0]\n", r"opening\.0\.b"),
        ("[[entrance]]\ncode='x'\nname='X'\nlevel='F9'\npoint=[0.0,0.0]\n", "F9"),
        ("remove_connectors = ['nothing']\n", "'nothing'"),
        ("unit = [", "must be TOML"),
        ("colour = 'red'\n", "colour"),
    ],
)
def test_a_wrong_overlay_is_refused_with_the_place(tmp_path: Path, text: str, message: str) -> None:
    site = write_site(tmp_path / "site")
    with pytest.raises(InvalidInput, match=message):
        read_site(site, overlay(tmp_path, text))


def test_a_broken_feature_is_rejected_by_itself(tmp_path: Path) -> None:
    bad = feature("bow", "Bow Tie", box(1, 10, 4, 12))
    ring = bad["geometry"]["coordinates"][0]
    ring[1], ring[2] = ring[2], ring[1]
    point = {"type": "Feature", "id": "dot", "properties": {"name": "Dot"}, "geometry": {"type": "Point", "coordinates": [0, 0]}}
    site = write_site(tmp_path / "site", {"F1": [*ground_floor(), bad, point, "nonsense", {"id": "empty"}]})  # type: ignore[list-item]
    result = read_site(site)
    level = result.summary.levels[0]
    assert level.read == level.imported + level.merged + level.rejected == 23
    assert {"bow", "dot", "empty", "feature 21"} <= {r.feature_id for r in result.summary.rejected}


def test_a_site_that_is_not_one_is_refused_in_one_line(tmp_path: Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises(EsplanadeError, match=message) as caught:
            read_site(tmp_path / "site")
        assert "\n" not in str(caught.value)

    refused("no such folder")
    (tmp_path / "site").mkdir()
    refused("no floor folders")
    site = write_site(tmp_path / "site")
    (site / "F1" / "floor_info.json").write_text(json.dumps({"map_info": {"width": 0, "height": 5}}))
    refused("map_info.width")
    (site / "F1" / "floor_info.json").unlink()
    refused("floor_info.json: no such file")
    (site / "F1" / "geojson_map.json").write_text("{" * 10)
    refused("must be JSON")
    (site / "F1" / "geojson_map.json").write_text("[]")
    (site / "F1" / "floor_info.json").write_text(json.dumps({"map_info": {"width": 60, "height": 40}}))
    refused("FeatureCollection")


def test_a_floor_folder_with_another_name_is_refused(tmp_path: Path) -> None:
    site = write_site(tmp_path / "site", {"Ground": upper_floor()})
    with pytest.raises(InvalidInput, match="'Ground'"):
        read_site(site)


def test_a_floor_is_known_by_letter_and_number_in_either_order(tmp_path: Path) -> None:
    below = [{**one, "id": f"below-{i}"} for i, one in enumerate(upper_floor())]
    site = write_site(tmp_path / "site", {"1F": ground_floor(), "l2": upper_floor(), "B1": below})
    assert [(level.id, level.ordinal) for level in read_site(site).venue.levels] == [("B1", -1), ("1F", 0), ("l2", 1)]


def test_a_missing_overlay_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"none\.toml"):
        read_site(write_site(tmp_path / "site"), tmp_path / "none.toml")
