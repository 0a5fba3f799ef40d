"""Rows that are not looked up are where they were: the answers of `Settled`, kept, are those of `FenceSet.locate` at every step, on borders too."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial.columns import LEFT
from spatial.geofence import Corridor, FenceSet
from spatial.settled import Settled
from tests.spatial.test_geofence import star

PEOPLE = 300


@given(seed=st.integers(0, 2**32 - 1), stride_m=st.sampled_from([0.02, 0.3, 4.0]), cell_m=st.sampled_from([0.5, 1.0, 3.0]))
@settings(max_examples=20)
def test_what_is_kept_is_what_locate_answers_at_every_step(seed: int, stride_m: float, cell_m: float) -> None:
    rng = np.random.default_rng(seed)
    polygons = [(int(rng.integers(2)), [[star(rng, *rng.uniform(-15, 15, 2), 8, 9)]]) for _ in range(12)]
    circles = [(0, *rng.uniform(-15, 15, 2), 5.0)]
    fences = FenceSet.build(3, polygons, circles, [Corridor(1, [(-20.0, -3.0), (20.0, 5.0)], 1.5)], cell_m=cell_m)
    settled = Settled(fences)
    corners = np.concatenate([np.array(ring) for _, [[ring]] in polygons]).astype(np.float32)
    at = rng.uniform(-25, 25, (PEOPLE, 2))
    level = rng.integers(0, 3, PEOPLE).astype(np.uint8)
    row = rng.permutation(PEOPLE).astype(np.int32)
    held = np.full((PEOPLE, fences.width), -1, np.int32)
    looked = 0
    for step in range(12):
        at += rng.normal(0, stride_m, at.shape)
        change = rng.random(PEOPLE) < 0.03
        level[change] = rng.choice(np.array([0, 1, 2, LEFT], np.uint8), int(change.sum()))
        place = at.astype(np.float32)
        on_corner = rng.random(PEOPLE) < 0.05
        place[on_corner] = corners[rng.integers(0, len(corners), int(on_corner.sum()))]
        if step == 6:
            settled.forget(row[:10])
        index, found = settled.moved(PEOPLE, row, level, place[:, 0], place[:, 1], fences.width)
        held[index] = found
        looked += len(index) if step else 0
        np.testing.assert_array_equal(held, fences.locate(level, place[:, 0], place[:, 1]))
    if stride_m < 0.1 and cell_m < 3:
        assert looked < 0.8 * 11 * PEOPLE  # or it would be no use


@pytest.mark.parametrize("width", [1, 4])
def test_a_level_without_fences_is_looked_at_once(width: int) -> None:
    settled = Settled(FenceSet.build(2, [(0, [[[(0.0, 0.0), (4.0, 0.0), (4.0, 4.0)]]])]))
    for step, looked in enumerate((1, 0, 0)):
        index, found = settled.moved(1, np.zeros(1, np.int32), np.ones(1, np.uint8), np.full(1, 50.0 * step), np.zeros(1), width)
        assert (len(index), found.tolist()) == (looked, [[-1] * width] * looked)
