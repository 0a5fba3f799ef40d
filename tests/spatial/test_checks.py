"""Each rule of the venue check finds its fault, names the feature and the remedy, and stays silent on a sound plan."""

from __future__ import annotations

import pytest

from spatial.checks import Finding, check_venue
from spatial.venue import Amenity, Connector, Entrance, Level, Occupant, Opening, Origin, Stop, Unit, UnitCategory, Venue


def box(x0: float, y0: float, x1: float, y1: float):  # type: ignore[no-untyped-def]
    return ((((x0, y0), (x1, y0), (x1, y1), (x0, y1)),),)


def unit(name: str, category: UnitCategory, *at: float, level: str = "G", till: bool = False) -> Unit:
    return Unit(id=name, level_id=level, category=category, polygon=box(*at), till=till)


SHOP = unit("shop", "room", 5, 6, 10, 10, till=True)
DOOR = Opening(id="door", level_id="G", unit_id="shop", a=(6, 6), b=(8, 6))
WAY_IN = Entrance(id="in", code="south_entrance", name="South", level_id="G", point=(10, 1))
LIFT = Connector(id="lift", kind="elevator", stops=(Stop(level_id="G", point=(2, 2)), Stop(level_id="U", point=(2, 2))))


def venue(**change: object) -> Venue:
    """Two sound floors of 20 x 10 m: a shop with a door, an entrance, a lift."""
    levels = tuple(Level(id=i, ordinal=k, name=i, short_name=i, outline=box(0, 0, 20, 10)) for k, i in enumerate("GU"))
    parts: dict[str, object] = {"units": (SHOP,), "openings": (DOOR,), "entrances": (WAY_IN,), "connectors": (LIFT,)}
    return Venue.model_validate({"id": "v", "name": "V", "kind": "mall", "origin": Origin(lat_deg=0, lon_deg=0), "levels": levels, **parts, **change})


def test_a_sound_plan_has_no_findings() -> None:
    assert check_venue(venue()) == []


BOW = Unit(id="bow", level_id="U", category="structure", polygon=((((5, 5), (8, 8), (8, 5), (5, 8)),),))
FAULTS: list[tuple[str, dict[str, object], str, str]] = [
    ("ring", {"units": (SHOP, BOW)}, "error", "bow"),
    ("overlap", {"units": (SHOP, unit("pillar", "structure", 9, 8, 11, 9))}, "warning", "shop"),
    ("outside", {"units": (SHOP, unit("annex", "structure", 18, 2, 22, 4))}, "warning", "annex"),
    ("outside", {"amenities": (Amenity(id="tap", level_id="G", category="water", point=(30, 5)),)}, "warning", "tap"),
    ("no_opening", {"openings": ()}, "error", "shop"),
    ("opening_off_wall", {"openings": (DOOR.model_copy(update={"a": (6, 4), "b": (8, 4)}),)}, "error", "door"),
    ("blind_opening", {"units": (SHOP, unit("store", "nonpublic", 5, 4, 10, 6))}, "error", "door"),
    ("isolated", {"units": (SHOP, unit("wall", "structure", 12, 0, 13, 10))}, "warning", "G"),
    ("no_ground", {"units": (SHOP, unit("roof", "structure", 0, 0, 20, 10, level="U"))}, "error", "U"),
    ("entrance_off_ground", {"entrances": (WAY_IN.model_copy(update={"point": (30, 1)}),)}, "error", "in"),
    ("stop_off_ground", {"units": (SHOP, unit("block", "structure", 1, 1, 3, 3, level="U"))}, "error", "lift"),
    (
        "stop_unit",
        {"connectors": (LIFT.model_copy(update={"stops": (Stop(level_id="U", point=(2, 2), unit_id="shop"), LIFT.stops[0])}),)},
        "error",
        "lift",
    ),
    (
        "stop_far",
        {"connectors": (LIFT.model_copy(update={"stops": (Stop(level_id="G", point=(19, 1), unit_id="shop"), LIFT.stops[1])}),)},
        "warning",
        "lift",
    ),
    ("stop_twice", {"connectors": (LIFT.model_copy(update={"stops": (*LIFT.stops, LIFT.stops[0])}),)}, "error", "lift"),
    ("no_entrance", {"entrances": ()}, "error", "v"),
    ("not_connected", {"connectors": ()}, "error", "U"),
    ("not_connected", {"connectors": (LIFT.model_copy(update={"access": "staff"}),)}, "error", "U"),
    ("entrance_code", {"entrances": (WAY_IN, WAY_IN.model_copy(update={"id": "in2"}))}, "error", "in, in2"),
    ("occupants", {"occupants": tuple(Occupant(id=f"o{k}", unit_id="shop", name="N") for k in range(2))}, "warning", "shop"),
    (
        "occupant_solid",
        {"units": (SHOP, unit("s", "nonpublic", 12, 6, 14, 8)), "occupants": (Occupant(id="o", unit_id="s", name="N"),)},
        "warning",
        "o",
    ),
]


@pytest.mark.parametrize(("rule", "change", "severity", "feature"), FAULTS, ids=[f"{f[0]}-{f[3]}" for f in FAULTS])
def test_a_fault_is_found_with_feature_and_remedy(rule: str, change: dict[str, object], severity: str, feature: str) -> None:
    found = [f for f in check_venue(venue(**change)) if f.rule == rule]
    assert [(f.severity, f.feature_id) for f in found] == [(severity, feature)]
    assert all(isinstance(f, Finding) and f.message and f.remedy for f in found)


def test_errors_come_first() -> None:
    order = [f.severity for f in check_venue(venue(entrances=(), units=(SHOP, unit("annex", "structure", 18, 2, 22, 4))))]
    assert order == ["error", "warning"]


def test_the_shutter_of_a_vacant_unit_is_no_fault() -> None:
    shutter = Opening(id="shutter", level_id="G", unit_id="empty", a=(13, 6), b=(14, 6))
    assert check_venue(venue(units=(SHOP, unit("empty", "nonpublic", 12, 6, 15, 10)), openings=(DOOR, shutter))) == []
