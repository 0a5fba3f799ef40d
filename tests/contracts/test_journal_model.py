"""A journal against a dict: whatever two owners do, in whatever order, the journal answers as the model does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from typing import Any, TypeVar

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from esplanade.core.clock import ManualClock
from esplanade.core.errors import Conflict, Fenced, InvalidInput, NotFound
from esplanade.storage.journal import Append, Event, Journal, Lease, OutboxEntry, Snapshot, StoredReply
from esplanade.storage.memory import MemoryJournal, MemoryStore
from esplanade.storage.postgres import PostgresJournal
from tests.services_fixtures import TABLES

T = TypeVar("T")

OWNERS = ("a", "b")
PARTITIONS = (0, 255)
TENANTS = ("demo", "other")
TOPICS = ("x", "y")
FOREVER_MS = 4_102_444_800_000  # the year 2100
owners, partitions, tenants, topics = map(st.sampled_from, (OWNERS, PARTITIONS, TENANTS, TOPICS))


class JournalMachine(RuleBasedStateMachine):
    """Each owner remembers the leases it got; it appends at the log's end, or by mistake elsewhere."""

    def open(self) -> Journal:
        raise NotImplementedError

    def wait(self, coroutine: Awaitable[T]) -> T:
        raise NotImplementedError

    @initialize()
    def begin(self) -> None:
        self.journals = {owner: self.open() for owner in OWNERS}
        self.epochs: dict[int, tuple[str, int]] = {}
        self.held: dict[tuple[str, int], Lease] = {}
        self.logs: dict[tuple[str, int], list[tuple[int, tuple[Event, ...]]]] = {}
        self.versions: dict[str, int] = {}
        self.published: dict[tuple[str, str], list[bytes]] = {}
        self.trimmed: dict[tuple[str, str], int] = {}
        self.replies: dict[tuple[str, bytes], StoredReply] = {}
        self.snapshots: dict[tuple[str, int], Snapshot] = {}

    @rule(owner=owners, partition=partitions)
    def acquire(self, owner: str, partition: int) -> None:
        holder, epoch = self.epochs.get(partition, ("", 0))
        self.epochs[partition] = (owner, epoch if holder == owner else epoch + 1)
        (lease,) = self.wait(self.journals[owner].acquire([partition], owner, ttl_ms=60_000))
        assert (lease.owner, lease.epoch) == self.epochs[partition]
        self.held[(owner, partition)] = lease

    @rule(owner=owners)
    def renew(self, owner: str) -> None:
        leases = [lease for (holder, _), lease in self.held.items() if holder == owner]
        renewed = self.wait(self.journals[owner].renew(leases, ttl_ms=60_000))
        still = [lease.partition for lease in leases if self.epochs[lease.partition] == (owner, lease.epoch)]
        assert [lease.partition for lease in renewed] == still

    @rule(
        owner=owners,
        partition=partitions,
        of=st.lists(tenants, min_size=1, max_size=2, unique=True),
        astray=st.sampled_from([0, 0, 0, 0, 1, -1]),
        n=st.integers(0, 3),
        entries=st.lists(st.tuples(tenants, topics, st.binary(max_size=4)), max_size=4),
        key=st.none() | st.sampled_from([b"k" * 16, b"l" * 16]),
        body=st.binary(max_size=8),
    )
    def flush(
        self, owner: str, partition: int, of: list[str], astray: int, n: int, entries: list[tuple[str, str, bytes]], key: bytes | None, body: bytes
    ) -> None:
        lease = self.held.get((owner, partition))
        epoch = lease.epoch if lease is not None else 1
        appends, after = [], dict(self.versions)
        for tenant in of:
            events = []
            for i in range(n):
                entity = f"mall/{tenant}/{i % 2}"
                after[entity] = after.get(entity, 0) + 1
                events.append(Event(entity, after[entity], "tested.v1", body))
            position = max(1, len(self.logs.get((tenant, partition), ())) + 1 + astray)
            appends.append(Append(tenant, partition, epoch, position, tuple(events)))
        keys = [] if key is None else [StoredReply("demo", key, b"digest", body, FOREVER_MS)]
        outbox = [OutboxEntry(*entry) for entry in entries]
        misplaced = any(append.position != len(self.logs.get((append.tenant, partition), ())) + 1 for append in appends)
        if self.epochs.get(partition, ("", 0))[1] != epoch or misplaced:
            with pytest.raises(Fenced):
                self.wait(self.journals[owner].flush(appends, outbox, keys))
            return
        if key is not None and ("demo", key) in self.replies:
            with pytest.raises(Conflict):
                self.wait(self.journals[owner].flush(appends, outbox, keys))
            return
        places = self.wait(self.journals[owner].flush(appends, outbox, keys))
        self.versions = after
        for append in appends:
            if append.events:
                self.logs.setdefault((append.tenant, partition), []).append((epoch, tuple(append.events)))
        for reply in keys:
            self.replies[(reply.tenant, reply.key)] = reply
        for entry, place in zip(outbox, places, strict=True):
            topic = self.published.setdefault((entry.tenant, entry.topic), [])
            topic.append(entry.body)
            assert (place.tenant, place.topic, place.epoch, place.offset, place.body) == (entry.tenant, entry.topic, 1, len(topic), entry.body)

    @rule(owner=owners, tenant=tenants, partition=partitions, position=st.integers(0, 6), body=st.binary(max_size=8))
    def put_snapshot(self, owner: str, tenant: str, partition: int, position: int, body: bytes) -> None:
        snapshot = Snapshot(tenant, partition, position, body)
        if not 1 <= position <= len(self.logs.get((tenant, partition), ())):
            with pytest.raises(InvalidInput):
                self.wait(self.journals[owner].put_snapshot(snapshot))
            return
        self.wait(self.journals[owner].put_snapshot(snapshot))
        held = self.snapshots.get((tenant, partition))
        if held is None or held.position < position:
            self.snapshots[(tenant, partition)] = snapshot

    @rule(owner=owners)
    def trim(self, owner: str) -> None:
        dropped = self.wait(self.journals[owner].trim_outbox(older_than_ms=0))
        assert dropped == sum(len(bodies) - self.trimmed.get(topic, 0) for topic, bodies in self.published.items())
        self.trimmed = {topic: len(bodies) for topic, bodies in self.published.items()}

    @rule(owner=owners, tenant=tenants, topic=topics, after=st.integers(0, 8), limit=st.integers(1, 3))
    def read_published(self, owner: str, tenant: str, topic: str, after: int, limit: int) -> None:
        bodies = self.published.get((tenant, topic), [])
        if not self.trimmed.get((tenant, topic), 0) <= after <= len(bodies):
            with pytest.raises(NotFound):
                self.wait(self.journals[owner].published(tenant, topic, epoch=1, after=after, limit=limit))
            return
        entries = self.wait(self.journals[owner].published(tenant, topic, epoch=1, after=after, limit=limit))
        assert [(entry.offset, entry.body) for entry in entries] == list(enumerate(bodies, start=1))[after : after + limit]

    @rule(owner=owners, key=st.sampled_from([b"k" * 16, b"l" * 16]))
    def look_up_a_reply(self, owner: str, key: bytes) -> None:
        assert self.wait(self.journals[owner].reply_of("demo", key)) == self.replies.get(("demo", key))

    @rule(owner=owners, after=st.integers(0, 4))
    def read_the_logs(self, owner: str, after: int) -> None:
        async def read(tenant: str, partition: int) -> list[tuple[int, int, tuple[Event, ...]]]:
            return [(s.position, s.epoch, s.events) async for s in self.journals[owner].read(tenant, partition, after=after)]

        for tenant in TENANTS:
            for partition in PARTITIONS:
                kept = self.logs.get((tenant, partition), [])
                expected = [(position, *segment) for position, segment in enumerate(kept, start=1)][after:]
                assert self.wait(read(tenant, partition)) == expected
                assert self.wait(self.journals[owner].snapshot(tenant, partition)) == self.snapshots.get((tenant, partition))

    @invariant()
    def heads_and_leases_are_the_models(self) -> None:
        journal = self.journals["a"]
        for partition in PARTITIONS:
            expected = {tenant: len(self.logs[(tenant, partition)]) for tenant in TENANTS if (tenant, partition) in self.logs}
            assert self.wait(journal.heads(partition)) == expected
        leases = {lease.partition: (lease.owner, lease.epoch) for lease in self.wait(journal.leases())}
        assert leases == self.epochs


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def run(machine: type[JournalMachine], **options: Any) -> None:
    run_state_machine_as_test(machine, settings=settings(suppress_health_check=list(HealthCheck), **options))  # type: ignore[no-untyped-call]


def test_the_memory_journal_equals_the_model(loop: asyncio.AbstractEventLoop) -> None:
    class Machine(JournalMachine):
        def open(self) -> Journal:
            return MemoryJournal(self.store)

        def wait(self, coroutine: Awaitable[T]) -> T:
            return loop.run_until_complete(coroutine)

        def __init__(self) -> None:
            super().__init__()
            self.store = MemoryStore(ManualClock())

    run(Machine, max_examples=60, stateful_step_count=40)


@pytest.mark.services
def test_the_postgres_journal_equals_the_model(loop: asyncio.AbstractEventLoop, postgres_url: str) -> None:
    journals = [loop.run_until_complete(PostgresJournal.open(postgres_url, connections=1)) for _ in OWNERS]

    class Machine(JournalMachine):
        def __init__(self) -> None:
            super().__init__()
            self.left = list(journals)
            with psycopg.connect(postgres_url, options="-c search_path=esplanade") as connection:
                for table in TABLES:
                    connection.execute(f"DELETE FROM {table}".encode())

        def open(self) -> Journal:
            return self.left.pop()

        def wait(self, coroutine: Awaitable[T]) -> T:
            return loop.run_until_complete(coroutine)

    try:
        run(Machine, max_examples=25, stateful_step_count=25)
    finally:
        for journal in journals:
            loop.run_until_complete(journal.close())
