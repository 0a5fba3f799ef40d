"""What every journal demands of a flush before it is tried, whatever the store: limits and shape. Nothing here touches a store.

A flush that breaks a rule happened not at all. Outbox entries and keys need at least one append, because the epoch check of an append is what
keeps a former owner from publishing; an append without events checks epoch and position and appends nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from esplanade.core.errors import InvalidInput, LimitExceeded
from esplanade.core.ids import PARTITIONS
from esplanade.storage.journal import Append, Event, OutboxEntry, Snapshot, StoredReply, size_of
from esplanade.storage.segment_codec import EntityVersions, index_of

MAX_FLUSH_BYTES: Final = 64 * 2**20
"""Bodies of one flush together: events, outbox entries and replies."""

MAX_SNAPSHOT_BYTES: Final = 512 * 2**20
"""A snapshot is one value in PostgreSQL, whose own limit is 1 GiB."""

MAX_PUBLISHED: Final = 10_000
"""Entries that one call of `published` returns at most; the caller asks again from the last offset."""

MAX_TTL_MS: Final = 3_600_000
"""A lease longer than an hour is a mistake of units."""


def check_flush(appends: Sequence[Append], outbox: Sequence[OutboxEntry], keys: Sequence[StoredReply]) -> list[EntityVersions]:
    """The index of each append. Raises InvalidInput or LimitExceeded where the flush breaks a rule."""
    if not appends and (outbox or keys):
        raise InvalidInput(
            f"a flush with {len(outbox)} outbox entries and {len(keys)} keys has no append, so nothing checks the owner's epoch; "
            "add an append of the partition (without events, if there are none)"
        )
    _check_places(appends)
    if len({(reply.tenant, reply.key) for reply in keys}) != len(keys):
        raise InvalidInput("an idempotency key occurs twice in one flush; answer the second from the first")
    size = sum([size_of(append.events) if append.size < 0 else append.size for append in appends])
    size += sum(len(entry.body) for entry in outbox) + sum(len(reply.reply) for reply in keys)
    if size > MAX_FLUSH_BYTES:
        raise LimitExceeded(f"flush of {size} bytes; at most {MAX_FLUSH_BYTES} go into one: flush less at a time")
    return [index_of(append.events) for append in appends]


def _check_places(appends: Sequence[Append]) -> None:
    partitions = {append.partition for append in appends}
    if (
        len({(append.tenant, append.partition) for append in appends}) == len(appends)
        and len({(append.partition, append.epoch) for append in appends}) == len(partitions)
        and min([append.position for append in appends], default=1) >= 1
        and all(0 <= partition < PARTITIONS for partition in partitions)
    ):
        return
    logs: set[tuple[str, int]] = set()  # which of them it is, and which rule it breaks
    epochs: dict[int, int] = {}
    for append in appends:
        check_partition(append.partition)
        if append.position < 1:
            raise InvalidInput(f"append to ({append.tenant}, {append.partition}) at position {append.position}; positions count from 1")
        if (append.tenant, append.partition) in logs:
            raise InvalidInput(f"two appends to ({append.tenant}, {append.partition}) in one flush; join their events into one segment")
        logs.add((append.tenant, append.partition))
        if epochs.setdefault(append.partition, append.epoch) != append.epoch:
            raise InvalidInput(f"appends to partition {append.partition} carry different epochs; a flush has one epoch a partition")


def check_snapshot(snapshot: Snapshot) -> None:
    check_partition(snapshot.partition)
    if len(snapshot.body) > MAX_SNAPSHOT_BYTES:
        raise LimitExceeded(f"snapshot of ({snapshot.tenant}, {snapshot.partition}) has {len(snapshot.body)} bytes; at most {MAX_SNAPSHOT_BYTES}")


def check_partition(partition: int) -> None:
    if not 0 <= partition < PARTITIONS:
        raise InvalidInput(f"partition {partition}: must be 0 to {PARTITIONS - 1}")


def check_partitions(partitions: Sequence[int]) -> list[int]:
    """Them in order, each once."""
    for partition in partitions:
        check_partition(partition)
    return sorted({*partitions})


def check_lease(partitions: Sequence[int], ttl_ms: int) -> None:
    if len(check_partitions(partitions)) != len(partitions):
        raise InvalidInput(f"partitions {list(partitions)}: each may occur once")
    if not 1 <= ttl_ms <= MAX_TTL_MS:
        raise InvalidInput(f"ttl_ms {ttl_ms}: must be 1 to {MAX_TTL_MS}")


def check_limit(limit: int) -> None:
    if not 1 <= limit <= MAX_PUBLISHED:
        raise InvalidInput(f"limit {limit}: must be 1 to {MAX_PUBLISHED}")


def event_copy(events: Sequence[Event]) -> tuple[Event, ...]:
    """Events as the log keeps them: bodies are bytes that nobody can change any more."""
    return tuple(event if type(event.body) is bytes else msgspec.structs.replace(event, body=bytes(event.body)) for event in events)


def fenced_message(partition: int, epoch: int, held: int | None) -> str:
    return f"partition {partition} is at epoch {held if held is not None else 'none (no owner yet)'}, the flush carries {epoch}: another owner took it over"


def misplaced_message(tenant: str, partition: int, position: int, head: int) -> str:
    return (
        f"log ({tenant}, {partition}) ends at position {head}, the flush appends at {position}; the next is {head + 1}: replay and take it from there"
    )


def repeated_message(tenant: str, key: bytes) -> str:
    return f"idempotency key {key.hex()} of {tenant} is recorded already; answer with `reply_of` instead of doing it again"


def unbacked_message(snapshot: Snapshot, head: int) -> str:
    log = f"({snapshot.tenant}, {snapshot.partition})"
    return f"snapshot of {log} at position {snapshot.position}, but the log ends at {head}; snapshot only what is durable"


def unreadable_message(tenant: str, topic: str, epoch: int, after: int, held: tuple[int, int, int]) -> str:
    return (
        f"topic {topic!r} of {tenant}: cannot read on from ({epoch}, {after}); epoch {held[0]} keeps offsets {held[1] + 1} to {held[2]}: "
        "begin anew from the present state"
    )


def archived_message(tenant: str, partition: int, first: int, last: int, file: str) -> str:
    return f"log ({tenant}, {partition}): positions {first} to {last} are archived in {file}; begin from the snapshot, or read them with the archive's folder at hand"
