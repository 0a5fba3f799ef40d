"""Frames of the connection itself: who comes, what they subscribe to, what was skipped, why it ends."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from gateway.filters import Where
from gateway.frames.base import MAX_BATCH, Coordinate, Frame, Id, Place, Policy, Seq


class Hello(Frame, frozen=True, kw_only=True, tag="hello"):
    """First frame. With `token`, or as a guest of the tenant `guest_of`. `client` is the device's own id (idempotency of `seq` within it).

    `resume`: the last place seen in `venue/<venue>/pushes` of `venue`; pushes since then are sent again, or Welcome says `resumed: false`.
    """

    client: Id
    token: str | None = None
    guest_of: Id | None = None
    venue: Id | None = None
    resume: Place | None = None


class Ping(Frame, frozen=True, kw_only=True, tag="ping"):
    seq: Seq


class Ack(Frame, frozen=True, kw_only=True, tag="ack"):
    """Pushes that reached the user; others are sent again."""

    pushes: Annotated[tuple[str, ...], msgspec.Meta(max_length=MAX_BATCH)]


class View(msgspec.Struct, frozen=True):
    """A rectangle of a level, metres, venue frame: its lower edges counted in, its upper ones not."""

    x0: Coordinate
    y0: Coordinate
    x1: Coordinate
    y1: Coordinate


class Subscribe(Frame, frozen=True, kw_only=True, tag="subscribe"):
    """Topics: venue/<v>/dots/<level> (operators), venue/<v>/density/<level>, venue/<v>/stats, venue/<v>/offers, venue/<v>/parking, venue/<v>/clock,
    payments (operators). `rate_hz` bounds ephemeral topics (default 2, at most 10). A session's pushes come without subscribing.

    `view`: of dots, this rectangle only, as DotsView, in at most `bytes_per_s`; again with another view to look elsewhere.
    `resume`: of offers and parking, what came after this place is sent first, or Subscribed says `resumed: false`.
    `where`: only publications that pass these tests (`gateway.filters`). `policy`: what becomes of those that a slow reader cannot take.
    """

    seq: Seq
    topic: Id
    rate_hz: Annotated[float, msgspec.Meta(ge=0.1, le=10)] | None = None
    view: View | None = None
    bytes_per_s: Annotated[int, msgspec.Meta(ge=500, le=100_000_000)] | None = None
    resume: Place | None = None
    where: Where | None = None
    policy: Policy | None = None


class Unsubscribe(Frame, frozen=True, kw_only=True, tag="unsubscribe"):
    seq: Seq
    topic: Id


class Saw(Frame, frozen=True, kw_only=True, tag="saw"):
    """I have drawn DotsView `number` of this topic. Who says so is never more than a few frames behind. Not answered."""

    topic: Id
    number: Annotated[int, msgspec.Meta(ge=1, lt=2**53)]


class Renew(Frame, frozen=True, kw_only=True, tag="renew"):
    """Go on with this token, which is for the same person, tenant, role and source. Answered with Done."""

    seq: Seq
    token: str


class Limits(msgspec.Struct, frozen=True):
    message_bytes: int
    frames_per_s: float
    subscriptions: int


class Welcome(Frame, frozen=True, kw_only=True, tag="welcome"):
    """`token` is given to guests: present it at the next hello to stay the same person. `now_ms`: the server's clock, for skew. `expires_ms`: when the token ends: `renew` before.

    `consent`: of people of a tenant that asks for it: whether they have agreed that it is known where they are.
    """

    session: str
    subject: int
    tenant: str
    role: str
    now_ms: int
    heartbeat_s: float
    limits: Limits
    resumed: bool = False
    token: str | None = None
    expires_ms: int | None = None
    consent: Literal["given", "needed"] | None = None


class Pong(Frame, frozen=True, kw_only=True, tag="pong"):
    seq: Seq
    now_ms: int


class Done(Frame, frozen=True, kw_only=True, tag="done"):
    """Accepted and durable."""

    seq: Seq


class Subscribed(Frame, frozen=True, kw_only=True, tag="subscribed"):
    """`place`: of a durable topic; what follows comes after it. `resumed`: that is the place asked for; else ask for the state anew, what was missed cannot be had."""

    seq: Seq
    topic: str
    place: Place | None = None
    resumed: bool = False


class Skipped(Frame, frozen=True, kw_only=True, tag="skipped"):
    """`count` publications of a topic were left out, oldest first, because this reader could not take them."""

    topic: str
    count: int


class Error(Frame, frozen=True, kw_only=True, tag="error"):
    """`seq`: the request refused, if it was one. `retryable`: the same request, with the same key, may succeed later."""

    code: str
    message: str
    retryable: bool = False
    seq: Seq | None = None


class Bye(Frame, frozen=True, kw_only=True, tag="bye"):
    """The server closes after this. The WebSocket close code says the same (docs/protocol.md)."""

    code: str
    message: str
    reconnect: bool
    retry_after_s: float = 0.0
