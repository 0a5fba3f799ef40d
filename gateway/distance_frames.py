"""Frames about distances between many places at once. `gateway.distances` answers them."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from spatial.profiles import By, Rule, Way

MAX_ENDS: Final = 1_000
MAX_DISTANCES: Final = 100_000
"""Sources times targets of one frame: an answer of 400 KB."""

Seq = Annotated[int, msgspec.Meta(ge=1, lt=2**53)]
Id = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
LevelIndex = Annotated[int, msgspec.Meta(ge=0, le=254)]
Coordinate = Annotated[float, msgspec.Meta(ge=-1e6, le=1e6)]


class End(msgspec.Struct, frozen=True, omit_defaults=True):
    """The id of a unit or amenity or code of an entrance; or a point: `level`, `x` and `y`, all three."""

    place: Id | None = None
    level: LevelIndex | None = None
    x: Coordinate | None = None
    y: Coordinate | None = None


Ends = Annotated[tuple[End, ...], msgspec.Meta(min_length=1, max_length=MAX_ENDS)]


class _Frame(msgspec.Struct, frozen=True, kw_only=True, tag_field="op", omit_defaults=True):
    pass


class GetDistances(_Frame, frozen=True, kw_only=True, tag="distances"):
    """From every source to every target under what is closed now, at most MAX_DISTANCES; `profile`, `ways`, `by` as in GetRoute. Answered with Distances."""

    seq: Seq
    venue: Id
    sources: Ends
    targets: Ends
    profile: Id = "walking"
    ways: dict[Way, Rule] = {}
    by: By = "fastest"


class Distances(_Frame, frozen=True, kw_only=True, tag="distances_are"):
    """cost (sources, targets) f4, row by row: seconds, or metres for `shortest`; infinite where there is no way."""

    seq: Seq
    sources: int
    targets: int
    cost: bytes
