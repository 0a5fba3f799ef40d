"""Journal, catalogue and broker in the memory of one process, for tests of logic; they pass the same contract suites as the real ones.

A store object stands for the server: several journals (catalogues, brokers) on one store are several owners of one database. The journal's hooks let a
test hold a flush before or after its commit, or fail it there: failed before, nothing happened; failed after, it did, and the caller cannot know.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from typing import Final, Literal

import msgspec

from esplanade.core.clock import SystemClock
from esplanade.core.errors import Conflict, EsplanadeError, Fenced, InvalidInput, NotFound, Unavailable
from esplanade.storage import audit
from esplanade.storage.audit import AuditLine
from esplanade.storage.broker import check_put
from esplanade.storage.catalogue import (
    FIRST_SUBJECT,
    RADIO_MAPS_KEPT,
    RadioMapEntry,
    VenueEntry,
    check_radio_map,
    check_subject,
    describe_venue,
    no_such_map,
)
from esplanade.storage.flush_rules import (
    check_flush,
    check_lease,
    check_limit,
    check_partition,
    check_partitions,
    check_snapshot,
    event_copy,
    fenced_message,
    misplaced_message,
    repeated_message,
    unbacked_message,
    unreadable_message,
)
from esplanade.storage.journal import Append, Lease, OutboxEntry, Published, Segment, Snapshot, StoredReply
from esplanade.storage.pending import PendingMessages
from esplanade.storage.people import Person

Hook = Callable[[Sequence[Append]], Awaitable[None]]


class _Topic(msgspec.Struct):
    epoch: int = 1
    last: int = 0
    trimmed: int = 0  # entries up to this offset are gone
    entries: deque[tuple[int, Published]] = msgspec.field(default_factory=deque)  # (created_unix_ms, entry)


class MemoryStore:
    """What the journals of one test share. `clock` plays the database's clock."""

    def __init__(self, clock: SystemClock) -> None:
        self.clock: Final = clock
        self.leases: dict[int, Lease] = {}
        self.logs: dict[tuple[str, int], list[Segment]] = {}
        self.snapshots: dict[tuple[str, int], Snapshot] = {}
        self.topics: dict[tuple[str, str], _Topic] = {}
        self.replies: dict[tuple[str, bytes], StoredReply] = {}

    def forget_topic(self, tenant: str, topic: str) -> None:
        """Lose a topic's history, as a restore from an old copy would: the next epoch begins."""
        held = self.topics.setdefault((tenant, topic), _Topic())
        self.topics[(tenant, topic)] = _Topic(epoch=held.epoch + 1)


class MemoryJournal:
    """A journal on a `MemoryStore`. Flushes are atomic: nothing is awaited between the checks and the last write."""

    def __init__(self, store: MemoryStore) -> None:
        self.store: Final = store
        self.before_commit: Hook | None = None
        """Awaited before the flush is checked and applied; an exception from it fails the flush with nothing done."""
        self.after_commit: Hook | None = None
        """Awaited after the flush is applied; an exception from it fails the call although everything is durable."""
        self.flushes = 0
        self._failures: deque[tuple[Literal["before_commit", "after_commit"], EsplanadeError]] = deque()
        self._closed = False

    def fail_next_flush(self, where: Literal["before_commit", "after_commit"], error: EsplanadeError | None = None) -> None:
        """Fail the next flush (calls add up, in order) with `error`, or Unavailable."""
        self._failures.append((where, error or Unavailable(f"flush failed {where.replace('_', ' ')}, as the test asked")))

    async def acquire(self, partitions: Sequence[int], owner: str, *, ttl_ms: int) -> list[Lease]:
        self._check_open()
        check_lease(partitions, ttl_ms)
        taken = []
        for partition in partitions:
            held = self.store.leases.get(partition)
            epoch = 1 if held is None else held.epoch if held.owner == owner else held.epoch + 1
            lease = Lease(partition=partition, owner=owner, epoch=epoch, expires_unix_ms=self.store.clock.unix_ms() + ttl_ms)
            self.store.leases[partition] = lease
            taken.append(lease)
        return taken

    async def renew(self, leases: Sequence[Lease], *, ttl_ms: int) -> list[Lease]:
        self._check_open()
        check_lease([lease.partition for lease in leases], ttl_ms)
        renewed = []
        for lease in leases:
            held = self.store.leases.get(lease.partition)
            if held is not None and (held.owner, held.epoch) == (lease.owner, lease.epoch):
                new = msgspec.structs.replace(held, expires_unix_ms=self.store.clock.unix_ms() + ttl_ms)
                self.store.leases[lease.partition] = new
                renewed.append(new)
        return renewed

    async def leases(self) -> list[Lease]:
        self._check_open()
        return [self.store.leases[partition] for partition in sorted(self.store.leases)]

    async def flush(self, appends: Sequence[Append], outbox: Sequence[OutboxEntry] = (), keys: Sequence[StoredReply] = ()) -> list[Published]:
        self._check_open()
        check_flush(appends, outbox, keys)
        failure = self._failures.popleft() if self._failures else None
        if self.before_commit is not None:
            await self.before_commit(appends)
        if failure is not None and failure[0] == "before_commit":
            raise failure[1]
        published = self._commit(appends, outbox, keys)
        if self.after_commit is not None:
            await self.after_commit(appends)
        if failure is not None:
            raise failure[1]
        return published

    def _commit(self, appends: Sequence[Append], outbox: Sequence[OutboxEntry], keys: Sequence[StoredReply]) -> list[Published]:
        store, now = self.store, self.store.clock.unix_ms()
        for append in appends:
            held = store.leases.get(append.partition)
            if held is None or held.epoch != append.epoch:
                raise Fenced(fenced_message(append.partition, append.epoch, None if held is None else held.epoch))
            head = len(store.logs.get((append.tenant, append.partition), ()))
            if append.position != head + 1:
                raise Fenced(misplaced_message(append.tenant, append.partition, append.position, head))
        for reply in keys:
            recorded = store.replies.get((reply.tenant, reply.key))
            if recorded is not None and recorded.expires_unix_ms > now:
                raise Conflict(repeated_message(reply.tenant, reply.key))
        self.flushes += 1
        for append in appends:
            if append.events:
                segment = Segment(
                    tenant=append.tenant, partition=append.partition, position=append.position, epoch=append.epoch,
                    written_unix_ms=now, events=event_copy(append.events),
                )  # fmt: skip
                store.logs.setdefault((append.tenant, append.partition), []).append(segment)
        for reply in keys:
            store.replies[(reply.tenant, reply.key)] = reply
        published = []
        for entry in outbox:
            topic = store.topics.setdefault((entry.tenant, entry.topic), _Topic())
            topic.last += 1
            place = Published(tenant=entry.tenant, topic=entry.topic, epoch=topic.epoch, offset=topic.last, body=bytes(entry.body))
            topic.entries.append((now, place))
            published.append(place)
        return published

    async def heads(self, partition: int) -> dict[str, int]:
        return {tenant: position for (tenant, _), position in (await self.logs([partition])).items()}

    async def logs(self, partitions: Sequence[int]) -> dict[tuple[str, int], int]:
        self._check_open()
        wanted = check_partitions(partitions)
        return {place: len(log) for place, log in self.store.logs.items() if place[1] in wanted and log}

    async def read(self, tenant: str, partition: int, *, after: int = 0) -> AsyncIterator[Segment]:
        self._check_open()
        check_partition(partition)
        if after < 0:
            raise InvalidInput(f"after {after}: positions count from 1; pass 0 for the beginning")
        log = self.store.logs.get((tenant, partition), [])
        while after < len(log):
            yield log[after]
            after += 1

    async def reply_of(self, tenant: str, key: bytes) -> StoredReply | None:
        self._check_open()
        reply = self.store.replies.get((tenant, key))
        return reply if reply is not None and reply.expires_unix_ms > self.store.clock.unix_ms() else None

    async def put_snapshot(self, snapshot: Snapshot) -> None:
        self._check_open()
        check_snapshot(snapshot)
        log = (snapshot.tenant, snapshot.partition)
        head = len(self.store.logs.get(log, ()))
        if not 1 <= snapshot.position <= head:
            raise InvalidInput(unbacked_message(snapshot, head))
        held = self.store.snapshots.get(log)
        if held is None or held.position < snapshot.position:
            self.store.snapshots[log] = snapshot

    async def snapshot(self, tenant: str, partition: int) -> Snapshot | None:
        self._check_open()
        check_partition(partition)
        return self.store.snapshots.get((tenant, partition))

    async def published(self, tenant: str, topic: str, *, epoch: int, after: int, limit: int = 1000) -> list[Published]:
        self._check_open()
        check_limit(limit)
        held = self.store.topics.get((tenant, topic), _Topic())
        if epoch != held.epoch or not held.trimmed <= after <= held.last:
            raise NotFound(unreadable_message(tenant, topic, epoch, after, (held.epoch, held.trimmed, held.last)))
        return [entry for _, entry in held.entries if entry.offset > after][:limit]

    async def place(self, tenant: str, topic: str) -> tuple[int, int]:
        self._check_open()
        held = self.store.topics.get((tenant, topic), _Topic())
        return held.epoch, held.last

    async def topics_used(self, topics: Sequence[str]) -> set[tuple[str, str]]:
        self._check_open()
        wanted = {*topics}
        return {place for place, topic in self.store.topics.items() if place[1] in wanted and topic.last}

    async def trim_outbox(self, *, older_than_ms: int) -> int:
        """Drop outbox entries written `older_than_ms` ago or earlier; returns how many. Their offsets can no longer be resumed from."""
        self._check_open()
        limit = self.store.clock.unix_ms() - older_than_ms
        dropped = 0
        for topic in self.store.topics.values():
            while topic.entries and topic.entries[0][0] <= limit:
                topic.trimmed = topic.entries.popleft()[1].offset
                dropped += 1
        return dropped

    async def drop_expired_keys(self) -> int:
        """Drop idempotency keys whose window is over; returns how many."""
        self._check_open()
        now = self.store.clock.unix_ms()
        expired = [key for key, reply in self.store.replies.items() if reply.expires_unix_ms <= now]
        for key in expired:
            del self.store.replies[key]
        return len(expired)

    async def close(self) -> None:
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the journal is closed; open another one")


class MemoryCatalogue:
    """A catalogue in memory; share the object to share the data."""

    def __init__(self, clock: SystemClock) -> None:
        self._clock = clock
        self._tenants: dict[str, str] = {}
        self._venues: dict[tuple[str, str], tuple[VenueEntry, bytes]] = {}
        self._maps: dict[tuple[str, str], list[tuple[RadioMapEntry, bytes]]] = {}
        self._subjects: dict[str, int] = {}
        self._secrets: dict[str, bytes] = {}

    async def add_tenant(self, tenant: str, name: str) -> None:
        self._tenants.setdefault(tenant, name)

    async def tenants(self) -> list[str]:
        return sorted(self._tenants)

    async def put_venue(self, tenant: str, document: bytes) -> VenueEntry:
        self._check_tenant(tenant)
        entry = describe_venue(tenant, document, created_unix_ms=self._clock.unix_ms())
        self._venues[(tenant, entry.venue)] = (entry, bytes(document))
        return entry

    async def venue(self, tenant: str, venue: str) -> bytes:
        held = self._venues.get((tenant, venue))
        if held is None:
            raise NotFound(f"venue {venue!r} of {tenant!r}: not in the catalogue; import it first")
        return held[1]

    async def venues(self, tenant: str | None = None) -> list[VenueEntry]:
        return [entry for key, (entry, _) in sorted(self._venues.items()) if tenant is None or key[0] == tenant]

    async def put_radio_map(self, tenant: str, venue: str, body: bytes) -> RadioMapEntry:
        digest = check_radio_map(venue, body)
        await self.venue(tenant, venue)
        held = self._maps.setdefault((tenant, venue), [])
        if not held or held[-1][0].digest != digest:
            held.append((RadioMapEntry(venue, held[-1][0].version + 1 if held else 1, digest), bytes(body)))
            del held[:-RADIO_MAPS_KEPT]
        return held[-1][0]

    async def radio_map_entry(self, tenant: str, venue: str) -> RadioMapEntry | None:
        held = self._maps.get((tenant, venue))
        return held[-1][0] if held else None

    async def radio_map(self, tenant: str, venue: str, version: int) -> bytes:
        for entry, body in self._maps.get((tenant, venue), []):
            if entry.version == version:
                return body
        raise no_such_map(tenant, venue, version)

    async def next_subject(self, tenant: str) -> int:
        self._check_tenant(tenant)
        number = self._subjects.get(tenant, FIRST_SUBJECT)
        self._subjects[tenant] = number + 1
        return check_subject(tenant, number)

    async def secret(self, name: str, make: bytes) -> bytes:
        return self._secrets.setdefault(name, bytes(make))

    async def close(self) -> None:
        pass

    def _check_tenant(self, tenant: str) -> None:
        if tenant not in self._tenants:
            raise NotFound(f"tenant {tenant!r}: not in the catalogue; add it first")


class MemoryAudit:
    """An audit trail in memory; share the object to share the data. `available` set to False makes every call raise Unavailable."""

    def __init__(self) -> None:
        self.available = True
        self._lines: dict[bytes, AuditLine] = {}

    async def append(self, lines: Sequence[AuditLine]) -> None:
        self._check_available()
        for line in lines:
            self._lines.setdefault(line.id, line)

    async def lines(self, tenant: str, *, since_unix_ms: int = 0, limit: int = 1000) -> list[AuditLine]:
        self._check_available()
        audit.check_limit(limit)
        found = [line for line in self._lines.values() if line.tenant == tenant and line.at_unix_ms >= since_unix_ms]
        return sorted(found, key=lambda line: (line.at_unix_ms, line.id))[:limit]

    async def close(self) -> None:
        pass

    def _check_available(self) -> None:
        if not self.available:
            raise Unavailable("the audit trail is away, as the test asked")


class MemorySubjectKeys:
    """Wrapped keys in memory; share the object to share the data. An erased subject has None."""

    def __init__(self) -> None:
        self._keys: dict[tuple[str, str], bytes | None] = {}

    async def key(self, tenant: str, subject: str, make: bytes | None = None) -> bytes | None:
        return self._keys.get((tenant, subject)) if make is None else self._keys.setdefault((tenant, subject), make)

    async def erase(self, tenant: str, subject: str) -> bool:
        held = self._keys.get((tenant, subject)) is not None
        self._keys[(tenant, subject)] = None
        return held

    async def erased(self, tenant: str, subject: str) -> bool:
        return (tenant, subject) in self._keys and self._keys[(tenant, subject)] is None

    async def close(self) -> None:
        pass


class MemoryPeople:
    """When somebody was last heard of, in memory; share the object to share the data. `tenants`: those that are there."""

    def __init__(self, tenants: Collection[str]) -> None:
        self._tenants = tenants
        self._heard: dict[tuple[str, int], int] = {}

    async def hear(self, heard: Sequence[Person]) -> None:
        for one in heard:
            if one.tenant in self._tenants:
                key = (one.tenant, one.subject)
                self._heard[key] = max(one.heard_ms, self._heard.get(key, 0))

    async def silent(self, tenant: str, *, before_ms: int, limit: int) -> list[Person]:
        found = [Person(of, subject, at_ms) for (of, subject), at_ms in self._heard.items() if of == tenant and at_ms < before_ms]
        return sorted(found, key=lambda one: (one.heard_ms, one.subject))[:limit]

    async def forget(self, person: Person) -> bool:
        held = self._heard.get((person.tenant, person.subject))
        if held is None or held > person.heard_ms:
            return False
        del self._heard[person.tenant, person.subject]
        return True

    async def close(self) -> None:
        pass


class MemoryHub:
    """What the brokers of one test share: the subscriptions and the expiring values. `lose_connections` plays a restart of the real server."""

    def __init__(self, clock: SystemClock) -> None:
        self.clock: Final = clock
        self.subscriptions: set[MemorySubscription] = set()
        self.values: dict[str, tuple[int, bytes]] = {}  # key -> (expires_unix_ms, value)

    def lose_connections(self) -> None:
        """Every subscription ends with Unavailable; messages that were not read yet are lost, and so are the values."""
        self.values.clear()
        for subscription in list(self.subscriptions):
            subscription.lose("the test cut the connection")


class MemorySubscription:
    """Holds what was published on its channels until it is read; over the limit it is lost, as a slow reader of Redis is."""

    def __init__(self, hub: MemoryHub) -> None:
        self._hub = hub
        self._channels: set[str] = set()
        self._pending = PendingMessages()
        hub.subscriptions.add(self)

    async def add(self, channels: Sequence[str]) -> None:
        self._pending.check()
        self._channels.update(channels)

    async def remove(self, channels: Sequence[str]) -> None:
        self._pending.check()
        self._channels.difference_update(channels)

    def __aiter__(self) -> AsyncIterator[tuple[str, bytes]]:
        return aiter(self._pending)

    def deliver(self, channel: str, message: bytes) -> None:
        if channel in self._channels and not self._pending.offer(channel, message):
            self._hub.subscriptions.discard(self)

    def lose(self, why: str) -> None:
        self._hub.subscriptions.discard(self)
        self._pending.lose(why)

    async def close(self) -> None:
        self._hub.subscriptions.discard(self)
        self._pending.close()


class MemoryBroker:
    """A broker on a `MemoryHub`; `available` set to False makes every call raise Unavailable."""

    def __init__(self, hub: MemoryHub) -> None:
        self.hub: Final = hub
        self.available = True

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        self._check_available()
        for channel, message in messages:
            for subscription in list(self.hub.subscriptions):
                subscription.deliver(channel, bytes(message))

    async def subscribe(self) -> MemorySubscription:
        self._check_available()
        return MemorySubscription(self.hub)

    async def put(self, key: str, value: bytes, *, ttl_s: float) -> None:
        self._check_available()
        check_put(key, value, ttl_s)
        self.hub.values[key] = (self.hub.clock.unix_ms() + max(1, round(ttl_s * 1000)), bytes(value))

    async def get(self, key: str) -> bytes | None:
        self._check_available()
        held = self.hub.values.get(key)
        return held[1] if held is not None and held[0] > self.hub.clock.unix_ms() else None

    async def keys(self, prefix: str) -> list[str]:
        self._check_available()
        now = self.hub.clock.unix_ms()
        return sorted(key for key, (expires, _) in self.hub.values.items() if key.startswith(prefix) and expires > now)

    async def close(self) -> None:
        self.available = False

    def _check_available(self) -> None:
        if not self.available:
            raise Unavailable("the broker is away; what is durable is in the journal, ask again")
