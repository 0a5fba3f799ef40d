"""A shard: owns partitions, hosts their entities and runs their turns. A plain class on asyncio; `actors.ray_system` makes it a process of its own.

A request's way: its log (replayed first, where it is not in memory), a turn without await, the flusher's gathering batch, and its answer once that has landed. Turns
of an entity run in the order in which requests came; requests for a log or venue not at hand wait in the log's queue, at most MAX_MAILBOX a shard.
A shard answers only inside its leases, and gives up a log whenever it cannot know what is durable: after a failed flush, after losing a lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Final, cast

import msgspec

from actors.balance_reads import BalancesSlot, run_balances
from actors.behaviour import KEY_ALONE, Context
from actors.directory import DIRECTORY_CHANNEL, encode_leases
from actors.edited_maps import EditedMaps
from actors.entity import Entity, Turn
from actors.events import PERSONAL_KINDS
from actors.flusher import Flusher, Log
from actors.frame import Frame, NewKeySlot, Slot
from actors.frame_turns import Calls, Row, run_rows
from actors.ledger import Ledger
from actors.meter import Meter, Stopwatch
from actors.partition_log import BEHAVIOURS, Behaviours, PartitionLog
from actors.payment_turns import only_payments, run_payments
from actors.positioning import Positioning
from actors.positions import HostSettings, PositionHost
from actors.process_memory import Memory
from actors.profile import ShardProfile
from actors.public_keys import PublicKeys, stored_reply
from actors.publisher import Publisher, payment_stats
from actors.reminders import MAX_FIRED, topic_of
from actors.requests import (
    Answer,
    Ask,
    Commands,
    Observe,
    PublicAsk,
    Refused,
    Replied,
    Request,
    Take,
    TracedAsk,
    Watermark,
    address_of,
    decode_requests,
    encode_answers,
    log_of,
    log_place,
    refusal,
)
from actors.tenure import Tenure
from actors.turn_trace import trace_flush, trace_turn
from actors.venue_shelf import VenueShelf
from actors.venue_turns import VenueTurns
from esplanade.core.clock import SystemClock
from esplanade.core.errors import EsplanadeError, Fault, Fenced, LimitExceeded, Unavailable
from esplanade.core.ids import VENUE_KINDS, Address, partition_of
from esplanade.storage.broker import Broker
from esplanade.storage.catalogue import Catalogue
from esplanade.storage.journal import Journal, Lease
from esplanade.storage.sealing import Keyring

PASSIVATED_AT_ONCE: Final = 4
"""Logs that leave memory in one second for want of use; each may cost a snapshot."""

RELIEVED_AT_ONCE: Final = 16
RESTED_S: Final = 5.0
"""Above its memory limit a shard lets go of so many logs a second, of those that nobody has asked for so long."""

REMINDED_EVERY_S: Final = 0.02
"""After a takeover, logs that have had reminders are opened at this distance, so that those who ask go first."""

MAX_AT_HAND: Final = 65_536
"""Entities that a command finds by its address alone, without its log."""

_NOBODY: Final[dict[str, Entity]] = {}


@dataclass(frozen=True, slots=True)
class ShardSettings:
    """Limits and periods of a shard. At a limit a request is refused with `limit`, to be sent again."""

    lease_ttl_ms: int = 10_000
    snapshot_segments: int = 512
    max_mailbox: int = 100_000
    max_entities: int = 1_000_000
    max_memory_bytes: int = 0
    """Of the process, above which logs that rest leave memory early; 0: no limit."""
    passivate_s: float = 600.0
    poll_s: float = 0.02
    host: HostSettings = field(default_factory=HostSettings)


class Shard:
    """`owner` must be unique to this process and start. `secret`: at least 16 bytes, the same for all shards; pseudonyms come from it.

    `keyring`: seals what is personal. Without one (tests of logic, which keep nothing) it is stored as it is.
    """

    def __init__(
        self,
        *,
        name: str,
        owner: str,
        partitions: Sequence[int] = (),
        journal: Journal,
        catalogue: Catalogue,
        broker: Broker,
        clock: SystemClock,
        secret: bytes,
        settings: ShardSettings | None = None,
        pid: int = 0,
        node: str = "",
        behaviours: Behaviours = BEHAVIOURS,
        keyring: Keyring | None = None,
        memory: Memory | None = None,
    ) -> None:
        self._memory = memory
        self._keyring = keyring
        self.name = name
        self.owner = owner
        self.settings = settings or ShardSettings()
        self._partitions = list(partitions)
        self._journal = journal
        self._catalogue = catalogue
        self._clock = clock
        self._secret = secret
        self._behaviours = behaviours
        self._shelf = VenueShelf(catalogue)
        self._publisher = Publisher(broker)
        self._flusher = Flusher(journal, monotonic_s=clock.monotonic_s, lost=self._lost, send=self._publisher.send)
        self._tenure = Tenure(journal, owner, ttl_ms=self.settings.lease_ttl_ms, clock=clock)
        self._logs: dict[tuple[str, int], PartitionLog] = {}
        self._reopen: dict[tuple[str, int], float] = {}  # logs with hosts that were given up -> when to replay them
        self._workers: dict[PartitionLog, asyncio.Task[None]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._mailbox = 0
        self._entities = 0
        self._at_hand: dict[tuple[str, str], dict[str, Entity]] = {}  # entities of live logs, by (kind, tenant) and id
        self._count_at_hand = 0
        self._stopping = False
        self._reopening: asyncio.Task[None] | None = None
        self._told_payments_s = 0.0
        self._rate = (0.0, 0)
        self._started_s = clock.monotonic_s()
        self._keys = PublicKeys(journal)
        self._asked: set[asyncio.Task[None]] = set()
        self._meter = Meter(monotonic_s=clock.monotonic_s, chance=random.Random(owner))
        self._profile = ShardProfile(
            shard=name, owner=owner, pid=pid, node=node, uptime_s=0.0, partitions=0, epochs={}, logs=0, entities=0, activations=0, turns=0, turns_per_s=0.0,
            turn_s=0.0, refused=0, flushes=0, flush_s=0.0, flush_failures=0, flushed_bytes=0, flushed_events=0, snapshots=0, mailbox=0, gated=0, ticks=0,
            tick_s=0.0, late_rows=0, pushes_dropped=0, publications=0, publications_dropped=0, leases_lost=0, passivations=0,
        )  # fmt: skip
        self._positioning = Positioning(catalogue, clock, self._take_rows)
        self._maps = EditedMaps(catalogue, self._flusher)
        self._venues = VenueTurns(self._flusher, clock, self._profile, self._tenure.leaving, self._give_up)

    # --- life ---------------------------------------------------------------------------------------------------------

    async def start(self, *, background: bool = True) -> None:
        """Begin to flush, and take `partitions` over, if any; without them the shard stands by.

        Without `background`, the caller calls `poll` and `renew` itself (tests on manual clocks).
        """
        self._tasks = [asyncio.create_task(self._flusher.run()), asyncio.create_task(self._publisher.run())]
        if background:
            self._tasks += [asyncio.create_task(self._repeat(self.settings.poll_s, self._poll)),
                            asyncio.create_task(self._repeat(self.settings.lease_ttl_ms / 3000, self.renew))]  # fmt: skip
        if self._partitions:
            await self.take(self._partitions)
            await self.reopened()

    async def take(self, partitions: Sequence[int]) -> list[Lease]:
        """Take over partitions, whoever holds them: from now on their former owner can append nothing. Tells the directory's followers. Raises Unavailable.

        Their venues are replayed soon after, since their sources may be waiting for Rewind; all else when it is asked for.
        """
        if self._stopping:
            raise Unavailable(f"shard {self.name} is stopping; ask another one")
        leases = await self._tenure.take(partitions)
        self._own(leases)
        return leases

    def _own(self, leases: list[Lease]) -> None:
        held = self._tenure.leases
        for log in [log for log in self._logs.values() if log.partition in held and log.epoch != held[log.partition].epoch]:
            self._give_up(log, Unavailable(f"partition {log.partition} was taken over anew; ask again"))
        self._publisher.send(DIRECTORY_CHANNEL, encode_leases(leases), True)
        self._reopening = asyncio.create_task(self._reopen_venues({lease.partition for lease in leases}))

    async def _reopen_venues(self, partitions: set[int]) -> None:
        while True:
            try:
                of_venues = {
                    (entry.tenant, partition_of(Address("positions", entry.tenant, entry.venue))) for entry in await self._catalogue.venues()
                }
                asked = sorted({partition for _, partition in of_venues} & partitions)
                for place in sorted(of_venues & (await self._journal.logs(asked)).keys() if asked else ()):
                    if place[1] in self._tenure.leases:
                        self._reopen[place] = 0.0
                self.poll()
                await self._open_reminded(sorted(partitions))
                return
            except EsplanadeError:
                await self._clock.sleep(self.settings.poll_s)

    async def reopened(self) -> None:
        """Returns when the venues of what was taken last are being replayed."""
        if self._reopening is not None:
            await self._reopening

    async def release(self, partitions: Sequence[int]) -> None:
        """Hand partitions over in order: no new turn, everything gathered durable, a snapshot for the next owner, then they are forgotten here."""
        leaving = set(partitions) & set(self._tenure.leases)
        self._tenure.leaving.update(leaving)
        moves = Unavailable(f"shard {self.name} hands this partition over; ask again, the directory finds the new owner")
        logs = [log for log in self._logs.values() if log.partition in leaving]
        await asyncio.gather(*(self._flusher.settled(log) for log in logs))
        snapshots = []
        for log in logs:
            if not log.given_up:
                snapshots.append(log.parting() if self._flusher.idle(log) else None)
                self._give_up(log, moves)
        for snapshot in snapshots:
            if snapshot is not None:
                with contextlib.suppress(EsplanadeError):
                    await self._journal.put_snapshot(snapshot)
        self._tenure.let_go(leaving)

    async def stop(self) -> None:
        """Flush what was gathered, then stop. Later requests are refused."""
        self._stopping = self._tenure.stopping = True
        for task in list(self._workers.values()):
            task.cancel()
        if self._tasks:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._flusher.drained(), 10)
            await self._publisher.drained()
        await self._positioning.stop()
        await self._maps.stop()
        await self._venues.stop()
        ending = [*self._tasks, *self._asked, *([self._reopening] if self._reopening is not None else [])]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, *self._workers.values(), return_exceptions=True)
        for log in list(self._logs.values()):
            self._give_up(log, Unavailable(f"shard {self.name} has stopped; ask again"))

    async def _repeat(self, every_s: float, call: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(every_s)
            await call()

    async def _poll(self) -> None:
        self.poll()

    async def replayed(self) -> None:
        """Returns when no log is being replayed, no venue fetched and no walking times are being made."""
        while self._workers:
            await asyncio.wait(list(self._workers.values()))
        await self._venues.prepared()

    async def renew(self) -> None:
        """Extend the leases; give up partitions that another owner has taken, and own those that the table gives to this shard although it did not know."""
        gained, lost = await self._tenure.renew()
        if gained:
            self._own(gained)
        for partition in lost:
            self._profile.leases_lost += 1
            for log in [log for log in self._logs.values() if log.partition == partition]:
                self._give_up(log, Unavailable(f"partition {partition} has another owner now; ask again"))

    # --- requests -----------------------------------------------------------------------------------------------------

    async def frame(self, data: bytes) -> bytes:
        """A frame of requests in (`encode_requests`), msgpack of their answers out, in the same order."""
        return encode_answers(await self.answer(decode_requests(data)))

    async def answer(self, requests: Sequence[Request] | Commands) -> list[Answer]:
        """Run the requests and return their answers once durable."""
        if not requests:
            return []
        frame = Frame(len(requests), asyncio.get_running_loop().create_future())
        began_s = self._clock.monotonic_s()
        self._run_frame(requests, frame, began_s)
        del requests  # freed while still near at hand, and the next frame is read into the same memory
        self._profile.turn_s += self._clock.monotonic_s() - began_s
        await frame.done
        self._meter.answer_s.observe(self._clock.monotonic_s() - began_s)
        return frame.answers

    def _run_frame(self, requests: Sequence[Request] | Commands, frame: Frame, now_s: float) -> None:
        """Run the requests as far as they can run at once (`frame_turns`); all else is routed, one by one. Some of them are timed."""
        serving = now_s < self._tenure.until_s and not self._stopping
        leaving = self._tenure.leaving
        ask = requests.ask if isinstance(requests, Commands) else requests.__getitem__
        chosen, weight = self._meter.sampled(len(requests))

        def timed(index: int, took_s: float, size: int) -> None:
            address = requests.address(index) if isinstance(requests, Commands) else address_of(requests[index])
            self._meter.timed(address.kind, str(address), took_s, size, weight)

        def find(index: int) -> Entity | None:
            if not serving:
                return None
            if isinstance(requests, Commands):
                return self._find(requests.address(index))
            return self._find(address_of(requests[index]))

        def serves(log: PartitionLog) -> bool:
            return log.live and not log.given_up and not log.queue and log.partition not in leaving

        def broke(index: int, log: PartitionLog, error: Exception) -> None:
            self._profile.turns += 1
            self._broken(log, Slot(ask(index), frame, index, now_s), error)

        def route(index: int) -> None:
            self._route(Slot(ask(index), frame, index, now_s), now_s)

        calls = Calls(find, serves, route, lambda slot: self._route(slot, now_s), broke, self._await)
        ledger = self._behaviours.get("ledger")
        ran = None
        if isinstance(requests, Commands) and isinstance(ledger, Ledger) and len(requests) <= self.settings.max_mailbox:
            ran = run_balances(requests, frame, ledger, self._flusher, calls, now_s)
        if ran is not None:
            took_s = (self._clock.monotonic_s() - now_s) / len(requests)
            for index in chosen:
                timed(index, took_s, 0)
        else:
            rows = self._column_rows(requests, serving) if isinstance(requests, Commands) else self._rows(requests, serving)
            watch = Stopwatch(chosen, self._clock.monotonic_s, timed)
            if only_payments(requests):
                ran = run_payments(rows, frame, self._flusher, calls, watch, lambda tenant, venue: self._shelf.at_hand(tenant, venue, now_s), now_s)
            else:
                ran = run_rows(rows, frame, self._flusher, calls, watch, now_s, self.name)
        self._profile.turns += ran.turns
        self._profile.refused += ran.refused

    def _rows(self, requests: Sequence[Request], serving: bool) -> Iterator[Row]:
        at_hand = self._at_hand
        for request in requests:
            if type(request) is Ask:
                address, key = request.address, request.key
                held = at_hand.get(address[:2], _NOBODY).get(address.id) if serving else None
                yield (held, request.command, None, 0) if key is None else (held, request.command, key.client, key.sequence)
            else:
                yield None, None, None, 0

    def _column_rows(self, commands: Commands, serving: bool) -> Iterator[Row]:
        """The same of columns, without a step of our own a row."""
        client = None if commands.client is None else sys.intern(commands.client)
        held = self._at_hand.setdefault((commands.kind, commands.tenant), {}) if serving else _NOBODY
        return zip(map(held.get, commands.ids), commands.commands, repeat(client), commands.sequences)

    def _find(self, address: Address) -> Entity | None:
        """An entity that is here, of a live log; from now on at hand, until its log is given up."""
        log = self._logs.get(log_place(address))
        entity = log.entities.get(address) if log is not None and log.live else None
        if log is None or entity is None:
            return None
        if self._count_at_hand >= MAX_AT_HAND:
            for held_of_kind in self._at_hand.values():
                held_of_kind.clear()
            self._count_at_hand = 0
        self._at_hand.setdefault(entity.address[:2], {})[entity.address.id] = entity
        self._count_at_hand += 1
        return entity

    def _refuse(self, slot: Slot, error: EsplanadeError) -> None:
        self._profile.refused += slot.count
        slot.refuse(refusal(error))

    def _route(self, slot: Slot, now_s: float) -> None:
        """Run the request if its log is at hand and nothing waits before it; else queue it."""
        if type(slot.request) is PublicAsk and type(slot) is not NewKeySlot:
            self._route_public(slot, slot.request)
            return
        try:
            log = self._log(*log_of(slot.request), now_s)
            if self._flusher.full:
                raise LimitExceeded(f"shard {self.name} has gathered as much as one flush may hold; send again")
            if log.live and not log.queue and self._missing(log, slot.request, now_s) is None:
                self._run(log, slot, now_s)
                return
            if self._mailbox + slot.count > self.settings.max_mailbox:
                raise LimitExceeded(
                    f"mailbox of shard {self.name} holds {self._mailbox} requests; at most {self.settings.max_mailbox} wait, send again"
                )
        except EsplanadeError as error:
            self._refuse(slot, error)
            return
        log.queue.append(slot)
        self._mailbox += slot.count
        self._work_on(log)

    def _route_public(self, slot: Slot, ask: PublicAsk) -> None:
        """Look the key up first; requests that do so count as waiting."""
        if self._mailbox >= self.settings.max_mailbox:
            self._refuse(slot, LimitExceeded(f"mailbox of shard {self.name} holds {self._mailbox} requests; at most that many wait, send again"))
            return
        self._mailbox += 1
        task = asyncio.create_task(self._answer_public(slot, ask))
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)

    async def _answer_public(self, slot: Slot, ask: PublicAsk) -> None:
        answer: Answer = refusal(Unavailable(f"shard {self.name} is stopping; ask again with the same key"))
        try:
            async with self._keys.alone(ask):
                known = await self._keys.find(ask)
                if known is not None:
                    answer = Replied(known)
                else:
                    frame = Frame(1, asyncio.get_running_loop().create_future())
                    self._route(NewKeySlot(ask, frame, 0, slot.came_s), self._clock.monotonic_s())
                    await frame.done
                    [answer] = frame.answers
        except EsplanadeError as error:
            answer = refusal(error)
        finally:
            self._mailbox -= 1
            slot.frame.answer(slot.index, answer)

    def _log(self, tenant: str, partition: int, now_s: float) -> PartitionLog:
        lease = self._tenure.leases.get(partition)
        if lease is None or partition in self._tenure.leaving:
            raise Unavailable(f"shard {self.name} does not own partition {partition}; ask again, the directory finds the owner")
        if now_s >= self._tenure.until_s or self._stopping:
            raise Unavailable(f"shard {self.name} could not extend its leases and answers nothing until it can; ask again")
        log = self._logs.get((tenant, partition))
        if log is None:
            log = self._logs[(tenant, partition)] = PartitionLog(
                tenant, partition, lease.epoch, secret=self._secret, settings=self.settings.host, snapshot_segments=self.settings.snapshot_segments,
                now_s=now_s, behaviours=self._behaviours,
            )  # fmt: skip
        log.used_s = now_s
        return log

    def _missing(self, log: PartitionLog, request: Request, now_s: float) -> str | None:
        """The venue whose document (or host) must be fetched before the request can run; KEY_ALONE where only a person's key must."""
        if not isinstance(request, Ask):
            return None if request.venue in log.hosts else request.venue
        address = request.address
        behaviour = self._behaviours.get(address.kind)
        if behaviour is None:
            return None
        venue = behaviour.venue_of(address, request.command)
        if venue is not None and self._unsealed(log, address, now_s):
            return venue
        if not venue or venue in log.hosts:
            return None
        if address.kind == "zone":
            return venue
        return None if self._shelf.at_hand(log.tenant, venue, now_s) is not None else venue

    def _unsealed(self, log: PartitionLog, address: Address, now_s: float) -> bool:
        """Whether the address is about a person whose key must be fetched first."""
        return self._keyring is not None and address.kind in PERSONAL_KINDS and self._keyring.at_hand(log.tenant, address.id, now_s) is None

    def _work_on(self, log: PartitionLog) -> None:
        if log not in self._workers:
            task = asyncio.create_task(self._work(log))
            self._workers[log] = task
            task.add_done_callback(lambda _: self._workers.pop(log, None))

    async def _work(self, log: PartitionLog) -> None:
        """Replay the log if need be, then run its queue, fetching venues as they are missed."""
        try:
            if not log.live:
                began_s = self._clock.monotonic_s()
                started = await log.replay(self._journal, self._shelf, began_s)
                self._meter.replay_s.observe(self._clock.monotonic_s() - began_s)
                if log.given_up:
                    return
                log.live = True
                self._profile.activations += 1
                for held, step in started:
                    self._venues.commit(log, held, step)
                    self._venues.advance_guarded(log, held, self._clock.monotonic_s())
            while log.queue and not log.given_up:
                slot = log.queue[0]
                if self._overdue(slot):
                    self._take_from_queue(log)
                    self._refuse(slot, Unavailable(f"waited longer than its deadline in the mailbox of shard {self.name} and was not run; ask again"))
                    continue
                try:
                    venue = self._missing(log, slot.request, self._clock.monotonic_s())
                    if venue is not None:
                        await self._fetch(log, venue, slot.request)
                        continue
                except EsplanadeError as error:
                    if not log.given_up:
                        self._take_from_queue(log)
                        self._refuse(slot, error)
                    continue
                self._take_from_queue(log)
                self._run(log, slot, self._clock.monotonic_s())
        except EsplanadeError as error:
            self._give_up(log, error)
        except Exception as error:
            self._give_up(log, Fault(f"log ({log.tenant}, {log.partition}): {type(error).__name__}: {error}; its entities are replayed"))

    def _overdue(self, slot: Slot) -> bool:
        request = slot.request
        return isinstance(request, Ask) and 0 < request.within_ms < (self._clock.monotonic_s() - slot.came_s) * 1000

    def _take_from_queue(self, log: PartitionLog) -> None:
        slot = log.queue.popleft()
        self._mailbox -= slot.count
        self._meter.mailbox_s.observe(self._clock.monotonic_s() - slot.came_s, slot.count)

    async def _fetch(self, log: PartitionLog, venue: str, request: Request) -> None:
        now_s = self._clock.monotonic_s()
        book = None if venue == KEY_ALONE else await self._shelf.fetch(log.tenant, venue, now_s)
        if self._keyring is not None and isinstance(request, Ask) and request.address.kind in PERSONAL_KINDS:
            await self._keyring.fetch(log.tenant, request.address.id, now_s)
        if book is None:
            return
        pinned = not isinstance(request, Ask) or request.address.kind == "zone"
        if pinned and venue in log.orphans:
            self._give_up(log, Unavailable(f"venue {venue} is in the catalogue again; its log is replayed, ask again"))
        if pinned and not log.given_up and venue not in log.hosts:
            self._venues.commit(log, *log.open_host(book, now_s))

    # --- turns --------------------------------------------------------------------------------------------------------

    def _run(self, log: PartitionLog, slot: Slot, now_s: float) -> None:
        """One turn. Its answer waits until everything the log has gathered is durable."""
        request = slot.request
        self._profile.turns += slot.count
        if isinstance(request, Observe):
            try:
                self._positioning.submit(log, slot, request, log.hosts[request.venue].host.book.venue)
            except EsplanadeError as error:
                self._refuse(slot, error)
            return
        part = trace_turn(request, now_s - slot.came_s, self.name) if type(request) is TracedAsk else None
        try:
            if isinstance(slot, BalancesSlot):
                address = address_of(request)
                slot.run(cast(Ledger, self._behaviours[address.kind]), self._entity(log, address), log, self._flusher)
                return
            answer = self._ask(log, request, now_s) if isinstance(request, Ask) else self._venues.run(log, request, now_s)
        except EsplanadeError as error:
            if isinstance(slot, BalancesSlot):
                self._refuse(slot, error)
                return
            answer = refusal(error)
            self._profile.refused += 1
        except Exception as error:
            # A broken invariant: what is in memory cannot be trusted any more.
            self._broken(log, slot, error)
            return
        if isinstance(request, Take | Watermark) and not isinstance(answer, Refused):
            slot.frame.answer(slot.index, answer)  # taken, not durable: the clock topic says when
            return

        def release(error: EsplanadeError | None) -> None:
            slot.frame.answer(slot.index, answer if error is None else refusal(error))

        self._flusher.when_durable(log, release if part is None else trace_flush(part, answer, release, self._flusher.traced(log)))

    def _take_rows(self, log: PartitionLog, take: Take) -> None:
        """Rows that positioning made of what phones sensed. Raises what the host raises."""
        if log.given_up or take.venue not in log.hosts or log.partition in self._tenure.leaving or self._clock.monotonic_s() >= self._tenure.until_s:
            raise Unavailable(f"shard {self.name} does not host venue {take.venue} now; ask again")
        self._venues.run(log, take, self._clock.monotonic_s())

    def _broken(self, log: PartitionLog, slot: Slot, error: Exception) -> None:
        fault = Fault(f"{type(slot.request).__name__}: {type(error).__name__}: {error}; its entities are replayed")
        self._refuse(slot, fault)
        self._give_up(log, fault)

    def _ask(self, log: PartitionLog, ask: Ask, now_s: float) -> Answer:
        address = ask.address
        entity = self._entity(log, address)
        behaviour = self._behaviours[address.kind]
        venue = behaviour.venue_of(address, ask.command)
        host = log.host(venue) if venue and address.kind in VENUE_KINDS else None
        book = host.book if host is not None else self._shelf.at_hand(log.tenant, venue, now_s) if venue else None
        seal = None
        if self._keyring is not None and address.kind in PERSONAL_KINDS:
            seal = self._keyring.at_hand(log.tenant, address.id, now_s)
            if seal is None and venue is not None:
                raise Unavailable(f"the key of {address} is no longer at hand; ask again with the same key")  # never stored as it is
        turn = entity.turn(
            ask.command, ask.key, Context(address=address, venue=book, crowd=host, tick=host.buffer.closed if host is not None else -1, seal=seal)
        )  # fmt: skip
        if turn.events:
            self._flusher.append(log, turn.events, turn.entries())
            self._await(log, entity, turn)
            if type(ask) is PublicAsk:
                self._flusher.record(log, stored_reply(ask, turn.reply, self._clock.unix_ms()))
        return Replied(turn.reply)

    def _entity(self, log: PartitionLog, address: Address) -> Entity:
        """The entity, new where it is not here. Raises LimitExceeded where no more fit, NotFound for a kind that does not exist."""
        if address not in log.entities and self._entities >= self.settings.max_entities and not self._passivate_oldest(log):
            raise LimitExceeded(f"shard {self.name} holds {self.settings.max_entities} entities; at most that many, add shards")
        before = len(log.entities)
        entity = log.entity(address)
        self._entities += len(log.entities) - before
        return entity

    # --- reminders ----------------------------------------------------------------------------------------------------

    def _await(self, log: PartitionLog, entity: Entity, turn: Turn) -> None:
        """Be woken for the reminders that a turn has set; the first of a log is told in its topic, in the same flush."""
        if turn.wakes and not log.alarms.marked:
            log.alarms.marked = True
            self._flusher.enclose(log, topic_of(log.partition), b"")
        log.alarms.add(entity.address, turn.wakes)

    def _remind(self, log: PartitionLog, now_s: float) -> None:
        """Run the turns of the reminders that are due, a limited number at once."""
        now_ms = self._clock.unix_ms()
        try:
            for _ in range(MAX_FIRED):
                if self._flusher.full or log.given_up or log.partition in self._tenure.leaving:
                    return
                alarm = log.alarms.take(now_ms)
                if alarm is None:
                    return
                address, name, due_ms = alarm
                entity = log.entities.get(address)
                held = entity.reminders.get(name) if entity is not None and entity.reminders else None
                if entity is None or held is None or held.due_ms != due_ms:
                    continue
                turn = entity.remind(name, now_ms)
                self._profile.turns += 1
                self._profile.reminders += 1
                log.used_s = now_s
                self._flusher.append(log, turn.events, turn.entries())
                self._await(log, entity, turn)
        except Exception as error:
            self._give_up(log, Fault(f"log ({log.tenant}, {log.partition}): a reminder: {type(error).__name__}: {error}; its entities are replayed"))

    async def _open_reminded(self, partitions: list[int]) -> None:
        """Logs of these partitions that have had reminders are replayed unasked, one after another."""
        of = {topic_of(partition): partition for partition in partitions}
        reminded = sorted((of[topic], tenant) for tenant, topic in await self._journal.topics_used(list(of)))
        for opened, (partition, tenant) in enumerate(reminded):
            if partition in self._tenure.leases and (tenant, partition) not in self._logs:
                self._reopen.setdefault((tenant, partition), self._clock.monotonic_s() + opened * REMINDED_EVERY_S)

    # --- time ---------------------------------------------------------------------------------------------------------

    def poll(self) -> None:
        """What time brings: free ticks, deadlines, Rewind again, replays that failed, payment counts."""
        now_s = self._clock.monotonic_s()
        if now_s >= self._tenure.until_s or self._stopping:
            return
        for place, due_s in list(self._reopen.items()):
            if now_s >= due_s:
                del self._reopen[place]
                if place[1] in self._tenure.leases and place[1] not in self._tenure.leaving:
                    self._work_on(self._log(*place, now_s))
        for log in [log for log in self._logs.values() if log.live]:
            for held in list(log.hosts.values()):
                if not log.given_up:
                    self._venues.advance_guarded(log, held, now_s)
            if not log.given_up and log.alarms.wait_ms(self._clock.unix_ms()) == 0:
                self._remind(log, now_s)
        if now_s - self._told_payments_s >= 1.0:
            self._tell_payments(now_s)
            self._keep_rested(now_s)
            self._passivate_idle(now_s)
            self._relieve(now_s)
            self._maps.sweep(self._logs.values(), now_s)

    def _tell_payments(self, now_s: float) -> None:
        span_s = now_s - self._told_payments_s
        self._profile.turns_per_s = (self._profile.turns - self._rate[1]) / span_s if self._rate[0] else 0.0
        self._rate = now_s, self._profile.turns
        self._told_payments_s = now_s
        for log, stats in payment_stats(self.name, self._logs.values()):
            self._flusher.publish(log, "payments", msgspec.msgpack.encode(stats))

    # --- passivation --------------------------------------------------------------------------------------------------

    def _restful(self, log: PartitionLog) -> bool:
        """Whether a log may leave memory: nothing waits, nothing is gathered, and it hosts no venue, whose clock goes on."""
        return log.live and not log.queue and not log.hosts and log.partition not in self._tenure.leaving and self._flusher.idle(log)

    def _passivate(self, log: PartitionLog) -> None:
        """Forget a log that nobody has asked for; its next request replays it, from a snapshot of now."""
        snapshot = log.parting()
        self._profile.passivations += 1
        self._give_up(log, Unavailable("passivated"))
        wait_ms = log.alarms.wait_ms(self._clock.unix_ms())
        self._reopen.pop((log.tenant, log.partition), None)
        if wait_ms is not None:
            self._reopen[(log.tenant, log.partition)] = self._clock.monotonic_s() + wait_ms / 1000
        if snapshot is not None:
            self._flusher.keep(snapshot)

    def _keep_rested(self, now_s: float) -> None:
        """Snapshots of logs that have come to rest, as many as may be on their way."""
        for log in self._logs.values():
            if self._flusher.snapshot_room <= 0:
                return
            snapshot = log.rested(now_s) if self._restful(log) else None
            if snapshot is not None:
                self._flusher.keep(snapshot)

    def _passivate_idle(self, now_s: float) -> None:
        """Logs unused for `passivate_s`, oldest first, a few at a time."""
        idle = [log for log in self._logs.values() if now_s - log.used_s >= self.settings.passivate_s and self._restful(log)]
        for log in sorted(idle, key=lambda log: log.used_s)[:PASSIVATED_AT_ONCE]:
            self._passivate(log)

    def _relieve(self, now_s: float) -> None:
        """Above the memory limit: logs that rest leave, those unused longest first."""
        limit = self.settings.max_memory_bytes
        if not limit or self._memory is None or self._memory.resident_bytes() <= limit:
            return
        resting = [log for log in self._logs.values() if log.entities and now_s - log.used_s >= RESTED_S and self._restful(log)]
        for log in sorted(resting, key=lambda log: log.used_s)[:RELIEVED_AT_ONCE]:
            self._passivate(log)
        if resting:
            self._memory.give_back()

    def _passivate_oldest(self, other: PartitionLog) -> bool:
        """Make room: the log unused longest leaves memory. False where none may, or all were used just now."""
        idle = [log for log in self._logs.values() if log is not other and log.entities and log.used_s < other.used_s and self._restful(log)]
        if not idle:
            return False
        self._passivate(min(idle, key=lambda log: log.used_s))
        return self._entities < self.settings.max_entities

    # --- losing -------------------------------------------------------------------------------------------------------

    def _lost(self, logs: list[Log], error: Exception) -> None:
        """A flush failed: what its logs hold in memory may be ahead of the journal, or behind."""
        unknown = Unavailable(f"shard {self.name} replays this partition after a failed flush ({error}); ask again with the same key")
        for log in logs:
            if isinstance(log, PartitionLog):
                self._give_up(log, unknown)
        if isinstance(error, Fenced) and not self._stopping:
            task = asyncio.create_task(self.renew())
            self._tasks.append(task)
            task.add_done_callback(lambda done: self._tasks.remove(done) if done in self._tasks else None)

    def _give_up(self, log: PartitionLog, error: EsplanadeError) -> None:
        """Forget a log; requests that waited for it wait for its replay, unless that is what failed."""
        if log.given_up:
            return
        log.given_up = True
        self._entities -= len(log.entities)
        for address, entity in log.entities.items():
            entity.log = None
            if self._at_hand.get(address[:2], _NOBODY).pop(address.id, None) is not None:
                self._count_at_hand -= 1
        if self._logs.get((log.tenant, log.partition)) is log:
            del self._logs[(log.tenant, log.partition)]
        waiting = list(log.queue)
        log.queue.clear()
        self._mailbox -= sum(slot.count for slot in waiting)
        self._flusher.forget(log, error if error.retryable else Unavailable(error.message))
        now_s = self._clock.monotonic_s()
        if log.partition in self._tenure.leases and not self._stopping and (log.hosts or not log.live):
            # Its sources may be waiting for Rewind; a replay that fails is tried again.
            self._reopen[(log.tenant, log.partition)] = now_s if log.live else now_s + 0.5
        elif log.partition in self._tenure.leases and not self._stopping and log.alarms.marked:
            self._reopen[(log.tenant, log.partition)] = now_s + 0.5  # what was fired and not flushed is due again
        for slot in waiting:
            if log.live:
                self._route(slot, now_s)
            else:
                self._refuse(slot, error)

    def under_way(self) -> list[tuple[str, int]]:
        """Ledgers here, (tenant, number), from which transfers are under way."""
        return [
            (log.tenant, int(entity.address.id))
            for log in self._logs.values() if log.live and log.partition not in self._tenure.leaving
            for entity in log.ledgers if entity.state.transit.open
        ]  # fmt: skip

    def open_allotments(self) -> list[tuple[str, str]]:
        """Allotments here, (tenant, id), of which takes are under way."""
        return [
            (log.tenant, entity.address.id)
            for log in self._logs.values() if log.live and log.partition not in self._tenure.leaving
            for entity in log.allotments if entity.state.open
        ]  # fmt: skip

    # --- profile ------------------------------------------------------------------------------------------------------

    def profile(self) -> ShardProfile:
        """The counters now."""
        counts, kept, meter = self._flusher.counts, self._profile, self._meter
        now_s = self._clock.monotonic_s()
        hot, hot_span_s = meter.hot()
        hosts: list[PositionHost] = [held.host for log in self._logs.values() for held in log.hosts.values()]
        return msgspec.structs.replace(
            kept,
            uptime_s=now_s - self._started_s,
            partitions=len(self._tenure.leases), epochs={log.partition: log.epoch for log in self._logs.values()}, logs=len(self._logs),
            entities=sum(len(log.entities) + len(log.hosts) for log in self._logs.values()),
            flushes=counts.flushes, flush_s=counts.seconds, flush_failures=counts.failures, flushed_bytes=counts.bytes, flushed_events=counts.events,
            snapshots=counts.snapshots, mailbox=self._mailbox, gated=self._flusher.gated,
            phones=self._positioning.phones, observations=self._positioning.observations, locating_s=self._positioning.locating_s,
            late_rows=sum(host.late_rows for host in hosts), pushes_dropped=sum(host.rules.dropped for host in hosts),
            impossible_moves=sum(host.plausible.impossible for host in hosts),
            publications=self._publisher.sent, publications_dropped=self._publisher.dropped,
            oldest_s=max((now_s - log.queue[0].came_s for log in self._logs.values() if log.queue), default=0.0),
            kinds=meter.kinds, hot=hot, hot_span_s=hot_span_s, answer_time=meter.answer_s, mailbox_time=meter.mailbox_s, replay_time=meter.replay_s,
            flush_time=counts.time_s, flush_size=counts.size,
        )  # fmt: skip
