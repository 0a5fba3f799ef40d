"""The kernels say the same as their slow twins, and as SciPy."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from simulation import chance, ground_kernels, kernels
from simulation.ground import CELL_M, survey
from tests.simulation import twins
from tests.simulation.venues import arcade, corridor

SEEDS = st.integers(0, 2**32 - 1)


@given(seed=st.integers(0, 2**63 - 1), subject=st.integers(0, 2**32 - 1), event=st.integers(0, 2**40))
def test_the_kernel_draws_the_same_chance_as_python(seed: int, subject: int, event: int) -> None:
    assert kernels.hash01(seed, subject, event) == chance.uniform(seed, subject, event)


def test_chance_is_uniform_and_streams_differ() -> None:
    drawn = np.array([chance.uniform(5, subject, event) for subject in range(200) for event in range(50)])
    counts = np.histogram(drawn, bins=20, range=(0, 1))[0]
    assert ((counts - 500.0) ** 2 / 500.0).sum() < 43.8  # chi-squared, 19 degrees of freedom, 0.1 %
    assert len(np.unique(drawn)) == len(drawn)


def test_poisson_quantiles_have_the_mean() -> None:
    drawn = [chance.poisson(chance.uniform(1, k, 0), 3.0) for k in range(20_000)]
    assert abs(np.mean(drawn) - 3.0) < 0.05
    assert abs(np.var(drawn) - 3.0) < 0.15


@settings(max_examples=60)
@given(seed=SEEDS, n=st.integers(1, 60), side=st.floats(1.5, 12.0))
def test_a_step_equals_the_slow_twin(seed: int, n: int, side: float) -> None:
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, side, (n, 2))
    turn = rng.uniform(0, 2 * np.pi, (2, n))
    wish, heading = (np.stack([np.cos(t), np.sin(t)], axis=1) for t in turn)
    speed = np.where(rng.random(n) < 0.2, 0.0, rng.uniform(0.5, 1.7, n))
    slow = rng.uniform(0, 1.0, n)
    level, present = np.zeros(n, np.uint8), np.ones(n, np.bool_)
    cells = int(side / kernels.SIGHT_M) + 1
    start, order = kernels.sort_into_cells(xy[:, 0].copy(), xy[:, 1].copy(), level, present, 0.0, 0.0, kernels.SIGHT_M, cells, cells, 1)
    out = np.zeros((5, n))
    kernels.advance(
        xy[:, 0].copy(), xy[:, 1].copy(), level, np.arange(n, dtype=np.uint32), present, wish[:, 0].copy(), wish[:, 1].copy(), speed,
        heading[:, 0].copy(), heading[:, 1].copy(), slow, np.zeros(n, np.int32), start, order, 0.0, 0.0, kernels.SIGHT_M, cells, cells,
        0.0, 0.0, side + 1.0, 1, 1, np.zeros((0, 4)), np.zeros(2, np.int32), np.zeros(0, np.int32), 0.1, 1, *out,
    )  # fmt: skip
    moved, turned = twins.advance(xy, wish, speed, heading, slow, 0.1)
    np.testing.assert_allclose(out[:2].T, moved, atol=1e-9)
    np.testing.assert_allclose(out[2:4].T, turned, atol=1e-9)


@settings(max_examples=200)
@given(seed=SEEDS)
def test_a_confined_step_never_meets_a_wall(seed: int) -> None:
    rng = np.random.default_rng(seed)
    walls = rng.uniform(0, 3, (12, 4))
    start, item = ground_kernels.list_walls(walls, np.zeros(12, np.int32), 0.0, 0.0, 3.0, 1, 1, 1, 9.0)
    p = rng.uniform(0, 3, (200, 2))
    q = p + rng.normal(0, 0.15, (200, 2))
    ends = np.array([ground_kernels.confine(*a, *b, 0, walls, start, item) for a, b in zip(p, q, strict=True)])
    moved = (ends != p).any(axis=1)
    assert not len(twins.crossings(p[moved], ends[moved], walls))


def test_links_meet_no_wall_and_missing_links_do() -> None:
    ground = survey(arcade())
    for d in range(8):
        g = ground.raster + ground_kernels.DY[d] * ground.nx + ground_kernels.DX[d]
        other = ground.cid[g]
        rows = np.flatnonzero(other >= 0)
        a = np.stack([ground.x[rows], ground.y[rows]], axis=1)
        b = np.stack([ground.x[other[rows]], ground.y[other[rows]]], axis=1)
        level = np.searchsorted(ground.first, rows, side="right") - 1
        linked = (ground.links[rows] >> d & 1).astype(bool)
        for i in range(ground.levels):
            mine = level == i
            meets = np.zeros(int(mine.sum()), bool)
            meets[twins.crossings(a[mine], b[mine], ground.walls[ground.wall_level == i])] = True
            np.testing.assert_array_equal(linked[mine], ~meets)


def test_distances_lie_between_the_straight_line_and_the_way_from_cell_to_cell() -> None:
    ground = survey(corridor())
    n = len(ground.x)
    seeds = ground.near(0, (45.0, 8.0), 0.5)
    distance, _ = ground_kernels.solve_field(
        0, n, seeds, ground.raster, ground.cid, ground.links, ground.clearance, ground.spare, np.ones(len(ground.x), np.int32), ground.nx, CELL_M
    )
    rows, cols, length = [], [], []
    for d in range(8):
        a = np.flatnonzero(ground.links >> d & 1)
        rows.append(a)
        cols.append(ground.cid[ground.raster[a] + ground_kernels.DY[d] * ground.nx + ground_kernels.DX[d]])
        length.append(np.full(len(a), CELL_M * (1.0 if d % 2 == 0 else 2**0.5)))
    graph = csr_array((np.concatenate(length), (np.concatenate(rows), np.concatenate(cols))), shape=(n, n))
    stepwise = dijkstra(graph, indices=seeds, min_only=True)
    straight = np.min(np.hypot(ground.x[:, None] - ground.x[seeds], ground.y[:, None] - ground.y[seeds]), axis=1)
    reached = distance != ground_kernels.FAR
    np.testing.assert_array_equal(reached, np.isfinite(stepwise))
    assert (distance[reached] * 0.1 >= straight[reached] - 0.06).all()
    # Keeping off walls makes ways a little longer than the shortest, most so from cells right at a wall.
    assert (distance[reached] * 0.1 <= stepwise[reached] * 1.1 + 0.8).all()


def test_in_open_ground_the_field_points_straight_to_its_goal() -> None:
    ground = survey(corridor())
    goal = ground.near(0, (30.0, 2.0), 0.4)[:1]
    _, angle = ground_kernels.solve_field(
        0,
        len(ground.x),
        goal,
        ground.raster,
        ground.cid,
        ground.links,
        ground.clearance,
        ground.spare,
        np.ones(len(ground.x), np.int32),
        ground.nx,
        CELL_M,
    )
    cells = np.flatnonzero((ground.x > 12) & (ground.x < 28) & (ground.y > 0.8) & (ground.y < 3.2))
    true = np.arctan2(ground.y[goal] - ground.y[cells], ground.x[goal] - ground.x[cells])
    off = np.abs((angle[cells] * np.pi / 128 - true + np.pi) % (2 * np.pi) - np.pi)
    assert off.max() < 0.02
