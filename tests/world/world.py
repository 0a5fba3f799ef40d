"""A world of shards, a database, a network and clients in one process on a manual clock, driven step by step by one seed.

The network drops, delays, duplicates and reorders; every call of the database takes its time, and may fail before its commit, after it, or land after its shard has died;
shards crash at whatever await they stand, and pause past their leases and wake late; partitions are drained live. A supervisor takes over as the real one does: from the
dead at once, from a paused one when its lease has run out. Clients know only what they were answered. The bank checker compares that with the journal.

A calm world has no trouble but one: `crash_at` kills the process that stands at that await of the database.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from actors.directory import owner_name
from actors.events import Paid, QrScanned, ToppedUp, decode_event
from actors.messages import Balance, Command, GetBalance, Payments, Reply, ScanQr, Settled, TopUps, WalkedIn
from actors.placement import plan
from actors.requests import Answer, Ask, Replied, log_of
from actors.shard import Shard, ShardSettings
from actors.system import Key
from actors.venue_shelf import VenueShelf
from esplanade.core.clock import ManualClock
from esplanade.core.errors import EsplanadeError, Unavailable
from esplanade.core.ids import Address
from esplanade.storage.flush_rules import check_flush
from esplanade.storage.journal import Append, Lease, OutboxEntry, Published, Segment, Snapshot, StoredReply
from esplanade.storage.memory import MemoryBroker, MemoryCatalogue, MemoryHub, MemoryJournal, MemoryStore, MemorySubjectKeys
from esplanade.storage.sealing import Keyring
from tests.actors.parkside import document, keys, u2, u4

T = TypeVar("T")

SHARDS, SPARES = 2, 1
CLIENTS = 4
COMMANDS = 14
LEASE_S = 3.0
STEP_S = 0.2
PATIENCE = 12
"""Steps after which a client sends again."""
ASTRAY = 0.05
"""Share of requests that an old directory sends to a shard that may not be the owner."""
TROUBLE_STEPS = 120
MAX_STEPS = 2_000
TOP_UP = 1_000
PRICE = 7


class Node:
    """A process: its shard and the calls under way in it, whether it is dead or paused, and when it last renewed."""

    def __init__(self, name: str, shard: Shard, renewed_s: float) -> None:
        self.name = name
        self.shard = shard
        self.renewed_s = renewed_s
        self.paused_until = 0
        self.dead_until: int | None = None
        self.calls: dict[asyncio.Task[Any], None] = {}  # in the order of their coming: a set would end them in another order each time
        self.renewing: asyncio.Task[Any] | None = None

    def paused(self, step: int) -> bool:
        return step < self.paused_until

    @property
    def dead(self) -> bool:
        return self.dead_until is not None


class WorldJournal(MemoryJournal):
    """The server's side of a call is a task of its own: it goes on when the shard that asked has died. Appends, or none of them; the answer may be lost either way."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world.store)
        self._world = world
        self._name = name

    async def flush(self, appends: Sequence[Append], outbox: Sequence[OutboxEntry] = (), keys: Sequence[StoredReply] = ()) -> list[Published]:
        self._check_open()
        check_flush(appends, outbox, keys)

        async def commit() -> list[Published]:
            return self._commit(list(appends), list(outbox), list(keys))

        return await self._called(commit, slow=4, fails=0.06)

    async def acquire(self, partitions: Sequence[int], owner: str, *, ttl_ms: int) -> list[Lease]:
        return await self._called(partial(super().acquire, partitions, owner, ttl_ms=ttl_ms))

    async def renew(self, leases: Sequence[Lease], *, ttl_ms: int) -> list[Lease]:
        return await self._called(partial(super().renew, leases, ttl_ms=ttl_ms))

    async def logs(self, partitions: Sequence[int]) -> dict[tuple[str, int], int]:
        return await self._called(partial(super().logs, partitions))

    async def topics_used(self, topics: Sequence[str]) -> set[tuple[str, str]]:
        return await self._called(partial(super().topics_used, topics))

    async def snapshot(self, tenant: str, partition: int) -> Snapshot | None:
        return await self._called(partial(super().snapshot, tenant, partition))

    async def put_snapshot(self, snapshot: Snapshot) -> None:
        return await self._called(partial(super().put_snapshot, snapshot))

    async def read(self, tenant: str, partition: int, *, after: int = 0) -> AsyncIterator[Segment]:
        async for segment in super().read(tenant, partition, after=after):
            if self._world.chance.random() < 0.1:
                await self._called(_nothing, fails=0.02)
            yield segment

    async def _called(self, act: Callable[[], Coroutine[Any, Any, T]], *, slow: int = 2, fails: float = 0.03) -> T:
        return await asyncio.shield(self._world.spawn(self._serve(self._world.nodes[self._name], act, slow, fails)))

    async def _serve(self, node: Node, act: Callable[[], Coroutine[Any, Any, T]], slow: int, fails: float) -> T:
        world = self._world
        late = world.chance.random() < 0.5  # sent, or not yet sent, when the process pauses
        await world.pass_steps(world.chance.randrange(slow))
        while late and node.paused(world.step):
            await world.pass_steps(1)
        fate = world.chance.random() if world.troubled else 1.0
        if fate < fails:
            raise Unavailable("the connection was lost before the commit")
        world.stand_at(node)
        done = await act()
        world.stand_at(node)
        await world.pass_steps(world.chance.randrange(2))
        while node.paused(world.step):
            await world.pass_steps(1)
        if fate < 2 * fails:
            raise Unavailable("the connection was lost after the commit")
        return done


async def _nothing() -> None:
    return


class World:
    def __init__(self, seed: int, shelf: VenueShelf, *, calm: bool = False, crash_at: int = 0, astray: float = ASTRAY) -> None:
        self.seed = seed
        self.astray = astray
        self.calm = calm
        self.crash_at = crash_at
        self.awaits = 0
        """Times that a process stood at an await of the database, just before its effect or just after it."""
        self.chance = random.Random(seed)
        self.clock = ManualClock()
        self.store = MemoryStore(self.clock)
        self.keys = MemorySubjectKeys()
        self.step = 0
        self.troubled = not calm
        self.nodes: dict[str, Node] = {}
        self.paid: dict[int, list[bytes]] = {i: [] for i in range(CLIENTS)}  # acked keys
        self.scans: Counter[int] = Counter()
        self.crashes = self.pauses = self.drains = 0
        self.finished = 0
        self._shelf = shelf
        self._starts = 0
        self._next: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._leaving: set[str] = set()
        self.journal = MemoryJournal(self.store)

    # --- time and tasks ---

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited for it has it too

    async def pass_steps(self, count: int) -> None:
        for _ in range(count):
            await asyncio.shield(self._next)

    # --- processes ---

    async def _start(self, name: str) -> None:
        self._starts += 1
        catalogue = MemoryCatalogue(self.clock)
        shard = Shard(
            name=name, owner=owner_name(name, str(self._starts)), journal=WorldJournal(self, name), catalogue=catalogue,
            broker=MemoryBroker(MemoryHub(self.clock)), clock=self.clock, secret=b"s" * 32,
            settings=ShardSettings(lease_ttl_ms=round(LEASE_S * 1000), snapshot_segments=6), keyring=Keyring(self.keys, b"m" * 32, os.urandom),
        )  # fmt: skip
        shard._shelf = self._shelf
        self.nodes[name] = Node(name, shard, self.clock.monotonic_s())
        await shard.start(background=False)

    def stand_at(self, node: Node) -> None:
        """A process waits for the database here: the place to crash, in a calm world that says so."""
        self.awaits += 1
        if self.awaits == self.crash_at and not node.dead:
            self._crash(node)

    def _crash(self, node: Node) -> None:
        self.crashes += 1
        node.dead_until = self.step + self.chance.randrange(5, 30)
        shard = node.shard
        for task in [*node.calls, *shard._tasks, *shard._workers.values(), *([shard._reopening] if shard._reopening is not None else [])]:
            task.cancel()

    def _call(self, node: Node, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Work in a process, which ends with it."""
        task = self.spawn(work)
        node.calls[task] = None
        task.add_done_callback(lambda _: node.calls.pop(task, None))
        return task

    async def _supervise(self) -> None:
        while True:
            await self.pass_steps(1)
            with contextlib.suppress(EsplanadeError):
                await self._tend()

    async def _tend(self) -> None:
        """One look, as the real supervisor has it; what it decides is carried out before the next."""
        now_s = self.clock.monotonic_s()
        live = {
            node.shard.owner: name for name, node in self.nodes.items()
            if not node.dead and not (node.paused(self.step) and now_s - node.renewed_s > LEASE_S)
        }  # fmt: skip
        owners = {lease.partition: live.get(lease.owner) for lease in await self.journal.leases()}
        made = plan(owners, set(live.values()), wanted=SHARDS, spares=SPARES, leaving=self._leaving)
        work = [self._take(name, partitions) for name, partitions in made.take.items() if not self.nodes[name].paused(self.step)]
        for source, target, partitions in made.move:
            if not self.nodes[target].paused(self.step) and not self.nodes[source].paused(self.step):
                work.append(self._move(source, target, partitions))
        await asyncio.gather(*work, return_exceptions=True)
        self._leaving &= {owner for owner in owners.values() if owner is not None}

    async def _take(self, name: str, partitions: list[int]) -> None:
        node = self.nodes[name]
        await asyncio.wait({self._call(node, node.shard.take(partitions))})

    async def _move(self, source: str, target: str, partitions: list[int]) -> None:
        node = self.nodes[source]
        if not node.dead:
            await asyncio.wait({self._call(node, node.shard.release(partitions))})
        if not self.nodes[target].dead:
            await self._take(target, partitions)

    async def _renew(self, node: Node) -> None:
        began_s = self.clock.monotonic_s()
        await node.shard.renew()
        node.renewed_s = began_s

    def _trouble(self) -> None:
        roll = self.chance.random()
        name = self.chance.choice(sorted(self.nodes))
        node = self.nodes[name]
        if node.dead or node.paused(self.step):
            return
        if roll < 0.03:
            self._crash(node)
        elif roll < 0.05:
            self.pauses += 1
            node.paused_until = self.step + self.chance.randrange(3, 40)
        elif roll < 0.06 and not self._leaving:  # one at a time: somebody must be left to take over
            self.drains += 1
            self._leaving.add(name)

    async def run(self) -> None:
        """Play to the end, then check the books. Raises AssertionError naming what a client saw and the journal denies."""
        for i in range(SHARDS + SPARES):
            await self._start(f"shard-{i}")
        self.spawn(self._supervise())
        clients = [self.spawn(self._client(i)) for i in range(CLIENTS)]
        while not all(client.done() for client in clients):
            self.step += 1
            self.troubled = self.step < TROUBLE_STEPS and not self.calm
            assert self.step < MAX_STEPS, "the world never comes to rest"
            self.clock.advance(STEP_S)
            woken, self._next = self._next, asyncio.get_running_loop().create_future()
            woken.set_result(None)
            if self.troubled:
                self._trouble()
            for name, node in list(self.nodes.items()):
                if node.dead_until is not None and self.step >= node.dead_until:
                    await self._start(name)
                elif not node.dead and not node.paused(self.step) and self.step % 4 == 0 and (node.renewing is None or node.renewing.done()):
                    node.renewing = self._call(node, self._renew(node))
            for _ in range(8):
                await asyncio.sleep(0)
        for client in clients:
            client.result()
        self._check()

    async def close(self) -> None:
        tasks = list(self._tasks)
        for node in self.nodes.values():
            shard = node.shard
            tasks += [*shard._tasks, *shard._workers.values(), *([shard._reopening] if shard._reopening is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._next.cancel()

    # --- clients ---

    async def _client(self, number: int) -> None:
        subject = number * 8 + number
        ledger, session = Address("ledger", "demo", str(subject % 8)), Address("session", "demo", str(subject))
        await self._done(ledger, TopUps(tick=0, key=keys(10**6 + number), subject=u4(subject), amount=u4(TOP_UP), currency="EUR"))
        for i in range(COMMANDS):
            kind = self.chance.randrange(3)
            if kind == 0:
                key = keys(number * 1000 + i)
                reply = await self._done(
                    ledger, Payments(tick=i, venue="parkside", key=key, subject=u4(subject), unit=u2(0), amount=u4(PRICE), currency="EUR")
                )  # fmt: skip
                assert isinstance(reply, Settled)
                assert reply.result == b"\0", f"client {number}: payment {i} refused with {reply.result!r}"
                self.paid[number].append(key)
            elif kind == 1:
                found = await self._done(session, ScanQr(venue="parkside", location="north_entrance"), Key(f"phone-{number}", i))
                assert isinstance(found, WalkedIn)
                self.scans[number] += 1
            else:
                balance = await self._done(ledger, GetBalance(subject=subject))
                assert isinstance(balance, Balance)
                expected = TOP_UP - PRICE * len(self.paid[number])
                assert balance.balances.get("EUR") == expected, f"client {number} reads {balance.balances}, was acked {expected}"

    async def _done(self, address: Address, command: Command, key: Key | None = None) -> Reply:
        """Ask until it is answered, always with the same key."""
        request = Ask(address, command, key)
        while True:
            answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            for _ in range(1 + (self.troubled and self.chance.random() < 0.15)):
                self.spawn(self._deliver(request, answered))
            for _ in range(PATIENCE):
                if answered.done():
                    break
                await self.pass_steps(1)
            if answered.done() and isinstance(answered.result(), Replied):
                answer = answered.result()
                assert isinstance(answer, Replied)
                return answer.reply

    async def _deliver(self, request: Ask, answered: asyncio.Future[Answer]) -> None:
        await self.pass_steps(self.chance.randrange(4))
        if self._drops():
            return
        lease = self.store.leases.get(log_of(request)[1])
        name = self.chance.choice(sorted(self.nodes)) if lease is None or self.chance.random() < self.astray else lease.owner.partition("@")[0]
        node = self.nodes[name]
        while node.paused(self.step):
            await self.pass_steps(1)
        if node.dead:
            return
        call = self._call(node, node.shard.answer([request]))
        await asyncio.wait({call})
        if call.cancelled():
            return
        answer = call.result()[0]
        while node.paused(self.step):
            await self.pass_steps(1)
        if node.dead or self._drops():
            return
        await self.pass_steps(self.chance.randrange(3))
        if not answered.done():
            answered.set_result(answer)

    def _drops(self) -> bool:
        return self.troubled and self.chance.random() < 0.08

    # --- the bank checker ---

    def _check(self) -> None:
        stored: Counter[bytes] = Counter()
        topped: Counter[bytes] = Counter()
        scans: Counter[str] = Counter()
        for log in self.store.logs.values():
            versions: Counter[str] = Counter()
            for place, segment in enumerate(log):
                assert segment.position == place + 1
                for event in segment.events:
                    versions[event.entity] += 1
                    assert event.version == versions[event.entity], (
                        f"{event.entity}: version {event.version} is stored as number {versions[event.entity]}"
                    )
                    body = decode_event(event.type, event.body)
                    if isinstance(body, Paid):
                        stored.update(body.key[i : i + 16] for i in range(0, len(body.key), 16))
                    elif isinstance(body, ToppedUp):
                        topped[body.key] += 1
                    elif isinstance(body, QrScanned):
                        scans[event.entity] += 1
        acked = [key for paid in self.paid.values() for key in paid]
        assert set(topped.values()) == {1}
        assert not [key for key in acked if stored[key] != 1], "an acked payment is lost or doubled"
        assert len(stored) == len(acked)
        for number in range(CLIENTS):
            assert scans[f"session/demo/{number * 9}"] == self.scans[number], f"client {number}: scans doubled or lost"


async def shelf() -> VenueShelf:
    """A shelf with the venue read once, for all worlds."""
    catalogue = MemoryCatalogue(ManualClock())
    await catalogue.add_tenant("demo", "Demo")
    await catalogue.put_venue("demo", document())
    made = VenueShelf(catalogue)
    await made.fetch("demo", "parkside", 1e9)
    return made


async def play(seed: int, on: VenueShelf, *, calm: bool = False, crash_at: int = 0, astray: float = ASTRAY) -> World:
    world = World(seed, on, calm=calm, crash_at=crash_at, astray=astray)
    try:
        await world.run()
    except (AssertionError, EsplanadeError) as error:
        place = f", crash at await {crash_at}" if crash_at else ""
        raise AssertionError(
            f"seed {seed}{place}: {error}\nrepeat it: ESPLANADE_WORLD_SEEDS={seed}:{seed + 1} python -m pytest tests/world/test_world.py -q"
        ) from error
    finally:
        await world.close()
    return world
