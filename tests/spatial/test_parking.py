"""Bays and gates agree, or say by how much they do not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esplanade.core.errors import InvalidInput
from spatial.parking import BayReading, GateCount, Parking


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_both_counts_are_the_truth_whatever_the_order_repeats_and_lost_gate_reports(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bays = [f"B{i}" for i in range(20)]
    park = Parking(bays)
    taken: dict[str, bool] = dict.fromkeys(bays, False)
    totals, readings, reports = [0, 0], [BayReading(bay, 0, False) for bay in bays], []
    for step in range(1, 60):
        bay = bays[int(rng.integers(20))]
        taken[bay] = not taken[bay]
        totals[0 if taken[bay] else 1] += 1
        readings.append(BayReading(bay, step, taken[bay]))
        reports.append(GateCount("north", step, *totals))
    kept = [report for report in reports[:-1] if rng.random() < 0.5] + reports[-1:]
    assert park.read([readings[i] for i in rng.permutation(len(readings))] + readings[:5]) == []
    park.count(kept + kept[:3])
    compared = park.compare()
    assert (compared.taken, compared.inside, compared.unknown, compared.drift) == (sum(taken.values()), sum(taken.values()), 0, 0)
    assert park.free == 20 - sum(taken.values())


def test_a_gate_that_missed_cars_shows_as_drift_until_a_recount() -> None:
    park = Parking(["a", "b", "c"], inside=1)
    park.read([BayReading("a", 1, True), BayReading("b", 1, True), BayReading("c", 1, False)])
    assert (park.compare().drift, park.compare().agree) == (-1, False)
    assert park.recount() == 1
    assert park.compare().agree
    park.count([GateCount("g", 1, 3, 0)])
    assert [park.compare(moving_at_most=k).drift for k in (0, 2, 3)] == [3, 1, 0]


def test_bays_that_have_not_spoken_explain_cars_that_no_sensor_sees() -> None:
    park = Parking(["a", "b", "c"])
    park.read([BayReading("a", 1, True)])
    park.count([GateCount("g", 1, 3, 0)])
    assert (park.compare().unknown, park.compare().drift) == (2, 0)


def test_a_reading_of_no_bay_and_totals_that_go_down_are_refused() -> None:
    park = Parking(["a"])
    assert park.read([BayReading("z", 1, True)]) == [BayReading("z", 1, True)]
    assert park.count([GateCount("g", 1, 5, 2), GateCount("g", 2, 4, 2)]) == [GateCount("g", 2, 4, 2)]
    assert park.inside == 3
    with pytest.raises(InvalidInput):
        Parking(["a", "a"])
