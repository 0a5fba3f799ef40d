"""A room that looks the same from two poses is not guessed at."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ar.localisation import CLOUD_CONFIDENT, Located, NotLocated, localise_cloud
from ar.maps import MapBuilder, SpatialMap
from ar.pose import Poses

SIZE_M = np.array([4.2, 3.1, 2.5])
THINGS = [((0.3, 0.3, 0.0), (0.6, 0.9, 0.7)), ((2.9, 0.4, 0.0), (0.4, 0.8, 1.6)), ((1.5, 2.2, 0.9), (0.9, 0.5, 0.6))]
"""What may stand in the room: corner and edges in metres."""


def room(chance: np.random.Generator, things: int) -> np.ndarray:
    """Points (n, 3) on the walls, floor and ceiling of a room and on what stands in it, with 2 mm of noise."""
    parts = [_box(chance, 24_000, np.zeros(3), SIZE_M)]
    parts += [_box(chance, 3_000, np.array(corner), np.array(edges)) for corner, edges in THINGS[:things]]
    points = np.concatenate(parts)
    return points + chance.normal(0, 0.002, points.shape)


def _box(chance: np.random.Generator, n: int, corner: np.ndarray, edges: np.ndarray) -> np.ndarray:
    points = chance.uniform(0, 1, (n, 3))
    face = chance.integers(0, 6, n)
    points[np.arange(n), face // 2] = face % 2
    return corner + points * edges


@pytest.fixture(scope="module", params=[0, 3], ids=["empty", "furnished"])
def place(request: pytest.FixtureRequest) -> tuple[int, SpatialMap]:
    things = int(request.param)
    builder, at = MapBuilder(), np.array([2.0, 1.4, 1.3])
    builder.add_cloud(room(np.random.default_rng(1), things) - at, Poses.of(at, (0.0, 0.0, 0.0, 1.0)))
    return things, builder.build()


@pytest.mark.parametrize(("turn", "beyond_m"), [(0.4, -9.0), (2.5, -9.0), (0.9, -0.8)])
def test_an_empty_room_of_four_walls_is_not_known_and_a_furnished_one_is(place: tuple[int, SpatialMap], turn: float, beyond_m: float) -> None:
    things, where = place
    at = np.array([2.2, 1.5, 1.2])
    seen = room(np.random.default_rng(2), things) - at
    seen = seen[seen[:, 0] > beyond_m]
    c, s = math.cos(turn), math.sin(turn)
    found = localise_cloud(where, seen @ np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]]).T)
    if things == 0:
        assert isinstance(found, NotLocated)
        return
    assert isinstance(found, Located), found
    metres, radians = Poses.of(at, (0.0, 0.0, math.sin(-turn / 2), math.cos(turn / 2))).distance(found.pose)
    assert found.chance >= CLOUD_CONFIDENT
    assert metres[0] < 0.05
    assert np.degrees(radians[0]) < 2
