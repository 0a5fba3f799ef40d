"""Lifts, escalators and stairs, as claims: how many they carry, how fast, who may take them, and what a checkpoint keeps."""

from __future__ import annotations

import numpy as np
import pytest
from shapely.geometry import box

from esplanade.core.errors import InvalidInput
from simulation.floor import Floor
from simulation.placing import spread
from simulation.transport import FREE_MPS, Connector, Escalator, Lift, Stairs, Transport, join_levels
from simulation.walkers import Goal, Walkers

HALL = box(0, 0, 30, 10)


def storeys(connectors: list[Connector], *, levels: int = 2, jam_s: float | None = None) -> tuple[Walkers, Transport]:
    """Halls one above the other; goal 0 is in the east of the highest, goal 1 there without steps, goal 2 in the east of the lowest."""
    floor = join_levels(Floor.of([HALL] * levels), connectors)
    transport = Transport(floor, connectors)
    top = levels - 1
    goals = [
        Goal("top", top, box(25, 3, 29, 7)), Goal("top step-free", top, box(25, 3, 29, 7), step_free=True), Goal("bottom", 0, box(25, 3, 29, 7)),
    ]  # fmt: skip
    return Walkers(floor, goals, hops=transport, most_radius_m=0.4, jam_s=jam_s, lazy=True), transport


def crowd(walkers: Walkers, n: int, *, goal: int = 0, level: int = 0, radius_m: float = 0.2, seed: int = 1) -> list[int]:
    place = spread(HALL, n, rng=np.random.default_rng(seed), within=box(4, 1, 12, 9), radius_m=radius_m)
    return walkers.add(place[:, 0], place[:, 1], goal=goal, level=level, radius_m=radius_m).tolist()


def empty(walkers: Walkers, transport: Transport, *, limit_s: float = 900.0) -> list[float]:
    """Step until all have left; when each did."""
    left = []
    while (len(walkers) or transport.riders) and walkers.time_s < limit_s:
        walkers.step()
        left += [walkers.time_s] * len(walkers.left_now)
    assert not len(walkers)
    assert not transport.riders
    return left


def test_a_lift_carries_no_more_than_its_room_and_makes_the_trips_that_this_takes() -> None:
    walkers, transport = storeys([Lift("lift", ((0, 2.0, 5.0), (1, 2.0, 5.0)), capacity=6)])
    crowd(walkers, 24)
    most = 0
    while (len(walkers) or transport.riders) and walkers.time_s < 900:
        walkers.step()
        most = max(most, len(transport.riders))
    car = transport.cars[0]
    assert car is not None
    assert walkers.report().left["top"] == 24
    assert most == 6
    # Up four times at least, and down again three times.
    assert 7 <= car.trips <= 11
    waits = [wait for _, _, wait in transport.boarded]
    assert len(waits) == 24
    assert max(waits) > 60.0 > min(waits)


def test_a_lift_takes_people_both_ways_and_between_all_its_stops() -> None:
    walkers, transport = storeys([Lift("lift", ((0, 2.0, 5.0), (1, 2.0, 5.0), (2, 2.0, 5.0)))], levels=3)
    crowd(walkers, 8, goal=0, level=0)
    crowd(walkers, 8, goal=0, level=1)
    crowd(walkers, 8, goal=2, level=2)
    empty(walkers, transport)
    assert walkers.report().left == {"top": 16, "top step-free": 0, "bottom": 8}
    assert walkers.report().ever_stuck == 0  # to wait is not to be stuck


@pytest.mark.parametrize(("width_m", "speed_mps", "per_h"), [(1.0, 0.5, 6000), (0.6, 0.5, 3600), (1.0, 0.75, 8200)])
def test_an_escalator_carries_what_the_standard_says(width_m: float, speed_mps: float, per_h: int) -> None:
    walkers, transport = storeys([Escalator("up", (0, 14.0, 5.0), (1, 4.0, 5.0), speed_mps=speed_mps, width_m=width_m)])
    crowd(walkers, 90)
    empty(walkers, transport)
    steps = np.sort([step for step, _, _ in transport.boarded]) * walkers.step_s
    busy = (steps > steps[15]) & (steps <= steps[75])
    carried = busy.sum() / (steps[75] - steps[15])
    assert carried <= 1.01 * per_h / 3600
    assert carried >= 0.8 * min(per_h / 3600, 1.6)  # the crowd presses on no faster than the model lets it


def test_who_walks_on_an_escalator_is_off_sooner_and_who_stands_rides_for_its_length() -> None:
    rides = {}
    for share in (0.0, 1.0):
        walkers, transport = storeys([Escalator("up", (0, 14.0, 5.0), (1, 4.0, 5.0), length_m=12.0, walking_share=share)])
        crowd(walkers, 1)
        while not transport.riders:
            walkers.step()
        rides[share] = (transport.riders[0][0] - walkers.step_number) * walkers.step_s
    assert rides[0.0] == pytest.approx(24.0, abs=0.1)
    assert rides[1.0] == pytest.approx(12.0 / 1.1, abs=0.1)


@pytest.mark.parametrize(("way", "mps"), [("up", 0.61), ("down", 0.69)])
def test_stairs_of_30_degrees_are_walked_at_weidmanns_speeds(way: str, mps: float) -> None:
    stairs = Stairs("stairs", (0, 14.0, 5.0), (1, 4.0, 5.0), length_m=9.0)
    walkers, transport = storeys([stairs])
    if way == "up":
        crowd(walkers, 1, goal=0, level=0)
    else:
        crowd(walkers, 1, goal=2, level=1)
    while not transport.riders:
        walkers.step()
    assert (transport.riders[0][0] - walkers.step_number) * walkers.step_s == pytest.approx(9.0 / mps, abs=0.1)
    steeper = Stairs("steeper", (0, 14.0, 5.0), (1, 4.0, 5.0), slope_deg=35.0)
    assert steeper.mps(way) < stairs.mps(way) < Stairs("ramp", (0, 0.0, 0.0), (1, 0.0, 0.0), slope_deg=4.0).mps(way) == FREE_MPS


def test_wheels_take_the_lift_where_others_take_the_escalator_and_are_refused_where_there_is_none() -> None:
    lift = Lift("lift", ((0, 2.0, 2.0), (1, 2.0, 2.0)), capacity=8)
    escalator = Escalator("escalator", (0, 14.0, 5.0), (1, 20.0, 5.0))
    walkers, transport = storeys([lift, escalator])
    crowd(walkers, 3, goal=1, radius_m=0.4)
    for x in (5.0, 6.0, 7.0):
        walkers.add([x + 8.0], [1.0], goal=0)
    empty(walkers, transport)
    by = [which for _, which, _ in transport.boarded]
    assert by.count(0) == 3
    assert by.count(1) == 3
    car = transport.cars[0]
    assert car is not None
    assert car.trips == 3  # a wheelchair takes the room of four people: two trips up and one down
    walkers, _ = storeys([escalator])
    with pytest.raises(InvalidInput, match="no way leads to goal top step-free"):
        crowd(walkers, 1, goal=1, radius_m=0.4)


def test_a_closed_connector_takes_nobody_more_and_people_go_another_way() -> None:
    walkers, transport = storeys([Escalator("near", (0, 14.0, 5.0), (1, 20.0, 5.0)), Stairs("far", (0, 2.0, 8.0), (1, 2.0, 8.0))])
    crowd(walkers, 30)
    while len(transport.boarded) < 12:
        walkers.step()
    before = [which for _, which, _ in transport.boarded].count(0)
    assert 0 < before < 12  # the stairs are nearer for some
    transport.close(["near"])
    walkers.find_ways()
    empty(walkers, transport)
    by = [which for _, which, _ in transport.boarded]
    assert by.count(0) == before
    assert by.count(1) == 30 - before
    with pytest.raises(InvalidInput, match="connector 'other': there are near, far"):
        transport.close(["other"])


def test_from_a_checkpoint_the_cars_go_on_to_the_same_bits() -> None:
    connectors: list[Connector] = [Lift("lift", ((0, 2.0, 5.0), (1, 2.0, 5.0)), capacity=4), Escalator("up", (0, 14.0, 5.0), (1, 20.0, 5.0))]
    one, _ = storeys(connectors, jam_s=2.0)
    crowd(one, 20, goal=1)
    one.step(900)
    saved = one.checkpoint()
    other, _ = storeys(connectors, jam_s=2.0)
    other.resume(saved)
    for walkers in (one, other):  # the ways of goal 0 are found after it only, with the jams and queues that were felt before
        walkers.send(walkers.rows["id"][:4], 0)
        walkers.step(600)
    assert one.digest() == other.digest()
    third, _ = storeys(connectors, jam_s=2.0)
    third.resume(saved)
    third.step(600)
    assert third.digest() != one.digest()


@pytest.mark.parametrize(
    ("connector", "says"),
    [
        (Lift("lift", ((0, 2.0, 5.0),)), "connector lift.*two stops or more"),
        (Lift("lift", ((1, 2.0, 5.0), (0, 2.0, 5.0))), "lift lift: stops on levels"),
        (Escalator("up", (0, 2.0, 5.0), (1, 2.0, 5.0), width_m=0.7), "connector up.*width 0.6, 0.8 or 1.0 m"),
        (Escalator("up", (0, 2.0, 5.0), (0, 9.0, 5.0)), "both ends on level 0"),
        (Escalator("up", (0, 40.0, 5.0), (1, 9.0, 5.0)), r"connector up: stop \(40.0, 5.0\) of level 0 is off"),
        (Stairs("stairs", (0, 2.0, 5.0), (3, 9.0, 5.0)), "a stop on level 3; there are levels 0 to 1"),
        (Stairs("stairs", (0, 2.0, 5.0), (1, 9.0, 5.0), slope_deg=60.0), "slope 0 to 6"),
    ],
)
def test_a_connector_that_cannot_be_is_named(connector: Connector, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        storeys([connector])
