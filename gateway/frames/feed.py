"""Frames of sources that send everybody's positions tick by tick."""

from __future__ import annotations

from gateway.frames.base import Frame, Id, Seq, Tick


class GetClock(Frame, frozen=True, kw_only=True, tag="get_clock"):
    seq: Seq
    venue: Id


class OpenSource(Frame, frozen=True, kw_only=True, tag="open_source"):
    """This connection's token names a source; the venue becomes driven by it from `first_tick`. Answered with ClockState."""

    seq: Seq
    venue: Id
    source: Id
    first_tick: Tick


class CloseSource(Frame, frozen=True, kw_only=True, tag="close_source"):
    seq: Seq
    venue: Id
    source: Id


class Columns(Frame, frozen=True, kw_only=True, tag="columns"):
    """Positions of n subjects at one tick: subject (n,) u4, level (n,) u1 (255: has left), x, y (n,) f4. Answered with Taken."""

    seq: Seq
    venue: Id
    source: Id
    tick: Tick
    subject: bytes
    level: bytes
    x: bytes
    y: bytes


class Watermark(Frame, frozen=True, kw_only=True, tag="watermark"):
    """`rows` rows of `source` belong to `tick` (by Columns, and by Move and Leave of its clients), and none will come for earlier ticks. Not answered."""

    venue: Id
    source: Id
    tick: Tick
    rows: int


class Taken(Frame, frozen=True, kw_only=True, tag="taken"):
    """The rows are in the position host's arrays; Closed says when the tick's consequences are durable."""

    seq: Seq


class ClockState(Frame, frozen=True, kw_only=True, tag="clock_state"):
    seq: Seq
    tick: int
    epoch: int
    driven: bool
    late_rows: int
    late_ticks: int


class Closed(Frame, frozen=True, kw_only=True, tag="closed"):
    """To subscribers of venue/<v>/clock: all up to `tick` is durable."""

    venue: str
    tick: int
    epoch: int
    late_rows: int


class Rewind(Frame, frozen=True, kw_only=True, tag="rewind"):
    """To sources: the position host restarted; send every row after `tick` again, then go on."""

    venue: str
    tick: int
    epoch: int
