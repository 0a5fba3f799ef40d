"""Anchors seen from each other: the truth is found again among outliers, and who disagrees is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ar.pose import Poses
from ar.pose_graph import VENUE, Observations, refine
from esplanade.core.errors import InvalidInput, LimitExceeded


def random_poses(rng: np.random.Generator, n: int, spread_m: float, turn_rad: float) -> Poses:
    return Poses.exp(np.hstack([rng.normal(0, spread_m, (n, 3)), rng.normal(0, turn_rad, (n, 3))]))


def world(
    seed: int, *, n: int = 60, degree: int = 6, wrong: float = 0.2, reach: int = 0
) -> tuple[Poses, Poses, Observations, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Truth; where they were hosted (a fifth half a metre off); what was seen, `wrong` of it anywhere within metres; and which rows are wrong."""
    rng = np.random.default_rng(seed)
    truth = Poses.exp(np.hstack([rng.uniform(-20, 20, (n, 3)), rng.normal(0, 1.0, (n, 3))]))
    astray = rng.random(n) < 0.2
    hosted = truth @ random_poses(rng, n, 0.02, 0.01)
    hosted = Poses(hosted.translation_m + astray[:, None] * rng.normal(0, 0.8, (n, 3)), hosted.rotation)
    first = np.repeat(np.arange(n), degree)
    second = (first + rng.integers(1, reach or n, len(first))) % n  # `reach`: of those hosted one after another, as along a corridor
    exact = truth[first].inverse_mean() @ truth[second]
    seen = exact @ random_poses(rng, len(first), 0.01, 0.005)
    outlier = rng.random(len(first)) < wrong
    seen = Poses(seen.translation_m + outlier[:, None] * rng.normal(0, 3.0, (len(first), 3)), seen.rotation)
    rows = Observations(
        np.concatenate([np.full(n, VENUE), first]), np.concatenate([np.arange(n), second]),
        Poses(np.concatenate([hosted.translation_m, seen.translation_m]), np.concatenate([hosted.rotation, seen.rotation])),
        np.concatenate([np.full(n, 0.03), np.full(len(first), 0.015)]), np.concatenate([np.full(n, 0.015), np.full(len(first), 0.0075)]),
    )  # fmt: skip
    return truth, hosted, rows, np.concatenate([astray, outlier])


@pytest.mark.parametrize(("seed", "wrong"), [(0, 0.0), (1, 0.2), (2, 0.2), (3, 0.4)])
def test_the_truth_is_found_again_and_every_outlier_is_told(seed: int, wrong: float) -> None:
    truth, hosted, seen, outlier = world(seed, wrong=wrong)
    refined = refine(hosted, seen)
    metres, radians = refined.poses.distance(truth)
    assert metres.max() < 0.03
    assert np.rad2deg(radians).max() < 1.0
    assert metres.mean() < 0.5 * hosted.distance(truth)[0][~outlier[: len(truth)]].mean() + 0.005
    far = refined.error > 8  # a wrong one can by chance be nearly right
    assert set(np.flatnonzero(outlier & far)) <= set(refined.conflicts().tolist())
    assert (refined.weight[~outlier] == 1).mean() > 0.995
    assert outlier.any() == bool(far.any())


def test_of_two_hosts_of_one_thing_who_disagree_the_one_that_others_contradict_is_told() -> None:
    anchors = Poses.of([[0, 0, 0], [2, 0, 0], [4, 0, 0]], [[0, 0, 0, 1]] * 3)
    told = Poses.of([[0, 0, 0], [2, 0, 0], [4, 0, 0], [4.8, 0, 0], [2, 0, 0], [4, 0, 0]], [[0, 0, 0, 1]] * 6)
    seen = Observations(
        np.array([VENUE, VENUE, VENUE, VENUE, 0, 0]), np.array([0, 1, 2, 2, 1, 2]), told, np.full(6, 0.02), np.full(6, 0.01)
    )  # fmt: skip
    refined = refine(anchors, seen)
    assert refined.conflicts().tolist() == [3]
    assert refined.error[3] == pytest.approx(40, rel=0.05)
    assert refined.moved_m.max() < 0.001


def test_a_group_that_nothing_ties_to_the_venue_takes_its_shape_and_stays_where_it_was() -> None:
    start = Poses.of([[0, 0, 0], [1.3, 0, 0]], [[0, 0, 0, 1]] * 2)
    seen = Observations(np.array([0]), np.array([1]), Poses.of([1.0, 0, 0], [0, 0, 0, 1]), np.array([0.01]), np.array([0.01]))
    refined = refine(start, seen)
    assert np.linalg.norm(refined.poses.translation_m[1] - refined.poses.translation_m[0]) == pytest.approx(1.0, abs=1e-3)
    assert refined.poses.translation_m.mean(axis=0) == pytest.approx([0.65, 0, 0], abs=0.02)


def test_thousands_of_anchors_are_refined_at_once() -> None:
    truth, hosted, seen, _ = world(5, n=1000, degree=4, wrong=0.1, reach=8)
    metres, _ = refine(hosted, seen).poses.distance(truth)
    assert np.quantile(metres, 0.99) < 0.04


def test_without_observations_nothing_moves() -> None:
    start = Poses.identity(3)
    none = np.zeros(0, np.int64)
    refined = refine(start, Observations(none, none, Poses.identity(0), np.zeros(0), np.zeros(0)))
    assert refined.moved_m.tolist() == [0, 0, 0]
    assert len(refined.conflicts()) == 0


@pytest.mark.parametrize(
    ("first", "second", "sigma", "says"),
    [(0, 0, 0.1, "two different poses"), (0, 5, 0.1, "below 3"), (-2, 1, 0.1, "from -2"), (0, 1, 0.0, "above 0"), (0, 1, float("nan"), "finite")],
)
def test_an_observation_that_cannot_be_is_refused(first: int, second: int, sigma: float, says: str) -> None:
    seen = Observations(np.array([first]), np.array([second]), Poses.identity(), np.array([sigma]), np.array([0.1]))
    with pytest.raises(InvalidInput, match=says):
        refine(Poses.identity(3), seen)


def test_a_graph_has_a_limit() -> None:
    none = np.zeros(0, np.int64)
    with pytest.raises(LimitExceeded, match="10001 poses"):
        refine(Poses.identity(10_001), Observations(none, none, Poses.identity(0), np.zeros(0), np.zeros(0)))
