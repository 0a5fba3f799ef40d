"""Group commit and the reply gate: what turns have gathered goes to the journal in one flush; what they answered leaves when that flush has landed.

One flush is under way at a time; turns go on meanwhile and gather in the next. A flush that fails is *unknown*: every log in it is given up (the shard replays it), and
so is whatever gathered on top of it. Owns the two batches and nothing of what events mean.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol

import msgspec

from actors.meter import BYTES, SECONDS, Histogram
from actors.topics import Publication, channel
from esplanade.core.errors import EsplanadeError, Unavailable
from esplanade.core.tracing import Part
from esplanade.storage.journal import Append, Event, Journal, OutboxEntry, Snapshot, StoredReply, size_of
from esplanade.storage.segment_codec import PackedEvents

MAX_GATHERED_BYTES: Final = 24 * 2**20
"""Bodies and replies that may gather for the next flush; the shard takes no more work until the one under way has landed."""

SNAPSHOTS_AT_ONCE: Final = 2
"""On their way to the journal together: fewer than its connections, so that replays find one."""
MAX_SNAPSHOT_BYTES_AT_ONCE: Final = 4 * 2**20
"""On their way, beyond which no other is made: the disk that takes them is the one that flushes wait for. A larger one goes alone. (Eight ledgers, each at its mark in the
same second, had half a gigabyte lie before a flush.)"""

Release = Callable[[EsplanadeError | None], None]
"""Called when what an answer saw is durable (None), or never will be known to be (the error)."""

ReleaseMany = Callable[[list[int], EsplanadeError | None], None]
"""The same of many answers, by their indices."""


class Log(Protocol):
    """A (tenant, partition) log, as the flusher knows it."""

    tenant: str
    partition: int
    epoch: int
    position: int

    def grow(self, events: int, size: int, now_s: float) -> None:
        """The flush now cut has so many of its events and bytes."""
        ...

    def snapshot_due(self, now_s: float) -> bytes | None:
        """The state to keep with the position that the flush now cut will have; None where none is due."""
        ...


class Gathered(PackedEvents):
    """Events of one log. `bytes`: their bodies and replies."""

    __slots__ = ("bytes",)

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0


class Batch:
    """Gathered for one flush."""

    __slots__ = ("appends", "bytes", "ended", "frames", "keys", "outbox", "publish", "traced", "waiting")

    def __init__(self) -> None:
        self.appends: dict[Log, Gathered] = {}
        self.outbox: list[tuple[Log, OutboxEntry]] = []
        self.keys: list[tuple[Log, StoredReply]] = []
        self.publish: list[tuple[Log, str, bytes]] = []  # (log, channel, message)
        self.waiting: list[tuple[Log, Release]] = []
        self.frames: list[tuple[Sequence[Log], list[int], ReleaseMany]] = []  # answers of one frame, by index, with the log that each has seen
        self.traced: list[Part] = []  # spans of which the commit is a part
        self.bytes = 0
        self.ended = False

    @property
    def gated(self) -> int:
        return len(self.waiting) + sum(len(indices) for _, indices, _ in self.frames)

    def release(self, error: EsplanadeError | None) -> None:
        """To all that wait."""
        for _, release in self.waiting:
            release(error)
        for _, indices, release_many in self.frames:
            release_many(indices, error)

    def refuse(self, log: Log, error: EsplanadeError) -> None:
        """To those that wait for this log: it is given up."""
        refused = [release for other, release in self.waiting if other is log]
        self.waiting = [entry for entry in self.waiting if entry[0] is not log]
        frames, self.frames = self.frames, []
        for logs, indices, release_many in frames:
            if log in logs:
                kept = [i for i, other in enumerate(logs) if other is not log]
                given_up = [index for other, index in zip(logs, indices, strict=True) if other is log]
                refused.append(partial(release_many, given_up))
                logs, indices = [logs[i] for i in kept], [indices[i] for i in kept]
            if indices:
                self.frames.append((logs, indices, release_many))
        for release in refused:
            release(error)


class FlushCounts(msgspec.Struct):
    flushes: int = 0
    failures: int = 0
    seconds: float = 0.0
    bytes: int = 0
    events: int = 0
    snapshots: int = 0
    time_s: Histogram = msgspec.field(default_factory=lambda: Histogram.of(SECONDS))
    size: Histogram = msgspec.field(default_factory=lambda: Histogram.of(BYTES))


class Flusher:
    """`lost(logs, error)` is called when a flush failed, before anyone waiting hears of it; `send(channel, message, durable)` when something may leave."""

    def __init__(
        self,
        journal: Journal,
        *,
        monotonic_s: Callable[[], float],
        lost: Callable[[list[Log], Exception], None],
        send: Callable[[str, bytes, bool], None],
    ) -> None:
        self.counts = FlushCounts()
        self._journal = journal
        self._monotonic_s = monotonic_s
        self._lost = lost
        self._send = send
        self._gathering = Batch()
        self._under_way: Batch | None = None
        self._last: dict[Log, Batch] = {}
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._snapshots: set[asyncio.Task[None]] = set()
        self._snapshot_bytes = 0  # on their way
        self._keeping = asyncio.Semaphore(SNAPSHOTS_AT_ONCE)

    @property
    def full(self) -> bool:
        return self._gathering.bytes >= MAX_GATHERED_BYTES

    @property
    def room(self) -> int:
        """Bytes that may be gathered before it is full."""
        return MAX_GATHERED_BYTES - self._gathering.bytes

    @property
    def snapshot_room(self) -> int:
        """Bytes of snapshots that may be on their way beside those that are: none where it is not above 0."""
        return MAX_SNAPSHOT_BYTES_AT_ONCE - self._snapshot_bytes

    @property
    def gathered(self) -> int:
        """Bytes that wait for the next flush."""
        return self._gathering.bytes

    @property
    def gated(self) -> int:
        """Answers that wait."""
        return self._gathering.gated + (self._under_way.gated if self._under_way else 0)

    def idle(self, log: Log) -> bool:
        """Whether everything that turns of this log have gathered is durable."""
        return log not in self._last

    def append(self, log: Log, events: list[Event], outbox: Sequence[tuple[str, bytes]] = ()) -> None:
        """Gather events of a turn and entries (topic, body) for durable topics."""
        if not events:
            return
        gathered = self.gathering(log)
        size = size_of(events)
        for event in events:
            gathered.add(event)
        gathered.bytes += size
        batch = self._gathering
        batch.bytes += size
        for topic, body in outbox:
            batch.outbox.append((log, OutboxEntry(log.tenant, topic, body)))
            batch.bytes += len(body)

    def gathering(self, log: Log) -> Gathered:
        """What a log gathers for the next flush, for a caller that puts at least one event there at once, and says how much it was (`grown`)."""
        batch = self._gathering
        gathered = batch.appends.get(log)
        if gathered is None:
            if not batch.appends:
                self._idle.clear()
                self._work.set()
            gathered = batch.appends[log] = Gathered()
            self._last[log] = batch
        return gathered

    def grown(self, size: int) -> None:
        """So many bytes more wait in what logs gather."""
        self._gathering.bytes += size

    def enclose(self, log: Log, topic: str, body: bytes) -> None:
        """An entry for a durable topic, with the events that a turn of this log has just gathered."""
        self._gathering.outbox.append((log, OutboxEntry(log.tenant, topic, body)))

    def record(self, log: Log, reply: StoredReply) -> None:
        """The reply under a public key, with the events that its turn has just gathered."""
        self._gathering.keys.append((log, reply))

    def when_durable(self, log: Log, release: Release) -> None:
        """Call `release` once everything that turns of this log have gathered so far is durable: at once where it is."""
        batch = self._last.get(log)
        if batch is None:
            release(None)
        else:
            batch.waiting.append((log, release))

    def settled(self, log: Log) -> asyncio.Future[EsplanadeError | None]:
        """Done once everything that turns of this log have gathered so far is durable: None; or lost, with the reason."""
        done: asyncio.Future[EsplanadeError | None] = asyncio.get_running_loop().create_future()

        def settle(error: EsplanadeError | None) -> None:
            if not done.done():
                done.set_result(error)

        self.when_durable(log, settle)
        return done

    def when_all_durable(self, logs: Sequence[Log], indices: list[int], release: ReleaseMany) -> None:
        """The same for many answers of a frame: `indices[i]` has seen `logs[i]`. Those that have to wait for the same flush are released by one call."""
        of = self._last
        batches = {log: of.get(log) for log in dict.fromkeys(logs)}
        distinct = dict.fromkeys(batches.values())
        for batch in distinct:
            mine, found = logs, indices
            if len(distinct) > 1:
                kept = [i for i, log in enumerate(logs) if batches[log] is batch]
                mine, found = [logs[i] for i in kept], [indices[i] for i in kept]
            if batch is None:
                release(found, None)
            else:
                batch.frames.append((mine, found, release))

    def traced(self, log: Log) -> list[Part] | None:
        """Where to put the span of a turn whose commit is to be a part of it; None where everything of this log is durable."""
        batch = self._last.get(log)
        return None if batch is None else batch.traced

    def publish(self, log: Log, topic: str, body: bytes) -> None:
        """Send on an ephemeral topic, likewise."""
        message = msgspec.msgpack.encode(Publication(topic, log.epoch, 0, body))
        batch = self._last.get(log)
        if batch is None:
            self._send(channel(log.tenant, topic), message, False)
        else:
            batch.publish.append((log, channel(log.tenant, topic), message))

    def forget(self, log: Log, error: EsplanadeError) -> None:
        """Give up what a log has gathered and not flushed; who waits for it hears `error`."""
        self._last.pop(log, None)
        batch = self._gathering
        if batch.appends.pop(log, None) is not None:
            batch.outbox = [entry for entry in batch.outbox if entry[0] is not log]
            batch.keys = [entry for entry in batch.keys if entry[0] is not log]
            batch.publish = [entry for entry in batch.publish if entry[0] is not log]
        batch.refuse(log, error)

    async def run(self) -> None:
        """Flush until cancelled."""
        while True:
            await self._work.wait()
            self._work.clear()
            batch, self._gathering = self._gathering, Batch()
            if batch.appends:
                self._under_way = batch
                await self._flush(batch)
                self._under_way = None
            if not self._gathering.appends:
                self._idle.set()

    async def drained(self) -> None:
        """Returns when nothing is gathered and nothing is under way."""
        await self._idle.wait()
        while self._snapshots:
            await asyncio.gather(*self._snapshots, return_exceptions=True)

    async def _flush(self, batch: Batch) -> None:
        began_s = self._monotonic_s()
        appends, snapshots = [], []
        room = self.snapshot_room
        for log, gathered in batch.appends.items():
            position = log.position + 1
            appends.append(Append(log.tenant, log.partition, log.epoch, position, gathered, gathered.bytes))
            log.grow(len(gathered), gathered.bytes, began_s)
            body = log.snapshot_due(began_s) if room > 0 else None
            if body is not None:
                room -= len(body)
                snapshots.append(Snapshot(log.tenant, log.partition, position, body))
        commits = [Part("commit", part, segments=len(appends), bytes=batch.bytes) for part in batch.traced]
        try:
            published = await self._journal.flush(appends, [entry for _, entry in batch.outbox], [reply for _, reply in batch.keys])
        except Exception as error:
            for commit in commits:
                commit.end(str(error))
            batch.ended = True
            self.counts.failures += 1
            self._fail(batch, error)
            return
        batch.ended = True
        for commit in commits:
            commit.end()
        self.counts.flushes += 1
        took_s = self._monotonic_s() - began_s
        self.counts.seconds += took_s
        self.counts.bytes += batch.bytes
        self.counts.time_s.observe(took_s)
        self.counts.size.observe(batch.bytes)
        self.counts.events += sum(len(append.events) for append in appends)
        for log in batch.appends:
            log.position += 1
            if self._last.get(log) is batch:
                del self._last[log]
        for entry in published:
            message = msgspec.msgpack.encode(Publication(entry.topic, entry.epoch, entry.offset, entry.body))
            self._send(channel(entry.tenant, entry.topic), message, True)
        for _, where, message in batch.publish:
            self._send(where, message, False)
        batch.release(None)
        for snapshot in snapshots:
            self.keep(snapshot)

    def keep(self, snapshot: Snapshot) -> None:
        """Store a snapshot of what is durable, beside all else."""
        self._snapshot_bytes += len(snapshot.body)
        task = asyncio.get_running_loop().create_task(self._keep(snapshot))
        self._snapshots.add(task)
        task.add_done_callback(self._snapshots.discard)

    async def _keep(self, snapshot: Snapshot) -> None:
        try:
            async with self._keeping:
                await self._journal.put_snapshot(snapshot)
            self.counts.snapshots += 1
        except EsplanadeError:
            self.counts.failures += 1  # the log is whole without it; the next one is due in its turn
        finally:
            self._snapshot_bytes -= len(snapshot.body)

    def _fail(self, batch: Batch, error: Exception) -> None:
        unknown = Unavailable(f"the flush of this turn failed ({error}), so it is not known whether it is durable; ask again with the same key")
        logs = list(batch.appends)
        for log in logs:
            if self._last.get(log) is batch:
                del self._last[log]
        self._lost(logs, error)
        for log in logs:
            self.forget(log, unknown)
        batch.release(unknown)
