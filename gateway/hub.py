"""Publications to readers: what `gateway.channels` brings, fanned out to sessions.

Owns who reads what at which rate, the rooms (who is in which venue), and the rings of recent pushes. Never waits for a reader: a slow one is left out of
conflatable frames, and the server disconnects one whose unsent bytes pass the limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from actors import topics as t
from actors.system import System
from esplanade.core.clock import SystemClock
from esplanade.core.errors import EsplanadeError, LimitExceeded
from esplanade.storage.broker import Broker
from esplanade.storage.journal import Journal
from gateway import frames as f
from gateway.auth import TopicName
from gateway.channels import At, Channel, Channels
from gateway.codec import Codec, Format
from gateway.filters import Test, matches
from gateway.interest import SubjectSet
from gateway.metrics import GatewayMetrics
from gateway.peer import Peer as Peer
from gateway.permissions import holds
from gateway.policies import Owed, key_of
from gateway.presence import KINDS, MEMBERS, Presence
from gateway.publications import Fanout, frame_of, push_columns, pushes_of
from gateway.viewport import Picture, Viewport

_log = logging.getLogger("esplanade.gateway.hub")

WATCH_S: Final = 3.0
"""`System.watch` is repeated this often (it expires after 10 s)."""
RING_BATCHES: Final = 1024
RING_ROWS: Final = 200_000
"""Recent push batches kept a venue: at most so many batches, and rows in them."""
MAX_RESUME: Final = 5_000
"""Push batches read from the journal for one resume; a client farther behind is told `resumed: false`."""
MAX_SESSIONS_OF_SUBJECT: Final = 16
MAX_VENUES_OF_SESSION: Final = 8
MAX_FEED_MEMORIES: Final = 64
"""Subject sets of feeds kept for their return."""
SLACK_S: Final = 0.002
"""A state may go out so much before its reader's next turn."""
LATE_S: Final = 0.05
"""Between looks at whether slow readers of durable topics can take more."""
SHARD_FORGOTTEN_S: Final = 10.0
PRESENT_S: Final = 5.0
"""Who has not said for so long where they look from is not told as present."""
MAX_PRESENT: Final = 256
"""Of one scene; those beyond are not told."""
STATELESS: Final = ("offers", "anchors", "scene")
"""Topics whose newest publication is a change and no state."""
ROOM_KINDS: Final = ("pushes", "offers", "clock")
"""What a room reads for itself: pushes to deliver, offers that end, ticks and rewinds."""

History = list[tuple[At, t.PushBatch]]


ToAll = Callable[[Collection[Peer], list[bytes], Codec], None]
"""Writes encoded frames to peers of one format; never waits."""


def one_by_one(peers: Collection[Peer], frames: list[bytes], codec: Codec) -> None:
    """The plain `ToAll`."""
    for peer in peers:
        for frame in frames:
            peer.write(frame)


@dataclass(slots=True, eq=False)
class _Cohort:
    """Readers of a durable channel to whom a publication is the same bytes. `frames`: those of this turn of the loop, not yet written."""

    codec: Codec
    full: bool
    peers: dict[Peer, None] = field(default_factory=dict)
    frames: list[bytes] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Reading:
    """A client's subscription to a topic. `viewport`: what of it the client looks at; None: the whole. `where`: what of it the client wants.

    `owed`: of a durable topic, what waits for a slow reader; None: none waits, it is disconnected.
    """

    peer: Peer
    interval_s: float
    due: float
    waiting: bool = False
    viewport: Viewport | None = None
    where: tuple[Test, ...] | None = None
    owed: Owed | None = None

    @property
    def chooses(self) -> bool:
        return self.where is not None or self.owed is not None


@dataclass(slots=True, eq=False)
class _View:
    """Clients' subscriptions to one channel. `choosers`: those who do not get the same bytes as all others, of a durable one. `fanout`: its newest state; `picture`: the same for who looks at a part, made when first one does.
    `shards`: the newest word of each, of the payments topic; `present`: of each client, of a scene's presence."""

    channel: Channel
    readings: dict[Peer, _Reading] = field(default_factory=dict)
    cohorts: dict[tuple[Format, bool], _Cohort] = field(default_factory=dict)
    choosers: dict[Peer, _Reading] = field(default_factory=dict)
    fanout: Fanout | None = None
    picture: Picture | None = None
    shards: dict[str, tuple[float, t.PaymentStats]] = field(default_factory=dict)
    present: dict[str, tuple[float, f.Present]] = field(default_factory=dict)

    def forget_silent(self, now: float) -> bool:
        """Whether anybody was."""
        silent = [client for client, (at, _) in self.present.items() if now - at > PRESENT_S]
        for client in silent:
            del self.present[client]
        return bool(silent)

    def presence(self, venue: str, scene: str) -> Fanout:
        """All who are present, as its readers are told."""
        return Fanout(f.PresenceIs(venue=venue, scene=scene, present=tuple(one for _, (_, one) in sorted(self.present.items()))))


@dataclass(slots=True, eq=False)
class _Room:
    """A venue some session is in: who gets its pushes, and the recent ones."""

    tenant: str
    venue: str
    channels: tuple[Channel, ...]
    subjects: dict[int, list[Peer]] = field(default_factory=dict)
    feeds: dict[Peer, SubjectSet] = field(default_factory=dict)
    sources: set[Peer] = field(default_factory=set)
    ring: deque[tuple[At, t.PushBatch]] = field(default_factory=deque)
    ring_rows: int = 0
    floor: At | None = None  # the ring holds all after this
    tick: int | None = None
    epoch: int = 0

    @property
    def pushes(self) -> Channel:
        return self.channels[0]


@dataclass(frozen=True, slots=True)
class Joined:
    """`place`: where a durable topic stood when its reader was taken in. `missed`: what it asked to have again, None where that was not asked or cannot be had."""

    place: f.Place | None = None
    missed: tuple[f.ServerFrame, ...] | None = None


@dataclass(slots=True, eq=False)
class _Membership:
    rooms: dict[str, _Room] = field(default_factory=dict)
    topics: dict[str, _View] = field(default_factory=dict)


class Hub:
    """One a process. `name`: the process's own among all gateways."""

    def __init__(
        self, *, system: System, journal: Journal, broker: Broker, clock: SystemClock, metrics: GatewayMetrics, to_all: ToAll = one_by_one,
        name: str = "gateway",
    ) -> None:  # fmt: skip
        self._system = system
        self._to_all = to_all
        self._clock = clock
        self._metrics = metrics
        self._channels = Channels(journal=journal, broker=broker, clock=clock, metrics=metrics, listener=self)
        self._views: dict[Channel, _View] = {}
        self._rooms: dict[tuple[str, str], _Room] = {}
        self._members: dict[Peer, _Membership] = {}
        self._memories: OrderedDict[tuple[str, str, int, str], SubjectSet] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flush_at: float | None = None
        self._flush_handle: asyncio.TimerHandle | None = None
        self._waiting: set[_Reading] = set()
        self._view_of: dict[_Reading, _View] = {}
        self._turn: list[_View] = []
        self._rewatch = asyncio.Event()
        self._late: dict[_Reading, None] = {}
        self._late_handle: asyncio.TimerHandle | None = None
        self._listening: dict[tuple[str, str], tuple[Channel, ...]] = {}
        self._consent_told: Callable[[str, t.ConsentTold], None] = lambda tenant, told: None
        self._consents_lost: Callable[[str], None] = lambda tenant: None
        self.presence = Presence(
            name=name, clock=clock, metrics=metrics, readers=self._readers, publish=self._publish_members, listen=self._listen_members
        )

    # --- life ---

    async def start(self) -> None:
        """Begins to read the broker. Does not need it to be there yet."""
        await self._channels.start()
        self._tasks.add(asyncio.ensure_future(self._watch()))
        self.presence.start()

    async def stop(self) -> None:
        await self.presence.stop()
        for handle in (self._flush_handle, self._late_handle):
            if handle is not None:
                handle.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._channels.stop()

    # --- who reads what ---

    def subscriptions(self) -> int:
        return len(self._view_of)

    def tick(self, tenant: str, venue: str) -> int | None:
        """The last closed tick this process heard of."""
        room = self._rooms.get((tenant, venue))
        return None if room is None else room.tick

    def is_in(self, peer: Peer, venue: str) -> bool:
        member = self._members.get(peer)
        return member is not None and venue in member.rooms

    async def attach(self, peer: Peer, *, tenant: str, venue: str, subject: int, feed: bool, source: str | None, client: str,
                     resume: f.Place | None = None) -> History | None:  # fmt: skip
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
            history: History | None = [] if resume is None else await self._history(room, (resume.epoch, resume.offset))
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
                self._channels.unuse(room.channels)

    def replay(self, peer: Peer, venue: str, history: History) -> None:
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

    async def join(
        self,
        peer: Peer,
        *,
        tenant: str,
        topic: str,
        name: TopicName,
        rate_hz: float,
        view: f.View | None = None,
        bytes_per_s: int | None = None,
        resume: f.Place | None = None,
        where: tuple[Test, ...] | None = None,
        policy: f.Policy | None = None,
    ) -> Joined:
        """Subscribe a client, or let one that is subscribed look elsewhere; returns when the subscription is in force (or will be when the broker is back).

        `missed` is of the time of return: live publications after it reach the peer, none twice, if it is written before the loop turns.
        """
        member = self._members.setdefault(peer, _Membership())
        held = member.topics.get(topic)
        if held is not None and resume is None:
            reading = held.readings[peer]
            reading.interval_s = 1.0 / rate_hz
            _look(reading, view, bytes_per_s)
            self._choose(held, reading, where, policy)
            self._rewatch.set()
            return Joined(_place(held.channel))
        used = await self._channels.use(tenant, [(topic, name.kind, name.venue)])
        channel = used[0]
        missed: tuple[f.ServerFrame, ...] | None = None
        try:
            if name.kind in KINDS:
                await self._listen_members(tenant)
            if resume is not None:
                found = await self._channels.between(channel, (resume.epoch, resume.offset), limit=MAX_RESUME)
                if found is not None:
                    frames = (frame_of(body, f.Place(*at)) for at, body in found)
                    missed = tuple(frame for frame in frames if matches(where, frame))
        except BaseException:
            self._channels.unuse(used)
            raise
        # No await from here on.
        if topic in member.topics or self._gone(peer, member):  # joined twice at once, or gone meanwhile
            self._channels.unuse(used)
            return Joined(_place(channel))
        view_of = self._views.get(channel)
        if view_of is None:
            view_of = self._views[channel] = _View(channel)
        reading = _Reading(peer, 1.0 / rate_hz, self._clock.monotonic_s())
        _look(reading, view, bytes_per_s)
        view_of.readings[peer] = reading
        self._view_of[reading] = view_of
        self._choose(view_of, reading, where, policy)
        member.topics[topic] = view_of
        self._rewatch.set()
        return Joined(_place(channel), missed)

    def saw(self, peer: Peer, topic: str, number: int) -> None:
        """The client has drawn a frame of what it looks at."""
        member = self._members.get(peer)
        view = None if member is None else member.topics.get(topic)
        reading = None if view is None else view.readings[peer]
        if view is not None and reading is not None and reading.viewport is not None:
            full = reading.viewport.is_full
            reading.viewport.saw(number)
            if full and view.fanout is not None and not reading.viewport.is_full:
                self._offer_when_due(view, reading)

    async def announce(self, tenant: str, topic: str, body: t.Body) -> None:
        """Publish on an ephemeral topic that gateways speak on themselves. Raises Unavailable while the broker is away."""
        await self._channels.announce(tenant, topic, body)

    def latest(self, peer: Peer, topic: str) -> None:
        """Send the newest state of a topic, where one is known; changes of offers are no state. What was waiting in this turn of the loop is part of it."""
        member = self._members.get(peer)
        view = None if member is None else member.topics.get(topic)
        if view is not None and view.fanout is not None and view.channel.kind not in STATELESS:
            reading = view.readings[peer]
            if reading.viewport is not None and reading.viewport.bytes_per_s is not None:
                self._offer_when_due(view, reading)  # looking elsewhere all the time is within the allowance too
            else:
                self._offer(view, reading, self._clock.monotonic_s())

    def _offer_when_due(self, view: _View, reading: _Reading) -> None:
        now = self._clock.monotonic_s()
        if reading.due <= now + SLACK_S:
            self._offer(view, reading, now)
        else:
            self._wait(reading)

    def part(self, peer: Peer, topic: str) -> None:
        self.presence.part(peer, topic)
        member = self._members.get(peer)
        view = None if member is None else member.topics.pop(topic, None)
        if view is not None:
            self._forget(view, peer)

    def drop(self, peer: Peer) -> None:
        """The connection is gone."""
        self.presence.drop(peer)
        member = self._members.pop(peer, None)
        if member is None:
            return
        for view in member.topics.values():
            self._forget(view, peer)
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
            self._channels.unuse(room.channels)
        member.rooms.clear()

    def _gone(self, peer: Peer, member: _Membership) -> bool:
        """The connection ended while something was awaited for it; nothing may be registered for it any more."""
        if peer.session.state == "closed" and not member.rooms and not member.topics:
            self._members.pop(peer, None)
        return peer.session.state == "closed" or self._members.get(peer) is not member

    def _choose(self, view: _View, reading: _Reading, where: tuple[Test, ...] | None, policy: f.Policy | None) -> None:
        """From now on the reader gets what it wants of the topic, in its own way where it is slow. What it was owed under another policy is lost with that."""
        reading.where = where
        if not view.channel.durable:
            return
        peer = reading.peer
        self._hand_out(view)  # what was published before is not this choice's
        self._out_of_cohorts(view, peer)
        if policy in (None, "disconnect"):
            reading.owed = None
            self._late.pop(reading, None)
        elif reading.owed is None or reading.owed.by_key is not (policy == "keep_latest"):
            reading.owed = Owed(view.channel.topic, peer.session.codec, by_key=policy == "keep_latest")
            self._late.pop(reading, None)
        if reading.chooses:
            view.choosers[peer] = reading
        else:
            view.choosers.pop(peer, None)
            self._into_cohort(view, peer)

    def _into_cohort(self, view: _View, peer: Peer) -> None:
        self._hand_out(view)  # what was published before it came is not for it
        key = (peer.session.codec.format, self._full(peer))
        cohort = view.cohorts.get(key)
        if cohort is None:
            cohort = view.cohorts[key] = _Cohort(peer.session.codec, key[1])
        cohort.peers[peer] = None

    def _forget(self, view: _View, peer: Peer) -> None:
        reading = view.readings.pop(peer)
        self._out_of_cohorts(view, peer)
        view.choosers.pop(peer, None)
        self._late.pop(reading, None)
        self._waiting.discard(reading)
        del self._view_of[reading]
        self._channels.unuse([view.channel])

    def _out_of_cohorts(self, view: _View, peer: Peer) -> None:
        for key, cohort in list(view.cohorts.items()):
            if peer in cohort.peers:
                del cohort.peers[peer]
                if not cohort.peers:
                    del view.cohorts[key]

    # --- who reads a topic ---

    def _readers(self, tenant: str, topic: str) -> Collection[Peer]:
        channel = self._channels.find(tenant, topic)
        view = None if channel is None else self._views.get(channel)
        return () if view is None else view.readings.keys()

    async def _publish_members(self, tenant: str, body: t.Body) -> None:
        await self._channels.announce(tenant, MEMBERS, body)

    async def _listen_members(self, tenant: str) -> None:
        """Read the tenant's channel of rolls, from the first reader who may be asked for to the end of this process."""
        await self._listen(tenant, MEMBERS)

    async def _listen(self, tenant: str, topic: str) -> None:
        """Read a channel of gateways' own to the end of this process; returns when it is read."""
        if (tenant, topic) not in self._listening:
            used = await self._channels.use(tenant, [(topic, topic, None)])
            if (tenant, topic) in self._listening:  # by another, meanwhile
                self._channels.unuse(used)
            else:
                self._listening[tenant, topic] = used

    # --- consents ---

    def hear_consents(self, told: Callable[[str, t.ConsentTold], None], lost: Callable[[str], None]) -> None:
        """From now on `told(tenant, word)` hears what people of tenants that are listened to give and take back; `lost(tenant)`, that some of it is lost for good."""
        self._consent_told, self._consents_lost = told, lost

    async def listen_consents(self, tenant: str) -> None:
        """Returns when all that is told from now on is heard. Raises Unavailable while the journal is away."""
        await self._listen(tenant, t.CONSENTS)

    def venues_of(self, tenant: str, subject: int) -> list[str]:
        """Those that a connection of this person is in here."""
        return [venue for (of, venue), room in self._rooms.items() if of == tenant and subject in room.subjects]

    # --- rooms ---

    async def _room(self, tenant: str, venue: str) -> _Room:
        """The room, with one more use of its channels."""
        used = await self._channels.use(tenant, [(f"venue/{venue}/{kind}", kind, venue) for kind in ROOM_KINDS])
        room = self._rooms.get((tenant, venue))
        if room is None:
            room = self._rooms[(tenant, venue)] = _Room(tenant, venue, used)
            room.floor = room.pushes.head
        return room

    def _room_of(self, channel: Channel) -> _Room | None:
        return self._rooms.get((channel.tenant, channel.venue or ""))

    async def _history(self, room: _Room, after: At) -> History | None:
        if room.floor is not None and room.pushes.head is not None and room.floor <= after <= room.pushes.head:
            return [(at, batch) for at, batch in room.ring if at > after]
        found = await self._channels.between(room.pushes, after, limit=MAX_RESUME)
        return None if found is None else [(at, body) for at, body in found if isinstance(body, t.PushBatch)]

    # --- what the channels bring ---

    def durable(self, channel: Channel, at: At, body: t.Body) -> None:
        if isinstance(body, t.ConsentTold):
            self._consent_told(channel.tenant, body)
            return
        room = self._room_of(channel)
        if isinstance(body, t.PushBatch):
            if room is not None:
                self._pushes(room, at, body)
            return
        if isinstance(body, t.OfferChanged) and body.ended and room is not None:
            for peers in room.subjects.values():
                for peer in peers:
                    peer.session.offer_ended(room.venue, body.offer.id)
        view = self._views.get(channel)
        if view is not None:
            view.fanout = Fanout(frame_of(body, f.Place(*at)))
            full = False
            for cohort in view.cohorts.values():
                cohort.frames.append(view.fanout.encoded(cohort.codec, full=cohort.full))
                full = full or len(cohort.frames) >= f.MAX_BATCH
            for reading in list(view.choosers.values()):
                if matches(reading.where, view.fanout.frame):
                    self._hand_to(reading, key_of(body), view.fanout)
            if full:
                self._hand_out(view)
            elif view.cohorts and view not in self._turn:
                if not self._turn:
                    asyncio.get_running_loop().call_soon(self._end_turn)
                self._turn.append(view)

    def _end_turn(self) -> None:
        """Publications that came in one turn of the loop go out in one message."""
        views, self._turn = self._turn, []
        for view in views:
            self._hand_out(view)

    def _hand_out(self, view: _View) -> None:
        for cohort in list(view.cohorts.values()):
            if cohort.frames:
                frames, cohort.frames = cohort.frames, []
                self._to_all(list(cohort.peers), frames, cohort.codec)

    def _hand_to(self, reading: _Reading, key: str, fanout: Fanout) -> None:
        """A durable publication to one who chooses: now, or, where there is a policy for it and the reader is behind, later."""
        peer, owed = reading.peer, reading.owed
        encoded = fanout.encoded(peer.session.codec, full=self._full(peer))
        if owed is None or (not owed and peer.backlog() <= peer.session.limits.low_bytes):
            peer.write(encoded)
            return
        gone = owed.add(key, encoded)
        if gone:
            self._metrics.count("esplanade_gateway_conflated_total", gone, label="policy")
        self._late[reading] = None
        if self._late_handle is None:
            self._late_handle = asyncio.get_running_loop().call_later(LATE_S, self._catch_up)

    def _catch_up(self) -> None:
        """Slow readers get what they are owed, as far as they have read what they got."""
        self._late_handle = None
        for reading in list(self._late):
            peer, owed = reading.peer, reading.owed
            while owed is not None and peer.backlog() <= peer.session.limits.low_bytes:
                encoded = owed.next()
                if encoded is None:
                    break
                peer.write(encoded)
            if not owed:
                del self._late[reading]
        if self._late:
            self._late_handle = asyncio.get_running_loop().call_later(LATE_S, self._catch_up)

    def gap(self, channel: Channel) -> None:
        if channel.kind == t.CONSENTS:
            self._consents_lost(channel.tenant)
            return
        room = self._room_of(channel)
        if room is not None and room.pushes is channel:
            room.ring.clear()
            room.ring_rows = 0
            room.floor = channel.head

    def left(self, channel: Channel) -> None:
        self._views.pop(channel, None)
        room = self._room_of(channel)
        if room is not None and channel in room.channels:
            del self._rooms[(room.tenant, room.venue)]

    def resubscribed(self) -> None:
        task = asyncio.ensure_future(self._check_rewinds())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- pushes out ---

    def _pushes(self, room: _Room, at: At, batch: t.PushBatch) -> None:
        room.ring.append((at, batch))
        room.ring_rows += len(batch.subject) // 4
        while len(room.ring) > RING_BATCHES or (room.ring_rows > RING_ROWS and len(room.ring) > 1):
            gone_at, gone = room.ring.popleft()
            room.ring_rows -= len(gone.subject) // 4
            room.floor = gone_at
        # Feeds first: one frame carries thousands of people, and the people's own frames take a while.
        for peer, subjects in list(room.feeds.items()):
            self._columns_to(peer, subjects, at, batch)
        if room.subjects:
            now = self._clock.monotonic_s()
            for subject, offer, push in pushes_of(batch, at, room.subjects):
                for peer in list(room.subjects.get(subject, ())):
                    self._metrics.count("esplanade_gateway_pushes_total")
                    peer.perform(peer.session.push(push, ends_tick=offer.ends_tick, now=now))

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

    def ephemeral(self, channel: Channel, body: t.Body) -> None:
        now = self._clock.monotonic_s()
        room = self._room_of(channel)
        if isinstance(body, t.Rewind):
            self._rewind(channel.tenant, body)
            return
        if isinstance(body, t.Roll | t.RollCall):
            self.presence.heard(channel.tenant, body)
            return
        if isinstance(body, t.TickClosed) and room is not None:
            room.tick = body.tick
            room.epoch = max(room.epoch, body.epoch)
            if body.tick % 10 == 0:
                for peers in room.subjects.values():
                    for peer in peers:
                        peer.session.tick_closed(room.venue, body.tick)
        view = self._views.get(channel)
        if view is None:
            return
        if isinstance(body, t.PaymentStats):
            view.shards[body.shard] = (now, body)
            for shard in [s for s, (at, _) in view.shards.items() if now - at > SHARD_FORGOTTEN_S]:
                del view.shards[shard]
            view.fanout = Fanout(_sum_payments([stats for _, stats in view.shards.values()]))
        elif isinstance(body, t.Presence):
            view.forget_silent(now)
            if body.client in view.present or len(view.present) < MAX_PRESENT:
                view.present[body.client] = (now, f.Present(body.client, body.level, body.pose))
            view.fanout = view.presence(body.venue, body.scene)
        else:
            view.fanout = Fanout(frame_of(body))
            view.picture = None
        self._offer_all(view, now)

    def fade(self) -> None:
        """Tell of those who have fallen silent in a scene, also where nobody else speaks. Every few seconds."""
        now = self._clock.monotonic_s()
        for view in list(self._views.values()):
            if view.present and view.forget_silent(now):
                assert view.fanout is not None
                assert isinstance(view.fanout.frame, f.PresenceIs)
                view.fanout = view.presence(view.fanout.frame.venue, view.fanout.frame.scene)
                self._offer_all(view, now)

    def _offer_all(self, view: _View, now: float) -> None:
        for reading in list(view.readings.values()):
            if reading.due <= now + SLACK_S:
                self._offer(view, reading, now)
            else:
                if reading.waiting:
                    self._metrics.count("esplanade_gateway_conflated_total", label="rate")
                self._wait(reading)

    def _offer(self, view: _View, reading: _Reading, now: float) -> None:
        """Send the newest state, unless the reader is behind: then try again after its interval."""
        assert view.fanout is not None
        peer = reading.peer
        reading.due = max(reading.due, now - reading.interval_s) + reading.interval_s
        if peer.backlog() > peer.session.limits.low_bytes:
            self._metrics.count("esplanade_gateway_conflated_total", label="slow")
            reading.due = now + reading.interval_s
            self._wait(reading)
            return
        if reading.viewport is not None:
            self._offer_view(view, reading, reading.viewport, now)
            return
        reading.waiting = False
        self._waiting.discard(reading)
        if not matches(reading.where, view.fanout.frame):
            return
        peer.write(view.fanout.encoded(peer.session.codec, full=self._full(peer)))

    def _offer_view(self, view: _View, reading: _Reading, viewport: Viewport, now: float) -> None:
        """Send what changed in the rectangle, unless the client has enough to draw; a frame above the allowance puts the next one off."""
        reading.waiting = False
        self._waiting.discard(reading)
        if viewport.is_full:
            self._metrics.count("esplanade_gateway_conflated_total", label="unseen")
            return
        if view.picture is None:
            assert view.fanout is not None
            assert isinstance(view.fanout.frame, f.Dots)
            view.picture = Picture(view.fanout.frame)
        frame = viewport.frame(view.picture, interval_s=reading.interval_s)
        if frame is not None:
            encoded = reading.peer.session.codec.encode(frame)
            if viewport.bytes_per_s is not None:
                reading.due = max(reading.due, now + len(encoded) / viewport.bytes_per_s)
            reading.peer.write(encoded)

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
            self._offer(self._view_of[reading], reading, now)
        if self._waiting:
            self._wait(min(self._waiting, key=lambda r: r.due))

    def _rewind(self, tenant: str, body: t.Rewind) -> None:
        """To every source of the venue and every reader of its clock, at once: never conflated."""
        room = self._rooms.get((tenant, body.venue))
        peers: set[Peer] = set()
        if room is not None:
            room.epoch = max(room.epoch, body.epoch)
            peers |= room.sources
        channel = self._channels.find(tenant, f"venue/{body.venue}/clock")
        view = None if channel is None else self._views.get(channel)
        if view is not None:
            peers |= view.readings.keys()
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
                    self._rewind(room.tenant, t.Rewind(venue=room.venue, tick=clock.tick, epoch=clock.epoch))

    @staticmethod
    def _full(peer: Peer) -> bool:
        identity = peer.session.identity
        return identity is not None and holds(identity.role, "counts.read")

    async def _watch(self) -> None:
        while True:
            self._rewatch.clear()
            self.fade()
            wanted: dict[tuple[str, str], dict[str, float]] = {}
            for reading, view in self._view_of.items():
                channel = view.channel
                if channel.venue is not None and not channel.durable:
                    rates = wanted.setdefault((channel.tenant, channel.venue), {})
                    rates[channel.topic] = max(rates.get(channel.topic, 0.0), 1.0 / reading.interval_s)
            for (tenant, venue), rates in wanted.items():
                try:
                    await self._system.watch(tenant, venue, rates)
                except EsplanadeError as error:  # said again in WATCH_S
                    _log.info("watch_postponed", extra={"tenant": tenant, "venue": venue, "error": str(error)})
                except Exception:  # ours; other venues must not go unwatched for it
                    _log.exception("watch_failed", extra={"tenant": tenant, "venue": venue})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_S):  # not wait_for: before Python 3.12 it can swallow the cancellation by `stop`
                    await self._rewatch.wait()


def _look(reading: _Reading, view: f.View | None, bytes_per_s: int | None) -> None:
    if view is None:
        reading.viewport = None
    elif reading.viewport is None:
        reading.viewport = Viewport(view, bytes_per_s=bytes_per_s)
    else:
        reading.viewport.look(view, bytes_per_s=bytes_per_s)


def _place(channel: Channel) -> f.Place | None:
    return None if channel.head is None else f.Place(*channel.head)


def _sum_payments(stats: list[t.PaymentStats]) -> f.PaymentStats:
    volume: dict[str, int] = {}
    for one in stats:
        for currency, amount in one.volume.items():
            volume[currency] = volume.get(currency, 0) + amount
    return f.PaymentStats(payments=sum(s.payments for s in stats), refused=sum(s.refused for s in stats), volume=volume)
