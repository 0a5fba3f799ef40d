"""What the rest of the house sees of the actors: one interface, two implementations (in-process, Ray).

`ask` is the command plane, `take` and `watermark` are the position plane. Nothing answers before what it saw is durable.

Ticks. A *driven* venue has open sources; tick t closes when every open source has declared its watermark at t or later and the rows it
declared for each tick have arrived (rows are counted by distinct (tick, subject) of the source), or when the deadline passes, which is counted
and voids the run's hash. A *free* venue (no open source) closes a tick every TICK_S of the system clock; rows without a tick
belong to the open tick. The host keeps nothing volatile that matters: after a restart it says `Rewind` on the clock topic, and sources
send again every row after the tick it names (its newest checkpoint, at most `actors.positions.CHECKPOINT_TICKS` before the last tick it called closed, so
sources keep their rows of that many ticks); the outcome is the same as without the crash.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import msgspec

from actors.messages import Command, Reply
from esplanade.core.errors import EsplanadeError
from esplanade.core.ids import Address
from esplanade.storage.broker import Broker
from esplanade.storage.journal import Journal
from spatial.columns import PositionColumns
from spatial.positioning.observed import Answers, Observed


class Key(msgspec.Struct, frozen=True, array_like=True):
    """Idempotency of a connection's command: the client's id and its sequence number; the same pair has one effect."""

    client: str
    sequence: int


class VenueClock(msgspec.Struct, frozen=True):
    """State of a venue's clock: last closed (durable) tick, the host's epoch, and how the run went so far."""

    tick: int
    epoch: int
    driven: bool
    late_rows: int
    late_ticks: int


Then = Callable[[Reply | EsplanadeError], None]
"""Called once, with a reply or with what was raised in its place. Must not raise."""


T = TypeVar("T")


def settle(future: asyncio.Future[T], outcome: T | EsplanadeError) -> None:
    """A `Then` (bound to a future) for who awaits: the outcome, or raised what it is. Who asked may have gone."""
    if future.done():
        return
    if isinstance(outcome, EsplanadeError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


ThenEach = Callable[[Sequence[int], Sequence[Reply | EsplanadeError]], None]
"""Called with the places of some of several asks and, in the same order, what `Then` would be called with for each; once for each place, in as many calls as it takes. Must
not raise."""


class System(Protocol):
    async def ask(
        self, address: Address, command: Command, *, key: Key | None = None, public: bytes | None = None, deadline_s: float = 5.0
    ) -> Reply:  # fmt: skip
        """Deliver a command and return its reply once durable. `key` is required for commands that change state from a connection, or `public`, 16 bytes: a key that
        outlives connections and entities for 24 hours (`actors.public_keys`); not for ledgers, whose rows have keys of their own.

        Raises Conflict where `public` was used with other parameters,  Unavailable (retry with the same key) when the owner is away past the deadline, LimitExceeded when its mailbox is full.
        """
        ...

    def ask_soon(self, address: Address, command: Command, then: Then, *, deadline_s: float = 5.0) -> None:
        """As `ask` of what needs no key, without a task for each: `then` gets what `ask` would return or raise, in a later turn of the loop."""
        ...

    def ask_each_soon(self, asks: Sequence[tuple[Address, Command]], then: ThenEach, *, deadline_s: float = 5.0) -> None:
        """`ask_soon` of several, at most MAX_FRAME_REQUESTS: those that live together travel together, without an object for each."""
        ...

    async def open_source(self, tenant: str, venue: str, source: str, *, first_tick: int) -> VenueClock:
        """Make the venue driven by (also) this source, from `first_tick` on. Idempotent.

        The clock of a venue where nobody was ever seen is set to `first_tick` - 1. Elsewhere a `first_tick` that has closed already means: from the next one on.
        """
        ...

    async def close_source(self, tenant: str, venue: str, source: str) -> VenueClock: ...

    async def take(self, tenant: str, venue: str, columns: PositionColumns, *, source: str | None, tick: int | None) -> None:
        """Hand rows to the venue's position host; returns when they are in its arrays (not yet durable: see the clock topic)."""
        ...

    async def locate(self, tenant: str, venue: str, observed: Observed) -> tuple[Answers, int]:
        """What phones sensed, into rows of the position plane; returns what became of each and the version of the radio map, once the rows are in the host's arrays.

        Raises NotFound without a radio map, LimitExceeded where too much waits."""
        ...

    async def watermark(self, tenant: str, venue: str, source: str, *, tick: int, rows: int) -> None:
        """Declare that `source` has sent `rows` rows for `tick`, and will send none for earlier ticks.

        A source declares every tick once, from its first on, without gaps (0 rows where it has none); a declaration may overtake another on the way.
        """
        ...

    async def clock(self, tenant: str, venue: str) -> VenueClock: ...

    async def watch(self, tenant: str, venue: str, topics: dict[str, float]) -> None:
        """Say which ephemeral topics have readers and at which rate (Hz, venue's real time); expires after 10 s unless repeated."""
        ...

    async def profile(self) -> list[dict[str, object]]:
        """Counters of every shard: turns, turn time, flushes, mailbox depth, epoch, restarts, and where it runs."""
        ...


class FollowingSystem(System, Protocol):
    """A `System` that finds the owners of partitions in the directory."""

    async def follow(self, journal: Journal, broker: Broker) -> None: ...

    async def stop(self) -> None: ...
