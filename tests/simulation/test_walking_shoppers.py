"""A crowd of walkers in the place of the cheap one: its ticks are what the load generator sends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from esplanade.core.errors import Conflict, InvalidInput
from simulation.demand import Demand, FlashPull
from simulation.load import Splitter
from simulation.walking_shoppers import WalkingShoppers
from spatial.columns import LEFT
from tests.simulation.venues import arcade

SECONDS = 90.0
DEMAND = Demand(
    open_hour=10.0, hourly=(900.0, 900.0), start_hour=10.5, prefill=30, settle_s=10.0, stops=1.0, stay_s=(20.0, 0.5), buy_probability=0.5,
    pulls=(FlashPull(tick=300, unit_id="F1-s2", pull=1.0, decay_m=1e4, until_tick=900),),
)  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("venue") / "arcade.json"
    path.write_text(arcade(last_till=False).model_dump_json())
    return path


def _crowd(file: Path, **changes: Any) -> WalkingShoppers:
    return WalkingShoppers(file, msgspec.structs.replace(DEMAND, **changes), seed=6, seconds=SECONDS)


def test_every_tick_tells_where_everybody_is_who_left_and_what_was_bought(file: Path) -> None:
    crowd, again = _crowd(file), _crowd(file)
    crowd.prefill()
    again.prefill()
    with pytest.raises(Conflict, match="once"):
        crowd.prefill()
    inside: set[int] = set()
    gone: set[int] = set()
    bought = 0
    at_sale = np.zeros(2)
    sale = next(k for k, place in enumerate(crowd.study.places) if place.name == "F1-s2")
    splitter = Splitter(seed=6, people=5, processes=1)
    for tick in range(1, round(SECONDS * 10) + 1):
        result, same = crowd.step(), again.step()
        rows = result.positions
        assert result.tick == tick
        assert rows.pack() == same.positions.pack()
        assert (np.diff(rows.subject.astype(np.int64)) > 0).all()
        here = set(rows.subject[rows.level != LEFT].tolist())
        arrived, left = set(result.arrived.tolist()), set(result.left.tolist())
        assert here == (inside | arrived) - left
        assert not arrived & (inside | gone)
        assert left == set(rows.subject[rows.level == LEFT].tolist()) == inside - here
        assert set(result.purchases.subject.tolist()) <= inside | arrived
        assert [crowd.venue.units[k].till for k in result.purchases.unit.tolist()] == [True] * len(result.purchases)
        assert (result.purchases.amount >= 1).all()
        inside, gone, bought = here, gone | left, bought + len(result.purchases)
        if tick in (290, 900):
            at_sale[tick // 900] = crowd.study.bound[sale]
        feed, (client,) = splitter.split(tick, rows, result.purchases.subject, result.purchases.unit, result.purchases.amount)
        assert not set(feed.rows.subject.tolist()) & set(client.rows.subject.tolist())
    report = crowd.report()
    assert report.population == len(inside) == report.walking + report.staying + report.riding
    assert report.left == len(gone) >= 10
    assert report.purchases == bought >= 5
    assert report.max_overlap_m <= 0.01
    assert at_sale[1] >= at_sale[0] + 10  # a sale with a pull of 1 draws whom it has room for
    assert splitter.websocket_people >= 5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hold_population": True}, "hold_population"),
        ({"population_cap": 1000}, "cap 1000.*raise the cap"),
        ({"stay_s": (0.0, 0.5)}, "median 0.0 s"),
        ({"pulls": (FlashPull(tick=1, unit_id="F9-s9", until_tick=9),)}, "F9-s9"),
    ],
)
def test_what_walkers_cannot_do_is_refused_by_name(file: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        _crowd(file, **changes)
