"""Publications to readers: one broker subscription for the process, fanned out to sessions.

Owns the channels, their heads (epoch, offset), the rings of recent pushes, and who reads what. Never waits for a reader: a slow one is left out of
conflatable frames, and the server disconnects one whose unsent bytes pass the limit. Losing the broker delays and never loses a durable publication:
heads are compared with the journal every second and after every reconnect, and gaps are read from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict, deque
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from actors import topics as t
from actors.system import System
from esplanade.core.clock import SystemClock
from esplanade.core.errors import EsplanadeError, LimitExceeded, NotFound
from esplanade.storage.broker import Broker, Subscription
from esplanade.storage.journal import Journal
from gateway import frames as f
from gateway.auth import SEES_SMALL_COUNTS, TopicName
from gateway.interest import SubjectSet
from gateway.metrics import GatewayMetrics
from gateway.publications import Fanout, frame_of, push_columns, pushes_of
from gateway.session import Action, Session

_log = logging.getLogger("esplanade.gateway.hub")

WATCH_S: Final = 3.0
"""`System.watch` is repeated this often (it expires after 10 s)."""
POLL_S: Final = 1.0
"""Heads are compared with the journal this often."""
IDLE_S: Final = 10.0
"""A channel without users is left after this time."""
RING_BATCHES: Final = 1024
RING_ROWS: Final = 200_000
"""Recent push batches kept a venue: at most so many batches, and rows in them."""
MAX_RESUME: Final = 5_000
"""Push batches read from the journal for one resume; a client farther behind is told `resumed: false`."""
PAGE: Final = 500
MAX_SESSIONS_OF_SUBJECT: Final = 16
MAX_VENUES_OF_SESSION: Final = 8
MAX_FEED_MEMORIES: Final = 64
"""Subject sets of feeds kept for their return."""
SLACK_S: Final = 0.002
"""A state may go out so much before its reader's next turn."""
BACKOFF_S: Final = (0.1, 5.0)
SHARD_FORGOTTEN_S: Final = 10.0

_PUBLICATION: Final = msgspec.msgpack.Decoder(t.Publication)
_BODY: Final[msgspec.msgpack.Decoder[t.Body]] = msgspec.msgpack.Decoder(t.Body)
_DURABLE: Final = frozenset({"pushes", "offers", "parking"})

At = tuple[int, int]
"""(epoch, offset)"""


class Peer(Protocol):
    """A connection, as the hub sees it."""

    session: Session

    def perform(self, actions: list[Action]) -> None: ...

    def write(self, encoded: bytes) -> None:
        """Queue an encoded frame; never waits."""
        ...

    def backlog(self) -> int:
        """Bytes queued and not yet sent."""
        ...


@dataclass(slots=True, eq=False)
class _Reading:
    """A client's subscription to a topic."""

    peer: Peer
    interval_s: float
    due: float
    waiting: bool = False


@dataclass(slots=True, eq=False)
class _Channel:
    """A channel this process reads. `head`: the last durable publication delivered; None until known."""

    tenant: str
    topic: str
    kind: str
    venue: str | None
    idle_since: float
    uses: int = 0
    head: At | None = None
    refilling: bool = False
    again: bool = False
    readings: dict[Peer, _Reading] = field(default_factory=dict)
    fanout: Fanout | None = None
    shards: dict[str, tuple[float, t.PaymentStats]] = field(default_factory=dict)
    opened: asyncio.Task[None] | None = None

    @property
    def durable(self) -> bool:
        return self.kind in _DURABLE

    @property
    def name(self) -> str:
        return t.channel(self.tenant, self.topic)


@dataclass(slots=True, eq=False)
class _Room:
    """A venue some session is in: who gets its pushes, and the recent ones."""

    tenant: str
    venue: str
    channels: tuple[_Channel, ...]
    subjects: dict[int, list[Peer]] = field(default_factory=dict)
    feeds: dict[Peer, SubjectSet] = field(default_factory=dict)
    sources: set[Peer] = field(default_factory=set)
    ring: deque[tuple[At, t.PushBatch]] = field(default_factory=deque)
    ring_rows: int = 0
    floor: At | None = None  # the ring holds all after this
    tick: int | None = None
    epoch: int = 0

    @property
    def pushes(self) -> _Channel:
        return self.channels[0]


@dataclass(slots=True, eq=False)
class _Membership:
    rooms: dict[str, _Room] = field(default_factory=dict)
    topics: dict[str, _Channel] = field(default_factory=dict)


class Hub:
    """One a process."""

    def __init__(self, *, system: System, journal: Journal, broker: Broker, clock: SystemClock, metrics: GatewayMetrics) -> None:
        self._system = system
        self._journal = journal
        self._broker = broker
        self._clock = clock
        self._metrics = metrics
        self._channels: dict[str, _Channel] = {}
        self._rooms: dict[tuple[str, str], _Room] = {}
        self._members: dict[Peer, _Membership] = {}
        self._memories: OrderedDict[tuple[str, str, int, str], SubjectSet] = OrderedDict()
        self._subscription: Subscription | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._flush_at: float | None = None
        self._flush_handle: asyncio.TimerHandle | None = None
        self._waiting: set[_Reading] = set()
        self._reading_channel: dict[_Reading, _Channel] = {}
        self._rewatch = asyncio.Event()

    # --- life ---

    async def start(self) -> None:
        """Begins to read the broker. Does not need it to be there yet."""
        for work in (self._pump(), self._poll(), self._watch()):
            self._spawn(work)

    async def stop(self) -> None:
        if self._flush_handle is not None:
            self._flush_handle.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._subscription is not None:
            with contextlib.suppress(EsplanadeError):
                await self._subscription.close()

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- who reads what ---

    def subscriptions(self) -> int:
        return len(self._reading_channel)

    def tick(self, tenant: str, venue: str) -> int | None:
        """The last closed tick this process heard of."""
        room = self._rooms.get((tenant, venue))
        return None if room is None else room.tick

    def is_in(self, peer: Peer, venue: str) -> bool:
        member = self._members.get(peer)
        return member is not None and venue in member.rooms

    async def attach(self, peer: Peer, *, tenant: str, venue: str, subject: int, feed: bool, source: str | None, client: str,
                     resume: f.Place | None = None) -> list[tuple[At, t.PushBatch]] | None:  # fmt: skip
        """From now on the peer gets the venue's pushes for its subject (a feed: for subjects it sends columns of).

        Returns the batches after `resume` up to now (give them to `replay`), or None where they can no longer be had. Without `resume`: [].
        Raises LimitExceeded; Unavailable where the journal is away.
        """
        member = self._members.setdefault(peer, _Membership())
        if venue in member.rooms:
            return []
        if len(member.rooms) >= MAX_VENUES_OF_SESSION:
            raise LimitExceeded(f"in {len(member.rooms)} venues at once: at most {MAX_VENUES_OF_SESSION} a connection; open another connection")
        room = await self._room(tenant, venue)
        try:
            history: list[tuple[At, t.PushBatch]] | None = [] if resume is None else await self._history(room, (resume.epoch, resume.offset))
            if venue in member.rooms or self._gone(peer, member):
                return []
            # No await from here on: live publications after `history` reach the peer, none twice.
            if feed:
                key = (tenant, venue, subject, client)
                memory = self._memories.get(key)
                if memory is None and resume is not None:
                    history = None
                room.feeds[peer] = self._memories[key] = memory if memory is not None else SubjectSet()
                self._memories.move_to_end(key)
                if len(self._memories) > MAX_FEED_MEMORIES:
                    self._memories.popitem(last=False)
            else:
                peers = room.subjects.setdefault(subject, [])
                if len(peers) >= MAX_SESSIONS_OF_SUBJECT:
                    raise LimitExceeded(f"subject {subject} has {len(peers)} sessions in venue {venue}: at most {MAX_SESSIONS_OF_SUBJECT}; close one")
                peers.append(peer)
            if source is not None:
                room.sources.add(peer)
            member.rooms[venue] = room
            return history
        finally:
            if venue not in member.rooms:
                self._leave_room(room)

    def replay(self, peer: Peer, venue: str, history: list[tuple[At, t.PushBatch]]) -> None:
        """Send what `attach` returned."""
        member = self._members.get(peer)
        room = None if member is None else member.rooms.get(venue)
        if room is not None:
            for at, batch in history:
                self._push_to(room, peer, at, batch)

    def speak_for(self, peer: Peer, venue: str, subject: npt.NDArray[np.uint32]) -> None:
        """A feed sent columns of these subjects. It must be attached. Raises LimitExceeded."""
        member = self._members[peer]
        member.rooms[venue].feeds[peer].mark(subject)

    async def join(self, peer: Peer, *, tenant: str, topic: str, name: TopicName, rate_hz: float) -> None:
        """Subscribe a client; returns when the subscription is in force (or will be when the broker is back)."""
        member = self._members.setdefault(peer, _Membership())
        channel = member.topics.get(topic)
        if channel is not None:
            channel.readings[peer].interval_s = 1.0 / rate_hz
            self._rewatch.set()
            return
        channel = self._use(tenant, topic, name.kind, name.venue)
        await self._opened(channel)
        if topic in member.topics or self._gone(peer, member):  # joined twice at once, or gone meanwhile
            self._unuse(channel)
            return
        reading = _Reading(peer, 1.0 / rate_hz, self._clock.monotonic_s())
        channel.readings[peer] = reading
        self._reading_channel[reading] = channel
        member.topics[topic] = channel
        self._rewatch.set()

    def latest(self, peer: Peer, topic: str) -> None:
        """Send the newest state of an ephemeral topic, where one is known."""
        member = self._members.get(peer)
        channel = None if member is None else member.topics.get(topic)
        if channel is not None and channel.fanout is not None:
            self._offer(channel, channel.readings[peer], self._clock.monotonic_s())

    def part(self, peer: Peer, topic: str) -> None:
        member = self._members.get(peer)
        channel = None if member is None else member.topics.pop(topic, None)
        if channel is not None:
            self._forget(channel, peer)

    def drop(self, peer: Peer) -> None:
        """The connection is gone."""
        member = self._members.pop(peer, None)
        if member is None:
            return
        for channel in member.topics.values():
            self._forget(channel, peer)
        member.topics.clear()
        for room in member.rooms.values():
            room.feeds.pop(peer, None)
            room.sources.discard(peer)
            assert peer.session.identity is not None
            subject = peer.session.identity.subject
            peers = room.subjects.get(subject)
            if peers is not None and peer in peers:
                peers.remove(peer)
                if not peers:
                    del room.subjects[subject]
            self._leave_room(room)
        member.rooms.clear()

    def _gone(self, peer: Peer, member: _Membership) -> bool:
        """The connection ended while something was awaited for it; nothing may be registered for it any more."""
        if peer.session.state == "closed" and not member.rooms and not member.topics:
            self._members.pop(peer, None)
        return peer.session.state == "closed" or self._members.get(peer) is not member

    def _forget(self, channel: _Channel, peer: Peer) -> None:
        reading = channel.readings.pop(peer)
        self._waiting.discard(reading)
        del self._reading_channel[reading]
        self._unuse(channel)

    # --- channels and rooms ---

    def _use(self, tenant: str, topic: str, kind: str, venue: str | None) -> _Channel:
        name = t.channel(tenant, topic)
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = _Channel(tenant, topic, kind, venue, self._clock.monotonic_s())
            channel.opened = self._spawn(self._open(channel))
            channel.opened.add_done_callback(lambda task: task.cancelled() or task.exception())  # seen, though nobody may wait for it
        channel.uses += 1
        return channel

    def _unuse(self, channel: _Channel) -> None:
        channel.uses -= 1
        channel.idle_since = self._clock.monotonic_s()

    async def _open(self, channel: _Channel) -> None:
        if self._subscription is not None:
            with contextlib.suppress(EsplanadeError):  # lost just now: the pump subscribes anew to every channel
                await self._subscription.add([channel.name])
        if channel.durable:
            try:
                channel.head = await self._journal.place(channel.tenant, channel.topic)
            except BaseException:
                self._channels.pop(channel.name, None)  # whoever waits for it hears why; the next one tries anew
                raise

    async def _opened(self, channel: _Channel) -> None:
        assert channel.opened is not None
        try:
            await asyncio.shield(channel.opened)
        except BaseException:
            self._unuse(channel)
            raise

    async def _room(self, tenant: str, venue: str) -> _Room:
        """The room, with one more use of its channels."""
        used = [self._use(tenant, f"venue/{venue}/{kind}", kind, venue) for kind in ("pushes", "offers", "clock")]
        for i, channel in enumerate(used):
            try:
                await self._opened(channel)
            except BaseException:
                for other in used[:i] + used[i + 1 :]:
                    self._unuse(other)
                raise
        room = self._rooms.get((tenant, venue))
        if room is None:
            room = self._rooms[(tenant, venue)] = _Room(tenant, venue, tuple(used))
            room.floor = room.pushes.head
        return room

    def _leave_room(self, room: _Room) -> None:
        for channel in room.channels:
            self._unuse(channel)

    async def _history(self, room: _Room, after: At) -> list[tuple[At, t.PushBatch]] | None:
        channel = room.pushes
        assert channel.head is not None
        if after > channel.head:
            await self._refill(channel)
            if after > channel.head:
                return None  # a place that never was
        if room.floor is not None and after >= room.floor:
            return [(at, batch) for at, batch in room.ring if at > after]
        found: list[tuple[At, t.PushBatch]] = []
        cursor = after
        while cursor < channel.head:
            epoch = cursor[0]
            try:
                page = await self._journal.published(room.tenant, channel.topic, epoch=epoch, after=cursor[1], limit=PAGE)
            except NotFound:
                return None
            for entry in page:
                body = _BODY.decode(entry.body)
                if isinstance(body, t.PushBatch):
                    found.append(((entry.epoch, entry.offset), body))
            if page:
                cursor = (page[-1].epoch, page[-1].offset)
            elif epoch < channel.head[0]:
                cursor = (epoch + 1, 0)
            else:
                return None
            if len(found) > MAX_RESUME:
                return None
        head = channel.head
        return [(at, batch) for at, batch in found if at <= head]

    # --- publications in ---

    async def _pump(self) -> None:
        wait_s = BACKOFF_S[0]
        while True:
            subscription: Subscription | None = None
            try:
                subscription = await self._broker.subscribe()
                self._subscription = subscription
                if self._channels:
                    await subscription.add(list(self._channels))
                for channel in list(self._channels.values()):
                    if channel.durable and channel.head is not None:
                        self._spawn(self._refill(channel))
                self._spawn(self._check_rewinds())
                wait_s = BACKOFF_S[0]
                async for name, message in subscription:
                    self._incoming(name, message)
            except EsplanadeError as error:
                _log.warning("broker_lost", extra={"error": str(error), "retry_s": wait_s})
            except Exception:  # ours; readers must not go without publications for it, and the refill covers what was in hand
                _log.exception("pump_failed")
            self._subscription = None
            self._metrics.count("esplanade_gateway_broker_losses_total")
            if subscription is not None:
                with contextlib.suppress(EsplanadeError):
                    await subscription.close()
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, BACKOFF_S[1])

    def _incoming(self, name: str, message: bytes) -> None:
        channel = self._channels.get(name)
        if channel is None:
            return
        try:
            publication = _PUBLICATION.decode(message)
            if channel.durable:
                if channel.head is None:
                    return  # opening: the journal's place covers it
                at = (publication.epoch, publication.offset)
                if channel.refilling:
                    channel.again = True
                elif at == (channel.head[0], channel.head[1] + 1):
                    self._durable(channel, at, publication.body)
                elif at > channel.head:
                    self._spawn(self._refill(channel))
            else:
                self._ephemeral(channel, _BODY.decode(publication.body))
        except (msgspec.MsgspecError, ValueError, IndexError) as error:
            self._metrics.count("esplanade_gateway_unreadable_publications_total")
            _log.error("publication_unreadable", extra={"channel": name, "error": str(error)})

    async def _refill(self, channel: _Channel) -> None:
        """Deliver, in order, what the journal has after the head."""
        if channel.refilling or channel.head is None:
            channel.again = True
            return
        channel.refilling = True
        try:
            while True:
                channel.again = False
                epoch, offset = await self._journal.place(channel.tenant, channel.topic)
                while channel.head < (epoch, offset):
                    try:
                        page = await self._journal.published(channel.tenant, channel.topic, epoch=channel.head[0], after=channel.head[1], limit=PAGE)
                    except NotFound:
                        self._metrics.count("esplanade_gateway_lost_publications_total")
                        _log.error("gap_unfillable", extra={"channel": channel.name, "head": channel.head, "place": (epoch, offset)})
                        channel.head = (epoch, 0) if channel.head[0] < epoch else (epoch, offset)  # a new epoch may be read from its start
                        self._gap(channel)
                        continue
                    for entry in page:
                        self._metrics.count("esplanade_gateway_refills_total")
                        self._durable(channel, (entry.epoch, entry.offset), entry.body)
                    if not page:
                        channel.head = (channel.head[0] + 1, 0) if channel.head[0] < epoch else (epoch, offset)
                if not channel.again:
                    return
        except EsplanadeError as error:  # the journal is away: the poll comes back to it
            _log.warning("refill_postponed", extra={"channel": channel.name, "error": str(error)})
        finally:
            channel.refilling = False

    def _gap(self, channel: _Channel) -> None:
        room = self._rooms.get((channel.tenant, channel.venue or ""))
        if room is not None and room.pushes is channel:
            room.ring.clear()
            room.ring_rows = 0
            room.floor = channel.head

    def _durable(self, channel: _Channel, at: At, raw: bytes) -> None:
        channel.head = at
        body = _BODY.decode(raw)
        room = self._rooms.get((channel.tenant, channel.venue or ""))
        if isinstance(body, t.PushBatch):
            if room is not None:
                self._pushes(room, at, body)
            return
        if isinstance(body, t.OfferChanged) and body.ended and room is not None:
            for peers in room.subjects.values():
                for peer in peers:
                    peer.session.offer_ended(room.venue, body.offer.id)
        channel.fanout = Fanout(frame_of(body))
        for reading in list(channel.readings.values()):
            peer = reading.peer
            peer.write(channel.fanout.encoded(peer.session.codec, full=self._full(peer)))

    # --- pushes out ---

    def _pushes(self, room: _Room, at: At, batch: t.PushBatch) -> None:
        room.ring.append((at, batch))
        room.ring_rows += len(batch.subject) // 4
        while len(room.ring) > RING_BATCHES or (room.ring_rows > RING_ROWS and len(room.ring) > 1):
            gone_at, gone = room.ring.popleft()
            room.ring_rows -= len(gone.subject) // 4
            room.floor = gone_at
        if room.subjects:
            now = self._clock.monotonic_s()
            for subject, offer, push in pushes_of(batch, at, room.subjects):
                for peer in list(room.subjects.get(subject, ())):
                    self._metrics.count("esplanade_gateway_pushes_total")
                    peer.perform(peer.session.push(push, ends_tick=offer.ends_tick, now=now))
        for peer, subjects in list(room.feeds.items()):
            self._columns_to(peer, subjects, at, batch)

    def _push_to(self, room: _Room, peer: Peer, at: At, batch: t.PushBatch) -> None:
        subjects = room.feeds.get(peer)
        if subjects is not None:
            self._columns_to(peer, subjects, at, batch)
            return
        identity = peer.session.identity
        assert identity is not None
        now = self._clock.monotonic_s()
        for _, offer, push in pushes_of(batch, at, (identity.subject,)):
            self._metrics.count("esplanade_gateway_pushes_total")
            peer.perform(peer.session.push(push, ends_tick=offer.ends_tick, now=now))

    def _columns_to(self, peer: Peer, subjects: SubjectSet, at: At, batch: t.PushBatch) -> None:
        frame = push_columns(batch, at, subjects)
        if frame is not None:
            self._metrics.count("esplanade_gateway_pushes_total", len(frame.subject) // 4)
            peer.write(peer.session.codec.encode(frame))

    # --- ephemeral topics out ---

    def _ephemeral(self, channel: _Channel, body: t.Body) -> None:
        now = self._clock.monotonic_s()
        room = self._rooms.get((channel.tenant, channel.venue or ""))
        if isinstance(body, t.Rewind):
            self._rewind(channel.tenant, channel.venue or "", body)
            return
        if isinstance(body, t.TickClosed) and room is not None:
            room.tick = body.tick
            room.epoch = max(room.epoch, body.epoch)
            if body.tick % 10 == 0:
                for peers in room.subjects.values():
                    for peer in peers:
                        peer.session.tick_closed(room.venue, body.tick)
        if isinstance(body, t.PaymentStats):
            channel.shards[body.shard] = (now, body)
            for shard in [s for s, (at, _) in channel.shards.items() if now - at > SHARD_FORGOTTEN_S]:
                del channel.shards[shard]
            channel.fanout = Fanout(_sum_payments([stats for _, stats in channel.shards.values()]))
        else:
            channel.fanout = Fanout(frame_of(body))
        for reading in list(channel.readings.values()):
            if reading.due <= now + SLACK_S:
                self._offer(channel, reading, now)
            else:
                if reading.waiting:
                    self._metrics.count("esplanade_gateway_conflated_total", label="rate")
                self._wait(reading)

    def _offer(self, channel: _Channel, reading: _Reading, now: float) -> None:
        """Send the newest state, unless the reader is behind: then try again after its interval."""
        assert channel.fanout is not None
        peer = reading.peer
        reading.due = max(reading.due, now - reading.interval_s) + reading.interval_s
        if peer.backlog() > peer.session.limits.low_bytes:
            self._metrics.count("esplanade_gateway_conflated_total", label="slow")
            reading.due = now + reading.interval_s
            self._wait(reading)
            return
        reading.waiting = False
        self._waiting.discard(reading)
        peer.write(channel.fanout.encoded(peer.session.codec, full=self._full(peer)))

    def _wait(self, reading: _Reading) -> None:
        reading.waiting = True
        self._waiting.add(reading)
        if self._flush_at is None or reading.due < self._flush_at:
            if self._flush_handle is not None:
                self._flush_handle.cancel()
            self._flush_at = reading.due
            delay = max(0.0, reading.due - self._clock.monotonic_s())
            self._flush_handle = asyncio.get_running_loop().call_later(delay, self._flush)

    def _flush(self) -> None:
        self._flush_at = None
        self._flush_handle = None
        now = self._clock.monotonic_s() + SLACK_S
        for reading in [r for r in self._waiting if r.due <= now]:
            self._offer(self._reading_channel[reading], reading, now)
        if self._waiting:
            self._wait(min(self._waiting, key=lambda r: r.due))

    def _rewind(self, tenant: str, venue: str, body: t.Rewind) -> None:
        """To every source of the venue and every reader of its clock, at once: never conflated."""
        room = self._rooms.get((tenant, venue))
        peers: set[Peer] = set()
        if room is not None:
            room.epoch = max(room.epoch, body.epoch)
            peers |= room.sources
        channel = self._channels.get(t.channel(tenant, f"venue/{venue}/clock"))
        if channel is not None:
            peers |= channel.readings.keys()
        fanout = Fanout(frame_of(body))
        for peer in peers:
            peer.write(fanout.encoded(peer.session.codec, full=True))

    async def _check_rewinds(self) -> None:
        """After the broker was away: a host may have restarted meanwhile, and its Rewind is lost."""
        for room in list(self._rooms.values()):
            if room.sources and room.epoch:
                try:
                    clock = await self._system.clock(room.tenant, room.venue)
                except EsplanadeError:
                    continue  # its new host will say Rewind itself
                if clock.epoch > room.epoch:
                    self._rewind(room.tenant, room.venue, t.Rewind(venue=room.venue, tick=clock.tick, epoch=clock.epoch))

    @staticmethod
    def _full(peer: Peer) -> bool:
        identity = peer.session.identity
        return identity is not None and identity.role in SEES_SMALL_COUNTS

    # --- regular work ---

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            now = self._clock.monotonic_s()
            for channel in list(self._channels.values()):
                if channel.opened is None or not channel.opened.done():
                    continue
                if channel.uses == 0 and now - channel.idle_since > IDLE_S:
                    await self._close(channel)
                elif channel.durable and channel.head is not None:
                    await self._refill(channel)

    async def _close(self, channel: _Channel) -> None:
        del self._channels[channel.name]
        room = self._rooms.get((channel.tenant, channel.venue or ""))
        if room is not None and channel in room.channels:
            del self._rooms[(channel.tenant, channel.venue or "")]
        if self._subscription is not None:
            with contextlib.suppress(EsplanadeError):  # lost just now: the next subscription leaves it out
                await self._subscription.remove([channel.name])
                if channel.name in self._channels:  # wanted again meanwhile
                    await self._subscription.add([channel.name])

    async def _watch(self) -> None:
        while True:
            self._rewatch.clear()
            wanted: dict[tuple[str, str], dict[str, float]] = {}
            for reading, channel in self._reading_channel.items():
                if channel.venue is not None and not channel.durable:
                    rates = wanted.setdefault((channel.tenant, channel.venue), {})
                    rates[channel.topic] = max(rates.get(channel.topic, 0.0), 1.0 / reading.interval_s)
            for (tenant, venue), rates in wanted.items():
                try:
                    await self._system.watch(tenant, venue, rates)
                except EsplanadeError as error:  # said again in WATCH_S
                    _log.info("watch_postponed", extra={"tenant": tenant, "venue": venue, "error": str(error)})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_S):  # not wait_for: before Python 3.12 it can swallow the cancellation by `stop`
                    await self._rewatch.wait()


def _sum_payments(stats: list[t.PaymentStats]) -> f.PaymentStats:
    volume: dict[str, int] = {}
    for one in stats:
        for currency, amount in one.volume.items():
            volume[currency] = volume.get(currency, 0) + amount
    return f.PaymentStats(payments=sum(s.payments for s in stats), refused=sum(s.refused for s in stats), volume=volume)
