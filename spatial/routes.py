"""What a router answers: a route of walks and rides, or why there is none. Plain values; they compute nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import shapely

from spatial.profiles import Way

F8 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class At:
    """A point on a level: `level` indexes `Venue.levels`; metres, venue frame."""

    level: int
    x_m: float
    y_m: float


Place = At | str
"""A point, or the id of a unit or amenity, or the code or id of an entrance."""


@dataclass(frozen=True, slots=True)
class Points:
    """Many points: level (n,), x_m (n,), y_m (n,)."""

    level: I8
    x_m: F8
    y_m: F8


@dataclass(frozen=True, slots=True)
class Walk:
    """Straight lines through points (n, 2), n >= 2, on one level. `seconds` counts crowds."""

    level: int
    points: F8
    length_m: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Ride:
    """A connector taken from one level to another; `seconds` includes `wait_s`."""

    connector_id: str
    way: Way
    from_level: int
    to_level: int
    from_point: tuple[float, float]
    to_point: tuple[float, float]
    wait_s: float
    seconds: float


Leg = Walk | Ride


@dataclass(frozen=True, slots=True)
class Route:
    """Legs in order. length_m: metres walked. seconds: all of it. cost: what was minimised (seconds or metres, with penalties for avoided ways)."""

    legs: tuple[Leg, ...]
    length_m: float
    seconds: float
    cost: float

    @property
    def walks(self) -> tuple[Walk, ...]:
        return tuple(leg for leg in self.legs if isinstance(leg, Walk))

    @property
    def rides(self) -> tuple[Ride, ...]:
        return tuple(leg for leg in self.legs if isinstance(leg, Ride))


Reason = Literal["off_ground", "enclosed", "closed", "forbidden", "levels_not_connected", "separated"]
"""off_ground: a point is far from walkable ground. enclosed: a room without a usable opening. closed: only live closures are in the way. forbidden: only the
profile's rules are. levels_not_connected: no chain of connectors. separated: pieces of one level that nothing joins."""


@dataclass(frozen=True, slots=True)
class NoRoute:
    """There is no way; `message` is fit to show."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Isochrone:
    """What can be reached in time.

    seconds: (n,) arrival at sample points, inf beyond the limit, at level (n,), x_m (n,), y_m (n,) on a grid of `cell_m`. areas: the cells reached, cut to
    walkable ground, by level index. places: seconds to each unit reached, by id.
    """

    within_s: float
    cell_m: float
    points: Points
    seconds: F8
    areas: dict[int, shapely.MultiPolygon]
    places: dict[str, float]
