"""What a cloud saw from its origin speaks for or against where another one is placed."""

from __future__ import annotations

import numpy as np

from ar.sight import Sight
from tests.ar.test_symmetry import room

AT = np.array([2.0, 1.4, 1.3])
"""Where it stands in the room."""


def _seen(things: int, seed: int) -> np.ndarray:
    """The room from AT, without what is hidden from there: of the points of a direction those near the first."""
    points = room(np.random.default_rng(seed), things) - AT
    distance = np.linalg.norm(points, axis=1)
    way = np.round(points / distance[:, None] * 20).astype(int)
    _, which = np.unique(way, axis=0, return_inverse=True)
    first = np.full(which.max() + 1, np.inf)
    np.minimum.at(first, which, distance)
    return points[distance < first[which] + 0.15]


def test_what_lies_on_or_behind_what_was_seen_is_not_looked_through() -> None:
    sight = Sight(_seen(3, 1), 0.1)
    assert sight.told
    again = sight.through(_seen(3, 2))
    assert again is not None
    assert again < 0.01
    behind = sight.through(1.5 * _seen(3, 2))
    assert behind is None or behind < 0.01


def test_things_that_were_not_there_are_looked_through() -> None:
    share = Sight(_seen(0, 1), 0.1).through(_seen(3, 2))
    assert share is not None
    assert share > 0.1


def test_a_cloud_not_seen_from_its_origin_does_not_tell() -> None:
    # Two walls, one behind the other, both of them seen: from the origin only the first can be.
    chance = np.random.default_rng(3)
    wall = np.stack([chance.uniform(-1, 1, 4000), chance.uniform(-1, 1, 4000), np.full(4000, 1.0)], axis=1)
    assert Sight(wall, 0.1).told
    assert not Sight(np.concatenate([wall, 2 * wall]), 0.1).told


def test_too_few_points_in_sight_say_nothing() -> None:
    assert Sight(_seen(0, 1), 0.1).through(_seen(0, 2)[:40]) is None
