"""Distances between many places for a frame. Pure: the router is an argument. Which worker computes them is `gateway.wayfinding`'s."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from esplanade.core.errors import InvalidInput, LimitExceeded
from gateway.frames.distances import MAX_DISTANCES, Distances, End, GetDistances
from spatial.profiles import Profile
from spatial.routes import At, Place

if TYPE_CHECKING:
    from spatial.routing import Router


def check_count(frame: GetDistances) -> None:
    """Raises LimitExceeded."""
    count = len(frame.sources) * len(frame.targets)
    if count > MAX_DISTANCES:
        raise LimitExceeded(
            f"{len(frame.sources)} sources by {len(frame.targets)} targets are {count} distances; at most {MAX_DISTANCES}, ask in parts"
        )


def distances_of(router: Router, frame: GetDistances, profile: Profile) -> Distances:
    """Raises NotFound for an id that is no place, InvalidInput for a level that there is not."""
    cost = router.matrix(_places(frame.sources), _places(frame.targets), profile=profile, by=frame.by)
    return Distances(seq=frame.seq, sources=len(frame.sources), targets=len(frame.targets), cost=np.ascontiguousarray(cost, "<f4").tobytes())


def _places(ends: tuple[End, ...]) -> list[Place]:
    return [_place(end) for end in ends]


def _place(end: End) -> Place:
    """Raises InvalidInput."""
    if end.place is not None and (end.level, end.x, end.y) == (None, None, None):
        return end.place
    if end.place is None and end.level is not None and end.x is not None and end.y is not None:
        return At(end.level, end.x, end.y)
    raise InvalidInput(f"{end}: give one of a place, or level, x and y (all three)")
