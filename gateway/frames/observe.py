"""The frames of a phone that sends what it senses instead of where it is, and what it is told."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from gateway.frames.base import Frame, Id, Seq

Metres = Annotated[float, msgspec.Meta(ge=-1e6, le=1e6)]
Spread = Annotated[float, msgspec.Meta(gt=0, le=1e5)]
Dbm = Annotated[float, msgspec.Meta(ge=-120, lt=0)]
Bssid = Annotated[str, msgspec.Meta(pattern="^([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}$")]
Beacon = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Heading = Annotated[float, msgspec.Meta(ge=-360, le=360)]
StepLength = Annotated[float, msgspec.Meta(ge=0, le=3)]


class Gnss(msgspec.Struct, frozen=True):
    """WGS84, degrees; `accuracy_m`: 68 % of such fixes are right within."""

    lat: Annotated[float, msgspec.Meta(ge=-90, le=90)]
    lon: Annotated[float, msgspec.Meta(ge=-180, le=180)]
    accuracy_m: Spread


class Range(msgspec.Struct, frozen=True):
    """A distance measured (UWB) to a point of the venue frame, its standard deviation, and the point's level where it is known."""

    x: Metres
    y: Metres
    range_m: Annotated[float, msgspec.Meta(gt=0, le=1e4)]
    sd_m: Spread
    level: Annotated[int, msgspec.Meta(ge=0, le=254)] | None = None


class Observe(Frame, frozen=True, kw_only=True, tag="observe"):
    """What my phone sensed (the subject is the token's): answered with Located. `at_ms`: the phone's own clock, any that only goes on.

    wifi, ble: one reading (address or beacon's name, dBm) a network heard since the last frame; steps: (heading in degrees clockwise from magnetic north, metres) of each step since then, [] for
    none, left out where the phone cannot tell; gnss, ranges; `location`: the code of an entrance whose QR was just scanned.
    """

    seq: Seq
    venue: Id
    at_ms: Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
    wifi: Annotated[tuple[tuple[Bssid, Dbm], ...], msgspec.Meta(max_length=128)] = ()
    ble: Annotated[tuple[tuple[Beacon, Dbm], ...], msgspec.Meta(max_length=128)] = ()
    steps: Annotated[tuple[tuple[Heading, StepLength], ...], msgspec.Meta(max_length=128)] | None = None
    gnss: Gnss | None = None
    ranges: Annotated[tuple[Range, ...], msgspec.Meta(max_length=8)] = ()
    location: Id | None = None


class Located(Frame, frozen=True, kw_only=True, tag="located"):
    """What became of Observe. x, y: metres, venue frame; cov: xx, xy, yy in m2; 90 % of such dots are right within `radius_m`; levels: probability of each level of the venue.

    `state` is located where there is a dot; docs/protocol.md names the others. `flags`: what cannot be of the way from the last dot. `map`: version of the radio map.
    """

    seq: Seq
    venue: str
    at_ms: int
    state: Literal["located", "settling", "silent", "outside", "late", "repeated"]
    level: int | None = None
    x: float | None = None
    y: float | None = None
    cov: tuple[float, float, float] | None = None
    radius_m: float | None = None
    levels: tuple[float, ...] = ()
    flags: tuple[Literal["fast", "level"], ...] = ()
    map: int = 0
    message: str | None = None
