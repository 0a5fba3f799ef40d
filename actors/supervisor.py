"""Watches the shards' processes and hands partitions to the living: a death is seen by its closed connection, a hang or a cut cable by its lease that nobody
renews, or by its silence when it is asked for its name (a spare has no lease, and the connection to a machine that was cut off never closes).

Owns the decision when to act (`placement` says how) and nothing durable: the lease table is the state, so a supervisor that starts anew goes on where another
stood, and two of them do no harm, since a takeover raises the epoch and a former owner can append nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

from actors.directory import Directory, decode_leases, process_of
from actors.placement import Plan, plan
from esplanade.core.clock import SystemClock
from esplanade.core.errors import EsplanadeError, Unavailable
from esplanade.storage.journal import Journal, Lease

CALL_S: Final = 3.0
"""How long a live shard may take to hand over or to take over; then the plan is made anew."""
AGAIN_S: Final = 0.05
POLLS_A_LEASE: Final = 20
MAX_POLL_S: Final = 0.25

T = TypeVar("T")


class Process(Protocol):
    """A shard's process, as the supervisor needs it."""

    name: str

    async def call(self, method: str, *arguments: Any) -> Any:
        """Raises Unavailable while it is away."""
        ...

    async def ended(self) -> None:
        """Returns when the process that runs now has ended. Raises Unavailable where there is none to watch."""
        ...

    async def kill(self) -> None:
        """End the process that runs now, whatever it does; another takes its place."""
        ...


@dataclass(slots=True)
class _Seen:
    """A shard's newest expiry in the table, and when (our monotonic clock) it last moved."""

    expires_unix_ms: int
    moved_s: float


@dataclass(slots=True)
class Takeover:
    """One takeover: when, from whom (owners), by whom, how long the call took."""

    at_s: float
    owners: tuple[str, ...]
    by: str
    partitions: int
    took_s: float


@dataclass
class SupervisorSettings:
    """wanted: shards at work; spares: those that stand by; lease_ttl_s: as the shards have it."""

    wanted: int
    spares: int
    lease_ttl_s: float
    leaving: set[str] = field(default_factory=set)


class Supervisor:
    """`start` returns when every partition has an owner. Belongs to one event loop."""

    def __init__(self, processes: list[Process], directory: Directory, journal: Journal, clock: SystemClock, settings: SupervisorSettings) -> None:
        self.settings = settings
        self.takeovers: list[Takeover] = []
        self._journal = journal
        self._directory = directory
        self._clock = clock
        self._processes = {process.name: process for process in processes}
        self._live: dict[str, str] = {}  # process -> owner that answers
        self._hung: set[str] = set()  # owners whose lease ran out
        self._seen: dict[str, _Seen] = {}
        self._news = asyncio.Event()
        self._settled = asyncio.Event()
        self._tasks: set[asyncio.Future[None]] = set()
        self._watching: dict[str, asyncio.Future[None]] = {}

    async def start(self) -> None:
        """Watch the processes, and give every partition an owner before returning; one that is away now joins when it is back."""
        for process in self._processes.values():
            with contextlib.suppress(EsplanadeError):
                self._live[process.name] = str(await process.call("owner"))
            self._watch(process)
        self._spawn(self._run())
        await self._settled.wait()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def add(self, process: Process) -> None:
        """Watch another process; it stands by, or is put to work where more are wanted."""
        self._processes[process.name] = process
        self._watch(process)

    def remove(self, name: str) -> None:
        """Watch a drained process no more; another one may have its name later."""
        self.settings.leaving.discard(name)
        self._processes.pop(name, None)
        self._live.pop(name, None)
        watching = self._watching.pop(name, None)
        if watching is not None:
            watching.cancel()

    async def settled(self) -> None:
        """Returns when a look at the table from now on finds nothing to do: never while no process lives that could do it."""
        self._settled.clear()
        self._news.set()
        await self._settled.wait()

    def _spawn(self, work: Awaitable[None]) -> asyncio.Future[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _watch(self, process: Process) -> None:
        self._watching[process.name] = self._spawn(self._follow(process))

    async def _follow(self, process: Process) -> None:
        """Know whether the process lives, start after start."""
        while True:
            try:
                owner = str(await process.call("owner"))
                if owner not in self._hung:
                    self._live[process.name] = owner
                    self._news.set()
                await self._gone(process, owner)
            except EsplanadeError:
                pass
            self._live.pop(process.name, None)
            self._news.set()
            await asyncio.sleep(AGAIN_S)

    async def _gone(self, process: Process, owner: str) -> None:
        """Returns when the process that runs now has ended, or has said nothing for a lease's time: then it is ended."""
        ended = asyncio.ensure_future(process.ended())
        asked: asyncio.Future[Any] | None = None
        try:
            while True:
                await asyncio.wait({ended}, timeout=self.settings.lease_ttl_s / 2)
                if not ended.done():
                    asked = asyncio.ensure_future(process.call("owner"))
                    await asyncio.wait({ended, asked}, timeout=self.settings.lease_ttl_s, return_when=asyncio.FIRST_COMPLETED)
                if ended.done():
                    return await ended
                if asked is not None and asked.done():
                    await asked
                    continue
                self._hang(owner)
                return None
        finally:
            for waiting in (ended, asked):
                if waiting is not None:
                    waiting.cancel()
                    await asyncio.gather(waiting, return_exceptions=True)

    def _hang(self, owner: str) -> None:
        """Trust this start of a process no more, and end it."""
        if owner not in self._hung and process_of(owner) in self._processes:
            self._hung.add(owner)
            self._spawn(self._end(self._processes[process_of(owner)]))

    async def _run(self) -> None:
        poll_s = min(MAX_POLL_S, self.settings.lease_ttl_s / POLLS_A_LEASE)
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(poll_s):
                    await self._news.wait()
            self._news.clear()
            try:
                if not await self._tend():
                    self._settled.set()
            except EsplanadeError:
                await asyncio.sleep(AGAIN_S)  # the database or a shard is away: look again

    async def _tend(self) -> bool:
        """Look once; True where something was to be done, though nobody is there who could do it."""
        leases = await self._journal.leases()
        self._directory.adopt(leases)
        self._find_hung(leases)
        live = {owner: name for name, owner in self._live.items() if owner not in self._hung}
        owners = {lease.partition: live.get(lease.owner) for lease in leases}
        made = plan(
            owners, set(live.values()), wanted=self.settings.wanted, spares=self.settings.spares, leaving=self.settings.leaving
        )  # fmt: skip
        if not made.take and not made.move:
            return made.waits
        await self._carry_out(made, leases)
        return True

    def _find_hung(self, leases: list[Lease]) -> None:
        now_s = self._clock.monotonic_s()
        newest: dict[str, int] = {}
        for lease in leases:
            newest[lease.owner] = max(newest.get(lease.owner, 0), lease.expires_unix_ms)
        for owner, expires in newest.items():
            seen = self._seen.get(owner)
            if seen is None or seen.expires_unix_ms != expires:
                self._seen[owner] = _Seen(expires, now_s)
            elif now_s - seen.moved_s >= self.settings.lease_ttl_s and self._live.get(process_of(owner)) == owner:
                self._hang(owner)
        for owner in set(self._seen) - set(newest):
            del self._seen[owner]

    @staticmethod
    async def _end(process: Process) -> None:
        with contextlib.suppress(EsplanadeError):
            await process.kill()

    async def _carry_out(self, made: Plan, leases: list[Lease]) -> None:
        of = {lease.partition: lease.owner for lease in leases}
        results = await asyncio.gather(
            *(self._take(name, partitions, tuple(sorted({of[p] for p in partitions if p in of}))) for name, partitions in made.take.items()),
            *(self._move(*move) for move in made.move),
            return_exceptions=True,
        )
        failed = [result for result in results if isinstance(result, BaseException)]
        if failed:
            raise failed[0]

    async def _take(self, name: str, partitions: list[int], owners: tuple[str, ...]) -> None:
        began_s = self._clock.monotonic_s()
        told = await _within(CALL_S, name, self._processes[name].call("take", partitions))
        self._directory.adopt(decode_leases(told))
        self.takeovers.append(Takeover(began_s, owners, name, len(partitions), self._clock.monotonic_s() - began_s))
        del self.takeovers[:-1000]

    async def _move(self, source: str, target: str, partitions: list[int]) -> None:
        with contextlib.suppress(EsplanadeError):  # one that does not let go is taken from
            await _within(CALL_S, source, self._processes[source].call("release", partitions))
        await self._take(target, partitions, (self._live.get(source, source),))


async def _within(seconds: float, name: str, call: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(seconds):
            return await call
    except TimeoutError:
        raise Unavailable(f"process {name} did not answer within {seconds} s; it is asked again") from None
