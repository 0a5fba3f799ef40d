"""The entities of one tenant in one partition, folded from their log, and the position hosts among them.

Owns the replay (newest snapshot, then every segment after it) and the snapshot. It flushes nothing: the shard's flusher does.
"""

from __future__ import annotations

import hashlib
import sys
from collections import deque
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from actors.allotment import Allotment
from actors.anchors import Anchors
from actors.behaviour import Behaviour
from actors.edit_book import EditBook
from actors.entity import Entity, SavedEntity
from actors.events import decode_event, encode_event
from actors.festival import Festival
from actors.ledger import Ledger
from actors.mall import Mall, MallState
from actors.positions import HostSettings, PositionHost, Step
from actors.reminders import Alarms
from actors.requests import host_address
from actors.scene import SceneActor
from actors.session import Session
from actors.traits import Traits
from actors.venue_book import VenueBook
from actors.venue_shelf import VenueShelf
from actors.zone import Zone
from esplanade.core.errors import Fault, NotFound
from esplanade.core.ids import VENUE_KINDS, Address
from esplanade.storage.journal import Event, Journal, Snapshot, size_of
from spatial.offers import Offer
from spatial.zone_shapes import DrawnZone

if TYPE_CHECKING:
    from actors.frame import Slot

Behaviours = Mapping[str, Behaviour[Any]]
"""Behaviours by kind."""

BEHAVIOURS: Final[Behaviours] = {
    "mall": Mall(),
    "festival": Festival(),
    "zone": Zone(),
    "ledger": Ledger(),
    "session": Session(),
    "allotment": Allotment(),
    "anchors": Anchors(),
    "scene": SceneActor(),
}


EVENT_COST: Final = 128
"""What folding one event costs in a replay, as bytes of a snapshot."""
BODY_BYTES: Final = 3
"""Of an event, that cost as much as one byte of a snapshot. A busy ledger's snapshot is its newest million payments, 24 MB, and as many come again in ten seconds: so it writes
9 bytes of snapshot for a payment of 26, and what its replay takes is at most three times what its snapshot does."""
SNAPSHOT_COST: Final = 256 * 1024
"""A replay of so much (some 2,000 small events, a tenth of a second) is worth a snapshot, unless the newest snapshot is larger: then as much as that."""
SNAPSHOT_AGE_S: Final = 60.0

RESTED_COST: Final = SNAPSHOT_COST // 4
"""Of a log that nobody writes to any more: what is worth a snapshot then, unless a quarter of the newest is more. The snapshot of what rests is written once, and read at each
wake: a ledger of 125,000 wallets in a third of the time that its replay takes."""
AT_REST_S: Final = 3.0

PARTING_SEGMENTS: Final = 16
"""Segments after the newest snapshot that make another one worth while when the log changes hands."""


class HostedPositions:
    """A position host with its place in the log: name and version."""

    __slots__ = ("advancing", "host", "name", "version")

    def __init__(self, address: Address, host: PositionHost) -> None:
        self.name = str(address)
        self.version = 0
        self.host = host
        self.advancing = False

    def enter(self, step: Step) -> list[Event]:
        """The step's events as stored ones; the host has applied them already."""
        entered = []
        for body in step.events:
            self.version += 1
            entered.append(Event(self.name, self.version, *encode_event(body)))
        return entered


def _cost(events: int, size: int) -> int:
    """Of folding so many events and bytes in a replay."""
    return EVENT_COST * events + size // BODY_BYTES


class _Standing:
    """What a mall's entity has in force; its state may be another object after a turn."""

    __slots__ = ("_mall",)

    def __init__(self, mall: Entity) -> None:
        self._mall = mall

    @property
    def standing(self) -> int:
        state: MallState = self._mall.state
        return state.standing

    @property
    def edits(self) -> EditBook:
        state: MallState = self._mall.state
        return state.edits

    @property
    def traits(self) -> Traits:
        state: MallState = self._mall.state
        return state.traits

    @property
    def closed(self) -> Collection[str]:
        state: MallState = self._mall.state
        return state.closed

    @property
    def zones(self) -> Mapping[str, DrawnZone]:
        state: MallState = self._mall.state
        return state.zones


class _SavedLog(msgspec.Struct, array_like=True):
    entities: list[SavedEntity]
    hosts: list[tuple[str, int, bytes]]  # address, version, state


class PartitionLog:
    """`live`: replayed and serving; `given_up`: to be forgotten, whoever still holds it. `queue`: requests that wait for the log or for a venue."""

    def __init__(
        self,
        tenant: str,
        partition: int,
        epoch: int,
        *,
        secret: bytes,
        settings: HostSettings,
        snapshot_segments: int,
        now_s: float = 0.0,
        behaviours: Behaviours = BEHAVIOURS,
    ) -> None:
        self.tenant = tenant
        self.partition = partition
        self.epoch = epoch
        self.position = 0
        self.live = False
        self.given_up = False
        self.used_s = 0.0
        self.queue: deque[Slot] = deque()
        self.entities: dict[Address, Entity] = {}
        self.ledgers: list[Entity] = []
        self.allotments: list[Entity] = []
        self.malls: list[Entity] = []  # and festivals
        self.alarms = Alarms()
        self.hosts: dict[str, HostedPositions] = {}
        self.orphans: set[str] = set()  # venues with a host in the journal that are gone from the catalogue
        self._secret = secret
        self._settings = settings
        self._snapshot_segments = snapshot_segments
        self._snapshot_position = 0
        self._behaviours = behaviours
        self._snapshot_bytes = 0
        self._snapshot_s = now_s
        self._grown_s = now_s
        self._since = 0  # cost of replaying what follows the newest snapshot, in bytes

    # --- entities -----------------------------------------------------------------------------------------------------

    def entity(self, address: Address) -> Entity:
        """The entity, new where it is not here. Raises NotFound for a kind that does not exist."""
        held = self.entities.get(address)
        if held is None:
            behaviour = self._behaviours.get(address.kind)
            if behaviour is None:
                raise NotFound(f"{address}: no kind {address.kind!r}; kinds are {', '.join(sorted(self._behaviours))}")
            address = Address(
                sys.intern(address.kind), sys.intern(address.tenant), address.id
            )  # the same text in all of them: one object, near at hand
            held = self.entities[address] = Entity(address, behaviour)
            held.log = self
            if address.kind == "ledger":
                self.ledgers.append(held)
            elif address.kind == "allotment":
                self.allotments.append(held)
            elif address.kind in VENUE_KINDS:
                self.malls.append(held)
        return held

    def host(self, venue: str) -> PositionHost | None:
        held = self.hosts.get(venue)
        return held.host if held is not None else None

    def open_host(self, book: VenueBook, now_s: float) -> tuple[HostedPositions, Step]:
        """Make the host of a venue that has none yet in memory."""
        held = self.hosts[book.venue.id] = HostedPositions(host_address(self.tenant, book.venue.id), self._make_host(book))
        return held, held.host.start(now_s)

    def _make_host(self, book: VenueBook) -> PositionHost:
        mall = self.entity(Address(book.venue.kind, self.tenant, book.venue.id))

        def offers() -> tuple[int, Mapping[str, Offer]]:
            state: MallState = mall.state
            return state.book.revision, state.book.offers

        salt = f"{self.tenant}/{book.venue.id}/{self.epoch}".encode()
        key = hashlib.blake2b(salt, key=self._secret[:64], digest_size=64).digest()
        return PositionHost(book, offers, epoch=self.epoch, pseudonym_key=key, settings=self._settings, standing=_Standing(mall))

    # --- replay and snapshot ------------------------------------------------------------------------------------------

    async def replay(self, journal: Journal, shelf: VenueShelf, now_s: float) -> list[tuple[HostedPositions, Step]]:
        """Fold the log; returns what its hosts say at their start. Raises Fault where the log does not fold, Unavailable."""
        parsed: dict[str, Address] = {}
        snapshot = await journal.snapshot(self.tenant, self.partition)
        if snapshot is not None:
            saved = msgspec.msgpack.decode(snapshot.body, type=_SavedLog)
            self.position = self._snapshot_position = snapshot.position
            self._snapshot_bytes = len(snapshot.body)
            for kept in saved.entities:
                self.entity(Address.parse(kept.address)).load(kept)
            for name, version, state in saved.hosts:
                found = await self._hosted(Address.parse(name), shelf, now_s)
                if found is not None:
                    found.version = version
                    found.host.load(state)
        async for segment in journal.read(self.tenant, self.partition, after=self.position):
            self._since += _cost(len(segment.events), size_of(segment.events))
            for event in segment.events:
                address = parsed.get(event.entity)
                if address is None:
                    address = parsed[event.entity] = Address.parse(event.entity)
                if address.kind == "positions":
                    held = self.hosts.get(address.id) or await self._hosted(address, shelf, now_s)
                    if held is None:
                        continue
                    if event.version != held.version + 1:
                        raise Fault(f"{held.name}: stored event {event.version} follows version {held.version}; the journal has a gap")
                    held.host.apply(decode_event(event.type, event.body))
                    held.version = event.version
                else:
                    self.entity(address).fold(event)
            self.position = segment.position
        for entity in self.entities.values():
            if entity.reminders:
                self.alarms.marked = True
                self.alarms.add(entity.address, tuple((held.due_ms, name) for name, held in entity.reminders.items()))
        return [(held, held.host.start(now_s)) for held in self.hosts.values()]

    async def _hosted(self, address: Address, shelf: VenueShelf, now_s: float) -> HostedPositions | None:
        """The host to fold into; None where the venue is gone from the catalogue. The log is then served without it, and takes no snapshot, so nothing is lost."""
        if address.id in self.orphans:
            return None
        try:
            book = await shelf.fetch(self.tenant, address.id, now_s)
        except NotFound:
            self.orphans.add(address.id)
            return None
        held = self.hosts[address.id] = HostedPositions(address, self._make_host(book))
        return held

    def grow(self, events: int, size: int, now_s: float) -> None:
        self._since += _cost(events, size)
        self._grown_s = now_s

    def snapshot_due(self, now_s: float) -> bytes | None:
        """By cost of the replay, by segments and by age, never so often that snapshots cost more than a few times what the journal does."""
        before = self._snapshot_bytes
        due = (
            self._since >= max(SNAPSHOT_COST, before)
            or (self.position + 1 - self._snapshot_position >= self._snapshot_segments and self._since >= before // 4)
            or (now_s - self._snapshot_s >= SNAPSHOT_AGE_S and self._since >= before // 8)
        )
        return self._cut(self.position + 1, now_s) if due and not self.orphans else None

    def rested(self, now_s: float) -> Snapshot | None:
        """A snapshot of what has come to rest, so that its next owner has little to replay. Everything here is durable."""
        if self.orphans or now_s - self._grown_s < AT_REST_S or self._since < max(RESTED_COST, self._snapshot_bytes // 4):
            return None
        return Snapshot(self.tenant, self.partition, self.position, self._cut(self.position, now_s))

    def _cut(self, position: int, now_s: float) -> bytes:
        body = self.save()
        self._snapshot_position, self._snapshot_bytes, self._snapshot_s, self._since = position, len(body), now_s, 0
        return body

    def parting(self) -> Snapshot | None:
        """A snapshot for the next owner, who replays it instead of the segments; None where there is little to replay. Everything here is durable."""
        if not self.live or self.orphans or self.position - self._snapshot_position < PARTING_SEGMENTS:
            return None
        return Snapshot(self.tenant, self.partition, self.position, self.save())

    def save(self) -> bytes:
        """All entities and hosts as they are now."""
        entities = [self.entities[address].save() for address in sorted(self.entities)]
        hosts = [(held.name, held.version, held.host.save()) for _, held in sorted(self.hosts.items())]
        return msgspec.msgpack.encode(_SavedLog(entities, hosts))
