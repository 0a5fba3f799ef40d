"""Server-sent events: a topic over plain HTTP, for those who cannot open a WebSocket. One topic a stream, under the same permission, limits and filters as `subscribe`.

Owns the streams of this process and their text. An event of a durable topic has the id `epoch:offset`, so a client that comes back with `Last-Event-ID`, as an EventSource does by itself, goes on
from there. Never waits for a reader: one that is too far behind is ended, and comes back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse

from esplanade.core.clock import SystemClock
from esplanade.core.errors import Forbidden, InvalidInput, LimitExceeded
from gateway import frames as f
from gateway.auth import TopicName
from gateway.codec import JSON
from gateway.filters import Where
from gateway.hub import Hub
from gateway.limits import LIMITS
from gateway.metrics import GatewayMetrics
from gateway.rest import Caller, Desk, converted, frame_of
from gateway.session import Action, Send, Session, check_subscription
from gateway.venues import VenueCache

HEARTBEAT_S: Final = 15.0
"""A comment at the least so often, so that neither side takes silence for life."""
RETRY_MS: Final = 2_000
MAX_STREAMS: Final = 1_000
MAX_OF_SUBJECT: Final = 6
"""As many connections as a browser opens to one host."""


class _Head(msgspec.Struct):
    op: str
    place: f.Place | None = None


_HEAD: Final = msgspec.json.Decoder(_Head)


class Stream:
    """A reader; the hub's `Peer`."""

    def __init__(self, caller: Caller, topic: str, rate_hz: float, now: float) -> None:
        self.session = Session("stream", "json", now)
        self.session.state = "open"
        self.session.identity = caller.identity
        self.session.limits = LIMITS[caller.identity.role]
        self.session.client = "stream"
        self.session.topics[topic] = rate_hz
        self.ended: str | None = None
        self._queued: list[bytes] = []
        self._bytes = 0
        self._arrived = asyncio.Event()

    def perform(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Send):
                self.write(JSON.encode(action.frame))

    def write(self, encoded: bytes) -> None:
        if self.ended is not None:
            return
        self._queued.append(encoded)
        self._bytes += len(encoded)
        if self._bytes > self.session.limits.high_bytes:
            self.end("slow")
        self._arrived.set()

    def backlog(self) -> int:
        return self._bytes

    def end(self, reason: str) -> None:
        """No more comes; what is queued still goes out, but for a reader that is too slow for it."""
        if self.ended is None:
            self.ended = reason
            if reason == "slow":
                self._queued.clear()
            self._arrived.set()

    async def next(self, timeout_s: float) -> list[bytes]:
        """What has come, perhaps nothing within the time. Raises nothing."""
        if not self._queued and self.ended is None:
            self._arrived.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._arrived.wait()
        queued, self._queued, self._bytes = self._queued, [], 0
        return queued


class Streams:
    """All of this process. `stop` ends them."""

    def __init__(self, *, desk: Desk, hub: Hub, venues: VenueCache, clock: SystemClock, metrics: GatewayMetrics) -> None:
        self._desk = desk
        self._hub = hub
        self._venues = venues
        self._clock = clock
        self._metrics = metrics
        self._open: set[Stream] = set()
        self._none = asyncio.Event()
        self._none.set()

    def __len__(self) -> int:
        return len(self._open)

    async def stop(self) -> None:
        """End every stream and wait until they are gone, a moment at most."""
        for stream in self._open:
            stream.end("stopped")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._none.wait()

    async def open(self, caller: Caller, wanted: f.Subscribe) -> AsyncIterator[bytes]:
        """The text of a stream, once it is in force. Raises InvalidInput, Forbidden, NotFound, LimitExceeded, Unavailable."""
        name = TopicName.parse(wanted.topic)
        check_subscription(wanted, name)
        identity = caller.identity
        if not identity.may(f.Subscribe, name.kind):
            raise Forbidden(f"topic {wanted.topic} is not for role {identity.role!r}: sign in with a role that may (docs/permissions.md)")
        if len(self._open) >= MAX_STREAMS:
            raise LimitExceeded(f"{len(self._open)} event streams are open here: at most {MAX_STREAMS}; come back later")
        mine = sum(1 for one in self._open if one.session.identity is not None and _same_person(one.session.identity, identity))
        if mine >= MAX_OF_SUBJECT:
            raise LimitExceeded(
                f"{mine} event streams of subject {identity.subject} are open: at most {MAX_OF_SUBJECT}; close one, or open a WebSocket"
            )
        rate_hz = 2.0 if wanted.rate_hz is None else wanted.rate_hz
        stream = Stream(caller, wanted.topic, rate_hz, self._clock.monotonic_s())
        self._open.add(stream)
        self._none.clear()
        try:
            if name.venue is not None:
                facts = await self._venues.get(identity.tenant, name.venue)
                if name.level is not None:
                    facts.check_level(name.level)
            joined = await self._hub.join(
                stream, tenant=identity.tenant, topic=wanted.topic, name=name, rate_hz=rate_hz, resume=wanted.resume, where=wanted.where, policy=wanted.policy
            )  # fmt: skip
        except BaseException:
            self._gone(stream, None)
            raise
        # No await since the hub took it in: what was missed stands before anything that is published from now on.
        place = joined.place if joined.missed is None else wanted.resume
        stream.write(JSON.encode(f.Subscribed(seq=1, topic=wanted.topic, place=place, resumed=joined.missed is not None)))
        for frame in joined.missed or ():
            stream.write(JSON.encode(frame))
        if joined.missed is None:
            self._hub.latest(stream, wanted.topic)
        return self._text(stream, identity.expires_unix_s)

    async def _text(self, stream: Stream, expires_unix_s: float) -> AsyncIterator[bytes]:
        reason = "client"
        try:
            yield b"retry: %d\n\n" % RETRY_MS
            while True:
                queued = await stream.next(HEARTBEAT_S)
                if self._clock.unix_ms() / 1000 >= expires_unix_s:
                    stream.end("expired")
                if queued:
                    yield b"".join(event_of(encoded) for encoded in queued)
                elif stream.ended is not None:
                    reason = stream.ended
                    yield event_of(JSON.encode(_bye(reason)))
                    return
                else:
                    yield b": still here\n\n"
        finally:
            self._gone(stream, reason)

    def _gone(self, stream: Stream, reason: str | None) -> None:
        if stream in self._open:
            self._open.discard(stream)
            if not self._open:
                self._none.set()
            self._hub.drop(stream)
            stream.session.lost()
            if reason is not None:
                self._metrics.count("esplanade_gateway_event_streams_total", label=reason)


def event_of(encoded: bytes) -> bytes:
    """An encoded frame as an event: its `op` is the event's name, its place the event's id."""
    head = _HEAD.decode(encoded)
    mark = b"" if head.place is None else b"id: %d:%d\n" % (head.place.epoch, head.place.offset)
    return b"%sevent: %s\ndata: %s\n\n" % (mark, head.op.encode(), encoded)  # JSON has no line ends of its own


def _bye(reason: str) -> f.Bye:
    code, message = {
        "slow": ("limit", "read too slowly: read faster, or ask for a lower rate"),
        "expired": ("unauthenticated", "the token ran out: sign in again and come back with the new one"),
    }.get(reason, ("unavailable", "this process is going away: come back"))
    return f.Bye(code=code, message=message, reconnect=True, retry_after_s=RETRY_MS / 1000)


def _same_person(one: Any, other: Any) -> bool:
    return (one.tenant, one.subject) == (other.tenant, other.subject)


def place_of(last_event_id: str) -> f.Place:
    """Raises InvalidInput."""
    epoch, colon, offset = last_event_id.partition(":")
    if not colon or not (epoch.isascii() and epoch.isdigit() and offset.isascii() and offset.isdigit()) or len(last_event_id) > 32:
        raise InvalidInput(f"Last-Event-ID {last_event_id[:60]!r}: must be <epoch>:<offset>, the id of the last event that came")
    return f.Place(int(epoch), int(offset))


def stream_routes(streams: Streams, desk: Desk) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["streams"])
    stream_text = {
        200: {"description": "Events, one a frame, as long as both sides like.", "content": {"text/event-stream": {"schema": {"type": "string"}}}}
    }

    @router.get("/stream", responses=stream_text, response_class=StreamingResponse)  # type: ignore[arg-type]
    async def stream(
        request: Request,
        topic: Annotated[str, Query(min_length=1, max_length=600)],
        rate_hz: Annotated[float | None, Query(ge=0.1, le=10)] = None,
        where: Annotated[str | None, Query(max_length=4000, description="JSON of tests, as in the frame `subscribe`.")] = None,
        policy: Annotated[f.Policy | None, Query()] = None,
        last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", max_length=60)] = None,
    ) -> StreamingResponse:
        """A topic as server-sent events. The first is `subscribed`; `bye` says why the server ends it. Comments come while nothing else does."""
        caller = desk.caller(request)
        tests = None if where is None else _tests(where)
        resume = None if last_event_id is None else place_of(last_event_id)
        wanted = frame_of(f.Subscribe, topic=topic, rate_hz=rate_hz, where=tests, policy=policy, resume=resume)
        text = await streams.open(caller, wanted)
        return StreamingResponse(text, media_type="text/event-stream", headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})

    return router


def _tests(where: str) -> Any:
    try:
        plain = msgspec.json.decode(where)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidInput(f"where: {error}; give a JSON array of tests, as in the frame subscribe") from error
    return converted(plain, Where)
