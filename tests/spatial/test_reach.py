"""Walking times that are looked up are those of the router, to what a cell's width takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spatial.live import live_of
from spatial.profiles import WALK_MPS
from spatial.reach import NEAR_M, REACH_CELL_M, ReachField
from spatial.routes import Points
from spatial.routing import Router
from spatial.venue_files import load_venue

VENUE = load_venue(Path(__file__).parents[2] / "scenarios" / "venues" / "parkside_mall.json")


def test_looked_up_times_are_the_routers_within_a_cell_also_when_a_lift_and_a_shop_are_closed() -> None:
    router = Router.build(VENUE)
    rng = np.random.default_rng(3)
    samples = router.samples(2.0)
    rows = rng.integers(0, len(samples.level), 400)
    at = Points(samples.level[rows], samples.x_m[rows] + rng.uniform(-0.4, 0.4, 400), samples.y_m[rows] + rng.uniform(-0.4, 0.4, 400))
    for closed in ((), ("escalator-west-lower-up", "escalator-east-lower-up", "L1-room-1")):
        live = router.with_live(live_of(VENUE, closed)) if closed else router
        field = ReachField(live)
        exact = live.matrix(at, ["L1-room-1", "L0-room-3"])
        for k, place in enumerate(("L1-room-1", "L0-room-3")):
            looked_up = field.seconds(place, at.level, at.x_m, at.y_m)
            both = np.isfinite(looked_up) & np.isfinite(exact[:, k])
            if closed and k == 0:
                assert not np.isfinite(looked_up).any()
                continue
            assert both.mean() > 0.9
            off = np.abs(looked_up[both] - exact[both, k])
            assert np.median(off) <= REACH_CELL_M / WALK_MPS
            assert np.quantile(off, 0.95) <= 3 * REACH_CELL_M / WALK_MPS


def test_the_sample_of_a_point_is_the_nearest_of_its_level() -> None:
    field = ReachField(Router.build(VENUE))
    samples = field._points
    rng = np.random.default_rng(5)
    level, x, y = rng.integers(0, 4, 500), rng.uniform(-3, 185, 500), rng.uniform(8, 85, 500)
    found = field.nearest(level, x, y)
    away = np.hypot(samples.x_m[None] - x[:, None], samples.y_m[None] - y[:, None])
    away[samples.level[None] != level[:, None]] = np.inf
    assert ((found < 0) == (away.min(axis=1) > NEAR_M)).all()
    there = found >= 0
    assert away[there, found[there]] == pytest.approx(away.min(axis=1)[there])
    assert there.sum() > 300


def test_who_is_off_the_ground_or_nowhere_has_no_way() -> None:
    field = ReachField(Router.build(VENUE))
    nowhere = field.seconds("L0-room-3", np.array([1, 1, 255]), np.array([-500.0, np.nan, 90.0]), np.array([0.0, 1.0, 40.0]))
    assert np.isinf(nowhere).all()
