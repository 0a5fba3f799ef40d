"""Frames about distances between many places at once. `gateway.distances` answers them."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from gateway.frames.base import Coordinate, Frame, Id, LevelIndex, Seq
from spatial.profiles import By, Rule, Way

MAX_ENDS: Final = 1_000
MAX_DISTANCES: Final = 100_000
"""Sources times targets of one frame: an answer of 400 KB."""


class End(msgspec.Struct, frozen=True, omit_defaults=True):
    """The id of a unit or amenity or code of an entrance; or a point: `level`, `x` and `y`, all three."""

    place: Id | None = None
    level: LevelIndex | None = None
    x: Coordinate | None = None
    y: Coordinate | None = None


Ends = Annotated[tuple[End, ...], msgspec.Meta(min_length=1, max_length=MAX_ENDS)]


class GetDistances(Frame, frozen=True, kw_only=True, tag="distances"):
    """From every source to every target under what is closed now, at most MAX_DISTANCES; `profile`, `ways`, `by` as in GetRoute. Answered with Distances."""

    seq: Seq
    venue: Id
    sources: Ends
    targets: Ends
    profile: Id = "walking"
    ways: dict[Way, Rule] = msgspec.field(default_factory=dict)
    by: By = "fastest"


class Distances(Frame, frozen=True, kw_only=True, tag="distances_are"):
    """cost (sources, targets) f4, row by row: seconds, or metres for `shortest`; infinite where there is no way."""

    seq: Seq
    sources: int
    targets: int
    cost: bytes
