"""Fences that move with their owners, against the obvious way of keeping them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esplanade.core.errors import InvalidInput
from spatial.index import Sheets
from spatial.roaming import Roaming, RoamingFences

SHEETS = Sheets([("v", 2)])


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_meetings_are_those_of_all_pairs_measured(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 40
    fences = [Roaming(int(o), float(r), float(m), int(a), int(b)) for o, r, m, a, b in zip(
        rng.integers(0, 45, 8), rng.integers(0, 15, 8), rng.integers(0, 4, 8), rng.integers(0, 2, 8), rng.integers(0, 3, 8), strict=True)]  # fmt: skip
    watch = RoamingFences(SHEETS, fences)
    ids, tags = rng.permutation(n), rng.integers(0, 4, n).astype(np.uint64)
    xy = np.round(rng.uniform(0, 30, (n, 2)))
    inside: set[tuple[int, int]] = set()
    for _ in range(12):
        xy = xy + rng.integers(-2, 3, (n, 2))
        sheet = np.where(rng.random(n) < 0.1, -1, (rng.random(n) < 0.2).astype(int))
        x = np.where(rng.random(n) < 0.02, np.nan, xy[:, 0])
        met = watch.step(ids, sheet, x, xy[:, 1], tags=tags)
        now = set()
        for f, fence in enumerate(fences):
            for owner in np.flatnonzero((ids == fence.owner) & (sheet >= 0) & np.isfinite(x)):
                for other in np.flatnonzero((sheet == sheet[owner]) & np.isfinite(x)):
                    bits = int(tags[other])
                    if other == owner or bits & fence.all_of != fence.all_of or bits & fence.none_of:
                        continue
                    away = float(np.hypot(x[other] - x[owner], xy[other, 1] - xy[owner, 1]))
                    pair = (f, int(ids[other]))
                    if away <= fence.radius_m or (pair in inside and away <= fence.radius_m + fence.margin_m):
                        now.add(pair)
        assert [tuple(pair) for pair in met.entered.tolist()] == sorted(now - inside)
        assert [tuple(pair) for pair in met.exited.tolist()] == sorted(inside - now)
        inside = now
    assert [tuple(pair) for pair in watch.inside.tolist()] == sorted(inside)


def test_a_radius_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidInput, match="roaming fence 1"):
        RoamingFences(SHEETS, [Roaming(1, 5.0), Roaming(2, float("nan"))])
