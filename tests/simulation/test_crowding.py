"""What keeps crowds from freezing: exchange face to face, ways around standing crowds; and the real mall."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from esplanade.core.clock import TICK_S
from simulation import kernels
from simulation.agents import STAYING
from simulation.demand import Demand
from simulation.engine import Crowd
from simulation.ground import survey
from simulation.navigation import Ways, link_levels
from simulation.places import find_places
from spatial.venue import Unit, Venue
from tests.simulation.test_walking import QUIET, stand_in
from tests.simulation.venues import box, shop, venue


def passage() -> Venue:
    """Two halls joined by a passage 1.2 m wide and 10 m long, a shop and an entrance in each."""
    return venue(
        levels=(("F0", box(0, 0, 40, 14)),),
        shops=(shop("west", "F0", 0, 8, 10, 14, door=(4, 6)), shop("east", "F0", 30, 8, 40, 14, door=(34, 36))),
        units=(
            Unit(id="south", level_id="F0", category="nonpublic", polygon=box(15, 0, 25, 3.4)),
            Unit(id="north", level_id="F0", category="nonpublic", polygon=box(15, 4.6, 25, 14)),
        ),
        entrances=((1.0, 2.0), (39.0, 2.0)),
    )


def test_opposite_streams_get_through_a_narrow_passage() -> None:
    crowd = Crowd(passage(), QUIET, seed=1)
    for k in range(40):
        stand_in(crowd, 2.0 + 1.2 * (k % 10), 1.0 + 1.4 * (k // 10), place="east")
        stand_in(crowd, 27.0 + 1.2 * (k % 10), 1.0 + 1.4 * (k // 10), place="west")
    for _ in range(int(240 / TICK_S)):
        crowd.step()
    a = crowd.agents
    assert (a.mode == STAYING).all()
    east = np.array([crowd.places.name[p] == "east" for p in a.place])
    assert (a.x[east] > 30).all()
    assert (a.x[~east] < 10).all()
    assert crowd.report().stuck == ()


@pytest.mark.parametrize("wall", [False, True])
def test_two_face_to_face_change_places_unless_a_wall_parts_them(wall: bool) -> None:
    x, y = np.array([1.0, 1.35]), np.array([1.0, 1.0])
    level, mode, cell = np.zeros(2, np.uint8), np.zeros(2, np.uint8), np.zeros(2, np.int32)
    walls = np.array([[1.2, 0.0, 1.2, 2.0]]) if wall else np.zeros((0, 4))
    start, order = kernels.sort_into_cells(x, y, level, np.ones(2, np.bool_), 0.0, 0.0, 2.0, 1, 1, 1)
    slow = np.full(2, kernels.EXCHANGE_S + 0.1)
    pairs = kernels.exchange(
        x, y, level, mode, cell, slow, np.array([1.0, -1.0]), np.zeros(2), start, order, 0.0, 0.0, 2.0, 1, 1,
        np.zeros(1, np.int32), walls, np.array([0, len(walls)], np.int32), np.zeros(len(walls), np.int32),
    )  # fmt: skip
    assert pairs == (0 if wall else 1)
    assert x.tolist() == ([1.0, 1.35] if wall else [1.35, 1.0])


def test_two_who_want_the_same_way_do_not_change_places() -> None:
    x, y = np.array([1.0, 1.35]), np.array([1.0, 1.0])
    level, mode, cell = np.zeros(2, np.uint8), np.zeros(2, np.uint8), np.zeros(2, np.int32)
    start, order = kernels.sort_into_cells(x, y, level, np.ones(2, np.bool_), 0.0, 0.0, 2.0, 1, 1, 1)
    assert not kernels.exchange(
        x, y, level, mode, cell, np.full(2, 9.0), np.ones(2), np.zeros(2), start, order, 0.0, 0.0, 2.0, 1, 1,
        np.zeros(1, np.int32), np.zeros((0, 4)), np.zeros(2, np.int32), np.zeros(0, np.int32),
    )  # fmt: skip


def test_a_standing_crowd_is_walked_around_where_there_is_another_way() -> None:
    """A block in the middle of a hall: the way past its south side is shorter until people stand there."""
    hall = venue(
        levels=(("F0", box(0, 0, 40, 20)),),
        shops=(shop("far", "F0", 30, 14, 40, 20, door=(33, 37)),),
        units=(Unit(id="block", level_id="F0", category="structure", polygon=box(15, 4, 25, 14)),),
        entrances=((1.0, 4.0),),
    )
    ground = survey(hall)
    places = find_places(hall, Demand(hourly=(0.0,)), ground)
    ways = Ways(ground, places, link_levels(hall, ground))
    far = places.name.index("far")
    cell = int(ground.near(0, (8.0, 7.0), 1.0)[0])

    def heads_north() -> bool:
        ways.solved[far] = False
        ways.solve(far)
        return bool(0 < ways.angle[ways.shift[far] + cell] < 128)

    crowd_south = (ground.x > 15) & (ground.x < 25) & (ground.y < 4)
    crowd_north = (ground.x > 15) & (ground.x < 25) & (ground.y > 14)
    ways.feel(np.where(crowd_south, 6, 1).astype(np.int32))
    assert heads_north()
    ways.feel(np.where(crowd_north, 6, 1).astype(np.int32))
    assert not heads_north()


@pytest.mark.data
def test_in_a_real_mall_of_four_levels_thousands_walk_and_nobody_is_stuck() -> None:
    root = os.environ.get("ESPLANADE_DATA")
    if root is None:
        pytest.skip("ESPLANADE_DATA does not name the folder with the real malls")
    from spatial.importers.malls import read_site

    mall = read_site(Path(root) / "malls" / "site2").venue
    crowd = Crowd(mall, Demand(hourly=(0.0,), prefill=6000, hold_population=True, settle_s=20.0), seed=1)
    crowd.prefill()
    for _ in range(900):
        crowd.step()
    report = crowd.report()
    assert report.population == 6000
    assert report.stuck == ()
    assert report.max_overlap_m < 0.2
    assert len(np.unique(crowd.agents.level)) == 4
