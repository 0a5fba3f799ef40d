"""What a drawn zone is: its shape and what it asks of people, as commands and events carry it. `spatial.drawn_zones` checks it and watches it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from esplanade.core.errors import InvalidInput

MAX_MARGIN_M: Final = 100.0
"""How far from its border a fence may still count somebody as near it."""
KINDS: Final = ("enter", "exit", "cross", "dwell")
"""Names of what happens at a fence, by the numbers ENTER, EXIT, CROSS, DWELL of `spatial.fence_kernels`."""
ZONE_KINDS: Final = (*KINDS, "forward", "backward")
"""The same of a drawn zone, whose lines count who passes: FORWARD and BACKWARD of `spatial.drawn_zones`."""
MAX_HOURS: Final = 32

Point = tuple[float, float]


class Polygon(msgspec.Struct, frozen=True, tag="polygon"):
    """A multipolygon as in the venue document: polygons of rings of points, the outer ring first."""

    polygon: tuple[tuple[tuple[Point, ...], ...], ...]


class Circle(msgspec.Struct, frozen=True, tag="circle"):
    x_m: float
    y_m: float
    radius_m: float


class Along(msgspec.Struct, frozen=True, tag="corridor"):
    """All within `half_width_m` of a line."""

    line: tuple[Point, ...]
    half_width_m: float


class InUnit(msgspec.Struct, frozen=True, tag="unit"):
    """A unit of the venue, as it is when the zone is drawn."""

    unit_id: str


class Line(msgspec.Struct, frozen=True, tag="line"):
    """A line from a to b: nobody is in it; who passes is counted, forward from the left of its direction to the right, and backward. Who stands on it is on its left."""

    a: Point
    b: Point


Shape = Polygon | Circle | Along | InUnit | Line


class Open(msgspec.Struct, frozen=True):
    """Hours in which a zone sees people: seconds of venue time (tick / 10), and again every `every_s` (0: once)."""

    from_s: float
    until_s: float
    every_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Hours:
    """Venue time from `from_s` until `until_s` (not included), and again every `every_s` (0: once)."""

    from_s: float
    until_s: float
    every_s: float = 0.0

    def __post_init__(self) -> None:
        long = self.until_s - self.from_s
        if not (long > 0 and (self.every_s == 0 or self.every_s >= long) and all(map(math.isfinite, (self.from_s, self.until_s, self.every_s)))):
            raise InvalidInput(
                f"hours from {self.from_s} until {self.until_s} every {self.every_s} s: must end after they begin and repeat after they end"
            )

    def hold(self, at_s: float) -> bool:
        since = at_s - self.from_s
        return 0 <= (since % self.every_s if self.every_s and since >= 0 else since) < self.until_s - self.from_s


class DrawnZone(msgspec.Struct, frozen=True, kw_only=True):
    """A zone and what it asks of those it counts; what each means is stated in `spatial.fence_watch`.

    `level`: index into Venue.levels. `least`: the probability that an entry or exit must have, given that positions are good to `accuracy_m` (one standard deviation; 0: exact).
    `segments`, `without`: tags that people must and must not have, bits of 63. `cross`: tell of those too, who hurry through between two positions.
    """

    id: str
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=120)]
    level: Annotated[int, msgspec.Meta(ge=0, le=254)]
    shape: Shape
    dwell_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)] | None = None
    margin_m: Annotated[float, msgspec.Meta(ge=0, le=MAX_MARGIN_M)] = 0.0
    confirm_s: Annotated[float, msgspec.Meta(ge=0, le=3_600)] = 0.0
    least: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    accuracy_m: Annotated[float, msgspec.Meta(ge=0, le=100)] = 0.0
    segments: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0
    without: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0
    cross: bool = False
    hours: Annotated[tuple[Open, ...], msgspec.Meta(max_length=MAX_HOURS)] = ()
