"""The nearest stores are those that a look at all of them finds."""

from __future__ import annotations

import math

import pytest

from esplanade.core.errors import InvalidInput
from scenarios.venues import make_mall
from spatial.plan import anchor_of
from spatial.stores import StoreIndex

MALL = make_mall.make()


@pytest.mark.parametrize("point", [(90.0, 48.0), (1.0, 40.0), (500.0, -3.0)])
def test_nearest_equals_a_look_at_all(point: tuple[float, float]) -> None:
    places = {o.unit_id: anchor_of(MALL, o.unit_id) for o in MALL.occupants}
    away = sorted(math.dist(point, (x, y)) for level, x, y in places.values() if level == 1)
    found = StoreIndex(MALL).nearest(1, *point, 12)
    assert [store.distance_m for store in found] == pytest.approx(away[:12])
    assert all(store.level == 1 and places[store.unit_id] == (1, store.x_m, store.y_m) for store in found)


def test_a_level_without_stores_has_none_and_a_level_that_is_not_there_is_refused() -> None:
    index = StoreIndex(MALL)
    assert index.nearest(0, 10.0, 10.0, 5) == []
    assert len(index.nearest(1, 10.0, 10.0, 1000)) == sum(u.level_id == "L0" for u in MALL.units if u.till)
    for level, x, k in ((4, 0.0, 1), (0, math.nan, 1), (0, 0.0, 0)):
        with pytest.raises(InvalidInput):
            index.nearest(level, x, 0.0, k)
