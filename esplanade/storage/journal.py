"""The journal: a log per (tenant, partition) with one writer, in segments; leases with fencing epochs; snapshots; the outbox.

Four verbs over bytes. The store sees (entity, version, type, bytes) and never what they mean. A *flush* is one transaction: it checks the
lease's epoch of every partition it touches, appends at most one segment a (tenant, partition), assigns (epoch, offset) to outbox entries and
records idempotency keys. It happens wholly or not at all; when it raises anything but Fenced the outcome is *unknown*, and the caller
drops and replays what it had in flight. Implementations: `postgres` (real), `memory` (tests of logic); one contract suite for both.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import msgspec


class Lease(msgspec.Struct, frozen=True):
    """Ownership of a partition. `epoch` grows by one at every change of owner and never falls."""

    partition: int
    owner: str
    epoch: int
    expires_unix_ms: int


class Event(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One stored event. `version` counts the entity's events from 1; `type` is a declared name such as 'offer_created.v1'.

    The last event of a connection's command says which command it was and what it was answered: `client`, `sequence`, `reply` (empty in all other events).
    """

    entity: str  # str(Address)
    version: int
    type: str
    body: bytes
    client: str = ""
    sequence: int = 0
    reply: bytes = b""


class Segment(msgspec.Struct, frozen=True):
    """Events of one tenant and partition appended by one flush, in order. `position` counts the log's segments from 1."""

    tenant: str
    partition: int
    position: int
    epoch: int
    written_unix_ms: int
    events: tuple[Event, ...]


class OutboxEntry(msgspec.Struct, frozen=True):
    tenant: str
    topic: str
    body: bytes


class Published(msgspec.Struct, frozen=True):
    """An outbox entry with its place: offsets of a topic count from 1 without gaps within an epoch."""

    tenant: str
    topic: str
    epoch: int
    offset: int
    body: bytes


def size_of(events: Sequence[Event]) -> int:
    """Bytes of their bodies and replies."""
    return sum([len(event.body) + len(event.reply) for event in events])


class Append(msgspec.Struct, frozen=True):
    """Events for one (tenant, partition), to become the segment at `position`. `size`: of the events (`size_of`) where the caller knows it, else -1."""

    tenant: str
    partition: int
    epoch: int
    position: int
    events: Sequence[Event]
    size: int = -1


class StoredReply(msgspec.Struct, frozen=True):
    """A public idempotency key with the digest of its parameters and the reply it got."""

    tenant: str
    key: bytes
    digest: bytes
    reply: bytes
    expires_unix_ms: int


class Snapshot(msgspec.Struct, frozen=True):
    """State of all entities of (tenant, partition) after the segment at `position`."""

    tenant: str
    partition: int
    position: int
    body: bytes


class SegmentReader(Protocol):
    """What reads a log: a journal, or one together with its archive."""

    def read(self, tenant: str, partition: int, *, after: int = 0) -> AsyncIterator[Segment]: ...


class Journal(Protocol):
    async def acquire(self, partitions: Sequence[int], owner: str, *, ttl_ms: int) -> list[Lease]:
        """Take over partitions at once, whoever holds them: raises each epoch by one (not where `owner` holds it already: then renews)."""
        ...

    async def renew(self, leases: Sequence[Lease], *, ttl_ms: int) -> list[Lease]:
        """Extend leases still held at their epoch; those lost are left out of the answer."""
        ...

    async def leases(self) -> list[Lease]: ...

    async def flush(self, appends: Sequence[Append], outbox: Sequence[OutboxEntry] = (), keys: Sequence[StoredReply] = ()) -> list[Published]:
        """Append, assign offsets, record keys: one transaction. Raises Fenced when an epoch or position is not the log's (nothing happened).

        Outbox entries and keys need an append to be fenced by; one without events checks epoch and position and appends nothing.
        Raises Conflict when an unexpired key is recorded already (nothing happened): answer with `reply_of`.
        Raises InvalidInput or LimitExceeded (nothing happened) when the flush itself breaks a rule of `flush_rules`.
        """
        ...

    async def heads(self, partition: int) -> dict[str, int]:
        """Last position of the partition's log by tenant; tenants without one are absent."""
        ...

    async def logs(self, partitions: Sequence[int]) -> dict[tuple[str, int], int]:
        """The same of many partitions in one question: last position by (tenant, partition)."""
        ...

    def read(self, tenant: str, partition: int, *, after: int = 0) -> AsyncIterator[Segment]:
        """Segments after a position, in order. Raises NotFound where the next of them is archived (`esplanade.storage.archive`), Fault where it is missing."""
        ...

    async def reply_of(self, tenant: str, key: bytes) -> StoredReply | None: ...

    async def put_snapshot(self, snapshot: Snapshot) -> None:
        """Keep it, unless a newer one is kept. Raises InvalidInput when the log does not reach its position."""
        ...

    async def snapshot(self, tenant: str, partition: int) -> Snapshot | None:
        """The newest."""
        ...

    async def published(self, tenant: str, topic: str, *, epoch: int, after: int, limit: int = 1000) -> list[Published]:
        """Outbox entries of a topic after an offset of an epoch, in order. Raises NotFound where they can no longer be read (resume impossible)."""
        ...

    async def place(self, tenant: str, topic: str) -> tuple[int, int]:
        """Current (epoch, offset) of a topic; (1, 0) for one never used."""
        ...

    async def topics_used(self, topics: Sequence[str]) -> set[tuple[str, str]]:
        """(tenant, topic) of those of these topics that have entries in their current epoch, trimmed ones too, of any tenant."""
        ...

    async def trim_outbox(self, *, older_than_ms: int) -> int:
        """Drop outbox entries written `older_than_ms` ago or earlier; returns how many. Their offsets can no longer be resumed from."""
        ...

    async def drop_expired_keys(self) -> int:
        """Drop idempotency keys whose window is over; returns how many."""
        ...

    async def close(self) -> None: ...
