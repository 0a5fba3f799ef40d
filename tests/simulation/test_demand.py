"""Who comes, where they go, what they buy: the demand's promises, and determinism."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from esplanade.core.errors import Conflict, InvalidInput, LimitExceeded
from simulation.agents import STAYING
from simulation.demand import Demand, FlashPull
from simulation.engine import Crowd
from spatial.columns import LEFT
from tests.simulation.venues import arcade, box, corridor, festival, venue

FULL = Demand(hourly=(0.0,), prefill=120, hold_population=True, settle_s=2.0, stay_s=(15.0, 0.5), buy_probability=0.8)


def fingerprint(seed: int, demand: Demand = FULL, ticks: int = 300) -> str:
    crowd = Crowd(arcade(), demand, seed=seed)
    crowd.prefill()
    digest = hashlib.sha256()
    for _ in range(ticks):
        result = crowd.step()
        for part in (*result.positions.pack(), result.arrived, result.left, result.purchases.subject, result.purchases.unit, result.purchases.amount):
            digest.update(bytes(part))
    digest.update(repr(crowd.report()).encode())
    return digest.hexdigest()


def test_the_same_seed_gives_the_same_crowd_to_the_bit_and_another_seed_another() -> None:
    first = fingerprint(1)
    assert fingerprint(1) == first
    assert fingerprint(2) != first


def test_arrivals_are_deterministic_too() -> None:
    demand = Demand(hourly=(3600.0, 1800.0), stay_s=(15.0, 0.5))
    assert fingerprint(4, demand, 200) == fingerprint(4, demand, 200)


def test_arrivals_follow_the_curve_as_a_poisson_process() -> None:
    demand = Demand(hourly=(1200.0, 3600.0, 600.0), stay_s=(5.0, 0.3), stops=1.0, start_hour=8.9)
    crowd = Crowd(corridor(), demand, seed=7)
    counts = np.array([len(crowd.step().arrived) + 0 for _ in range(7200)])
    expected = 0.1 * 1200 + 0.1 * 3600
    assert abs(counts.sum() + crowd.report().waiting_outside - expected) < 4 * np.sqrt(expected)
    minutes = counts.reshape(12, 600).sum(axis=1)
    assert minutes[:6].mean() == pytest.approx(20, rel=0.35)
    assert minutes[6:].mean() == pytest.approx(60, rel=0.25)


def test_expected_arrivals_add_up_to_the_curve_and_stop_at_closing() -> None:
    crowd = Crowd(corridor(), Demand(hourly=(100.0, 300.0), open_hour=9.0, start_hour=9.0), seed=1)
    assert crowd.expected(36_000) == pytest.approx(100)
    assert crowd.expected(54_000) == pytest.approx(250)
    assert crowd.expected(10**6) == pytest.approx(400)


def test_beyond_the_cap_arrivals_are_turned_away_and_counted() -> None:
    crowd = Crowd(corridor(), Demand(hourly=(36_000.0,), population_cap=10, stay_s=(600.0, 0.2)), seed=1)
    refused = 0
    for _ in range(300):
        refused += crowd.step().turned_away
        assert crowd.population <= 10
    assert crowd.population == 10
    assert refused == crowd.report().turned_away > 100


def test_hold_population_replaces_every_leaver_in_the_same_tick() -> None:
    crowd = Crowd(arcade(), Demand(hourly=(0.0,), prefill=100, hold_population=True, settle_s=1.0, stay_s=(5.0, 0.5), stops=1.0), seed=1)
    crowd.prefill()
    left = 0
    for _ in range(600):
        result = crowd.step()
        left += len(result.left)
        assert crowd.population == 100
    assert left > 20


def test_rows_ascend_name_leavers_once_and_number_arrivals_in_order() -> None:
    crowd = Crowd(arcade(), FULL, seed=1)
    crowd.prefill()
    assert crowd.tick == 0
    inside: set[int] = set()
    last = 0
    for k in range(300):
        result = crowd.step()
        rows = result.positions
        assert result.tick == k + 1
        assert (np.diff(rows.subject.astype(np.int64)) > 0).all()
        arrived, left = set(result.arrived.tolist()), set(result.left.tolist())
        if arrived:
            assert sorted(arrived) == list(range(last + 1, last + 1 + len(arrived)))
            last = max(arrived)
        assert left <= inside
        inside = (inside | arrived) - left
        assert set(rows.subject[rows.level == LEFT].tolist()) == left
        assert set(rows.subject[rows.level != LEFT].tolist()) == inside
    assert len(inside) == crowd.population == 120


def test_purchases_happen_only_in_units_with_a_till_by_people_who_are_in_them() -> None:
    crowd = Crowd(arcade(last_till=False), FULL, seed=3)
    crowd.prefill()
    bought = 0
    for _ in range(1200):
        at = {int(s): int(crowd.ground.unit[c]) for s, c in zip(crowd.agents.subject, crowd.agents.cell, strict=True)}
        result = crowd.step()
        for subject, unit, amount in zip(result.purchases.subject, result.purchases.unit, result.purchases.amount, strict=True):
            assert crowd.venue.units[unit].till
            assert at[int(subject)] == unit
            assert amount >= 1
            bought += 1
    assert bought > 50


def test_nobody_buys_where_the_probability_is_nought() -> None:
    crowd = Crowd(arcade(), Demand(hourly=(0.0,), prefill=60, hold_population=True, settle_s=1.0, stay_s=(5.0, 0.5), buy_probability=0.0), seed=3)
    crowd.prefill()
    assert sum(len(crowd.step().purchases) for _ in range(300)) == 0


def at_shop(pulls: tuple[FlashPull, ...]) -> tuple[int, int]:
    demand = Demand(hourly=(0.0,), prefill=150, hold_population=True, settle_s=1.0, stay_s=(120.0, 0.5), pulls=pulls)
    crowd = Crowd(arcade(), demand, seed=5)
    crowd.prefill()
    for _ in range(900):
        crowd.step()
    shop = next(i for i, unit in enumerate(crowd.venue.units) if unit.id == "F0-s2")
    return int((crowd.ground.unit[crowd.agents.cell] == shop).sum()), crowd.report().pulled


def test_a_flash_pull_raises_the_number_at_the_shop() -> None:
    before, nobody = at_shop(())
    after, pulled = at_shop((FlashPull(tick=50, unit_id="F0-s2", pull=0.9, decay_m=200.0, until_tick=5000),))
    assert nobody == 0
    assert pulled > 40
    assert after > before + 15


def test_a_pull_beyond_the_room_of_shop_and_front_is_refused_and_counted() -> None:
    small = venue(
        levels=(("F0", box(0, 0, 60, 12)),),
        shops=(corridor_shop("tiny", 0, 3), corridor_shop("big", 20, 60)),
        entrances=((1.0, 1.0), (58.0, 1.0)),
    )
    demand = Demand(
        hourly=(0.0,),
        prefill=220,
        hold_population=True,
        settle_s=1.0,
        pulls=(FlashPull(tick=5, unit_id="tiny", pull=1.0, decay_m=1e6, until_tick=900),),
    )
    crowd = Crowd(small, demand, seed=5)
    crowd.prefill()
    for _ in range(10):
        crowd.step()
    report = crowd.report()
    assert report.pull_refused > 0
    assert (crowd.bound[crowd.places.weight > 0] <= crowd.places.capacity[crowd.places.weight > 0]).all()


def corridor_shop(name: str, x0: float, x1: float):  # type: ignore[no-untyped-def]
    from tests.simulation.venues import shop

    return shop(name, "F0", x0, 6, x1, 12, door=(x0 + 1, x0 + 2.2))


def test_at_a_festival_people_stand_at_bars_and_in_front_of_the_stage() -> None:
    crowd = Crowd(festival(), Demand(hourly=(0.0,), prefill=150, hold_population=True, settle_s=2.0), seed=1)
    crowd.prefill()
    for _ in range(300):
        crowd.step()
    a = crowd.agents
    stay = a.mode == STAYING
    names = np.array([crowd.places.name[p] for p in a.place])
    front = stay & (names == "front")
    assert front.sum() > 20
    assert ((a.x[front] > 18) & (a.x[front] < 42) & (a.y[front] > 18)).mean() > 0.95
    bar = stay & (names == "bar0")
    assert bar.sum() > 5
    assert (np.hypot(a.x[bar] - 13, a.y[bar] - 3.5) < 9).all()


def test_most_people_are_in_shops_after_prefill_and_bodies_have_room() -> None:
    crowd = Crowd(arcade(), Demand(hourly=(0.0,), prefill=300, hold_population=True, settle_s=5.0), seed=1)
    done: list[float] = []
    crowd.prefill(done.append)
    assert done == sorted(done)
    assert done[-1] == 1.0
    report = crowd.report()
    assert report.population == 300
    assert report.staying > 200
    assert report.overlapping == 0


def test_prefill_beyond_the_room_is_refused_and_a_second_one_too() -> None:
    with pytest.raises(LimitExceeded, match="prefill of 5000"):
        Crowd(corridor(), Demand(hourly=(0.0,), prefill=5000, settle_s=1.0), seed=1).prefill()
    crowd = Crowd(corridor(), Demand(hourly=(0.0,), prefill=5, settle_s=1.0), seed=1)
    crowd.prefill()
    with pytest.raises(Conflict, match="call it once"):
        crowd.prefill()


def test_a_venue_that_nobody_can_enter_or_visit_is_refused_with_the_remedy() -> None:
    with pytest.raises(InvalidInput, match="add an entrance"):
        Crowd(corridor().model_copy(update={"entrances": ()}), FULL, seed=1)
    with pytest.raises(InvalidInput, match="nothing to visit"):
        Crowd(corridor().model_copy(update={"occupants": ()}), FULL, seed=1)
    with pytest.raises(InvalidInput, match="no unit of venue"):
        Crowd(corridor(), Demand(hourly=(0.0,), pulls=(FlashPull(tick=1, unit_id="nowhere", until_tick=2),)), seed=1)
    with pytest.raises(InvalidInput, match="population_cap"):
        Crowd(corridor(), Demand(hourly=(0.0,), prefill=10, population_cap=5), seed=1)
