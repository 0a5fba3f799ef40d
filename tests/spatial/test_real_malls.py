"""The two real malls, against the figures that were measured on them. Needs ESPLANADE_DATA."""

from __future__ import annotations

import os
import tarfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import shapely

from spatial.checks import check_venue
from spatial.importers.account import ImportResult
from spatial.importers.malls import read_site
from spatial.plan import level_plans
from spatial.venue import Level

DATA = os.environ.get("ESPLANADE_DATA", "")
pytestmark = [pytest.mark.data, pytest.mark.skipif(not DATA, reason="ESPLANADE_DATA does not name the folder of the real data")]

# Largest piece of ground outside all units (m2, the floor's own metres), pieces of 1 m2 and more, shops: by floor from the lowest.
SITE1 = {"area": (18603, 5930, 5101, 4766, 5046), "pieces": (5, 18, 3, 2, 3), "shops": (87, 56, 46, 50, 31)}
SITE2 = {"area": (5831, 5897, 6351, 7298), "pieces": (1, 1, 1, 1), "shops": (34, 40, 36, 63)}


@cache
def imported(site: str) -> ImportResult:
    return read_site(Path(DATA) / "malls" / site)


@pytest.mark.parametrize(("site", "read"), [("site1", 1291), ("site2", 1147)])
def test_no_feature_is_lost(site: str, read: int) -> None:
    summary = imported(site).summary
    assert summary.read == read == summary.imported + summary.merged + len(summary.rejected)
    assert all(level.read == level.imported + level.merged + level.rejected for level in summary.levels)


def test_site2_holds_622_distinct_features() -> None:
    summary = imported("site2").summary
    assert summary.read - len(summary.levels) - summary.merged == 622


@pytest.mark.parametrize(("site", "table"), [("site1", SITE1), ("site2", SITE2)])
def test_walkable_ground_and_shops_agree_with_the_table(site: str, table: dict[str, tuple[int, ...]]) -> None:
    levels = imported(site).summary.levels
    assert [level.largest_m2 for level in levels] == pytest.approx(table["area"], abs=1.0)
    assert [level.pieces for level in levels] == pytest.approx(table["pieces"], abs=1)
    # On F4 of site2 three named shops share an outline with a newer one, and are rejected for it.
    superseded = [sum(r.level == level.level and bool(r.name) for r in imported(site).summary.rejected) for level in levels]
    assert [level.shops + old for level, old in zip(levels, superseded, strict=True)] == list(table["shops"])
    assert sum(superseded) == (3 if site == "site2" else 0)


@pytest.mark.parametrize("site", ["site1", "site2"])
def test_every_shop_has_an_opening_and_every_open_one_is_usable(site: str) -> None:
    result = imported(site)
    assert all(level.openings == level.shops for level in result.summary.levels)
    rooms = {unit.id for unit in result.venue.units if unit.category == "room"}
    assert all(unit.till for unit in result.venue.units if unit.id in rooms)
    for plan in level_plans(result.venue):
        assert not {result.venue.openings[k].unit_id for k in plan.blind} & rooms


def test_site2_is_linked_as_counted_by_hand() -> None:
    links = {link.kind: link.counts for link in imported("site2").summary.links}
    assert links["elevator"] == (5, 5, 5)
    assert links["stairs"] == (7, 13, 13)
    assert links["escalator"] == (6, 6, 8)
    lifts = [c for c in imported("site2").venue.connectors if c.kind == "elevator" and c.access == "public"]
    assert [len(lift.stops) for lift in lifts] == [4] * 5


def test_site2_has_eleven_entrances_with_codes_of_their_own_and_no_errors() -> None:
    venue = imported("site2").venue
    codes = [entrance.code for entrance in venue.entrances]
    assert len(codes) == len(set(codes)) == 11
    assert "north_entrance" in codes
    assert [finding for finding in check_venue(venue) if finding.severity == "error"] == []


def test_site1_says_that_its_levels_are_not_connected() -> None:
    found = {(f.rule, f.feature_id) for f in check_venue(imported("site1").venue)}
    assert {("not_connected", level) for level in ("F1", "F2", "F3", "F4")} <= found
    assert ("no_entrance", "site1") in found


def waypoints(folder: Path) -> np.ndarray:  # type: ignore[type-arg]
    points = []
    with tarfile.open(folder / "traces_train.tar.xz") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            for line in file or ():
                if b"\tTYPE_WAYPOINT\t" in line:
                    _, _, x, y = line.split(b"\t")[:4]
                    points.append((float(x), float(y)))
    return np.array(points).reshape(-1, 2)


def venue_frame(level: Level, own: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    return (own - level.source_offset_m) / level.source_scale


@pytest.mark.parametrize(("site", "least"), [("site1", {"F1": 0.92}), ("site2", {})])
def test_surveyed_waypoints_lie_on_walkable_ground(site: str, least: dict[str, float]) -> None:
    venue = imported(site).venue
    plans = level_plans(venue)
    total = covered = 0
    for level, plan in zip(venue.levels, plans, strict=True):
        folder = Path(DATA) / "malls" / site / level.id
        if not (folder / "traces_train.tar.xz").exists():
            continue
        xy = venue_frame(level, waypoints(folder))
        if not len(xy):
            continue
        on = shapely.covers(plan.walkway, shapely.points(xy))
        assert on.mean() >= least.get(level.id, 0.975), level.id
        total, covered = total + len(xy), covered + int(on.sum())
    assert total > 500
    if site == "site2":
        assert covered == total
