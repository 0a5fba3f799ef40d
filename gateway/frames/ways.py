"""Frames about stores and the ways to them."""

from __future__ import annotations

from typing import Annotated

import msgspec

from actors.messages import Key, Store
from gateway.frames.base import Coordinate, Frame, Id, LevelIndex, Seq
from spatial.profiles import By, Rule, Way
from spatial.routes import Reason


class FindStores(Frame, frozen=True, kw_only=True, tag="find_stores"):
    seq: Seq
    venue: Id
    level: LevelIndex
    x: Coordinate
    y: Coordinate
    k: Annotated[int, msgspec.Meta(ge=1, le=100)] = 10


class Search(Frame, frozen=True, kw_only=True, tag="search"):
    """Stores by words, typos forgiven. `level`, `x`, `y` together: where I am."""

    seq: Seq
    venue: Id
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    level: LevelIndex | None = None
    x: Coordinate | None = None
    y: Coordinate | None = None
    k: Annotated[int, msgspec.Meta(ge=1, le=100)] = 10


class Spot(msgspec.Struct, frozen=True, omit_defaults=True):
    """A place to start from or go to: the id of a unit or amenity or code of an entrance, or a point; as a goal also the nearest of a category."""

    place: Id | None = None
    category: Id | None = None
    level: LevelIndex | None = None
    x: Coordinate | None = None
    y: Coordinate | None = None


class GetRoute(Frame, frozen=True, kw_only=True, tag="route"):
    """A way from `start` (left out: where I was last seen) to `goal`, as walked by `profile`, with its rule for some `ways` replaced; `avoid_crowds`: by the seconds that it takes through who is there now. Answered with Route or NoRoute."""

    seq: Seq
    venue: Id
    goal: Spot
    start: Spot | None = None
    profile: Id = "walking"
    ways: dict[Way, Rule] = msgspec.field(default_factory=dict)
    by: By = "fastest"
    avoid_crowds: bool = False


class GetIsochrone(Frame, frozen=True, kw_only=True, tag="isochrone"):
    """What is reached from `start` within `within_s`; `cell_m`: how finely. Answered with Isochrone or NoRoute."""

    seq: Seq
    venue: Id
    within_s: Annotated[float, msgspec.Meta(gt=0, le=3600)]
    start: Spot | None = None
    profile: Id = "walking"
    ways: dict[Way, Rule] = msgspec.field(default_factory=dict)
    cell_m: Annotated[float, msgspec.Meta(ge=2, le=50)] = 4.0


class GetAccess(Frame, frozen=True, kw_only=True, tag="get_access"):
    """What is closed now. Answered with Access."""

    seq: Seq
    venue: Id


class SetAccess(Frame, frozen=True, kw_only=True, tag="set_access"):
    """Operators: close and open connectors, openings and units (all their openings), by id. All or none. Answered with Access."""

    seq: Seq
    venue: Id
    close: Annotated[tuple[Id, ...], msgspec.Meta(max_length=1000)] = ()
    open: Annotated[tuple[Id, ...], msgspec.Meta(max_length=1000)] = ()
    key: Key | None = None


class Stores(Frame, frozen=True, kw_only=True, tag="stores"):
    seq: Seq
    stores: tuple[Store, ...]


class WalkLeg(msgspec.Struct, frozen=True, tag="walk"):
    """Straight lines through n points of a level: x, y (n,) f4."""

    level: int
    x: bytes
    y: bytes
    metres: float
    seconds: float


class RideLeg(msgspec.Struct, frozen=True, tag="ride"):
    """A connector taken from a level to another; `seconds` includes `wait_s`."""

    connector: str
    way: Way
    from_level: int
    to_level: int
    wait_s: float
    seconds: float


class Route(Frame, frozen=True, kw_only=True, tag="route_is"):
    """`metres` walked, `seconds` in all, legs in order, and the same in words. `goal`: the place that was found, where it has an id."""

    seq: Seq
    metres: float
    seconds: float
    legs: tuple[WalkLeg | RideLeg, ...]
    words: tuple[str, ...]
    goal: str | None = None


class NoRoute(Frame, frozen=True, kw_only=True, tag="no_route"):
    """There is no way, and why."""

    seq: Seq
    reason: Reason
    message: str


class Isochrone(Frame, frozen=True, kw_only=True, tag="isochrone_is"):
    """Cells reached: level (n,) u1, x, y (n,) f4 of their middles, seconds (n,) f4; `places`: seconds to each place reached, by id."""

    seq: Seq
    cell_m: float
    level: bytes
    x: bytes
    y: bytes
    seconds: bytes
    places: dict[str, float]


class Access(Frame, frozen=True, kw_only=True, tag="access"):
    """Ids of connectors, openings and units that are closed, ascending."""

    seq: Seq
    venue: str
    closed: tuple[str, ...]
