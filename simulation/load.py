"""The load generator: a simulated crowd as clients of the gateway, in processes of its own.

Owns the plan of a run, who of the crowd becomes a WebSocket person, the keys of payments, the intended times, and the life of the processes. It is an
open model: everything is sent at its intended time, whether or not answers came. Never decides by timing who does what: `Splitter` is a pure function of
the seed and the crowd, so two runs with the same seed send the same rows, payments and keys.

One feed process (`load_feed`) runs the crowd and speaks for most people by columns; client processes (`load_clients`) drive WebSocket people.
"""

from __future__ import annotations

import hashlib
import heapq
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from esplanade.core.clock import TICK_S
from esplanade.core.errors import InvalidInput
from simulation.demand import Demand
from spatial.columns import LEFT, PositionColumns

FEED_SOURCE: Final = "crowd"
FEED_SUBJECT: Final = 2**32 - 2
"""Subject of the feed's token; client process w has FEED_SUBJECT - 1 - w. Far above every simulated person."""
SECOND_TICKS: Final = 10
"""Ticks between two rows of a WebSocket person (1 Hz)."""
LOOKAHEAD_TICKS: Final = 40
"""The crowd is simulated so far ahead of the intended time at most."""
FREE_RUN_TICKS: Final = 50
"""At speed 0, a tick is sent when the one so many ticks earlier has closed."""
KEEP_TICKS: Final = 1200
"""Ticks that a source keeps to send again after a rewind (120 s of venue time); older ones that never closed are given up, counted."""
KEEP_CLOSED_TICKS: Final = 100
"""Closed ticks that a source keeps, since a rewind goes back to the position host's last checkpoint (`actors.positions.CHECKPOINT_TICKS`)."""
MAX_SUBJECTS: Final = 2**24
LAG_ALARM_MS: Final = 100.0
"""Above this 99th percentile of lateness, the generator was the bottleneck."""


class ParkingPlan(msgspec.Struct, frozen=True):
    """Bay sensors: units, share occupied at the start, changes in a venue minute."""

    units: tuple[str, ...]
    occupied: float
    changes_per_minute: float


class LoadPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the processes need to know. `signing_seed`: they make the tokens of their own people. `speed` 0 runs as fast as it can. `walkers`: the crowd is
    one of bodies (`simulation.walking_shoppers`) instead of the cheap one (`simulation.engine`)."""

    url: str
    tenant: str
    venue: str
    document: bytes
    demand: Demand
    seed: int
    ticks: int
    speed: float
    people: int
    processes: int
    currency: str
    top_up_minor: int
    signing_seed: bytes
    offers: tuple[str, ...]
    folder: str
    parking: ParkingPlan | None = None
    drain_s: float = 60.0
    walkers: bool = False


def source_name(process: int) -> str:
    """Source of a client process."""
    return f"clients-{process}"


def payment_key(seed: int, subject: int, tick: int, n: int) -> bytes:
    """The 128-bit key of a person's n-th payment of a tick: the same in every run with the seed, so that retries are recognised."""
    return hashlib.blake2b(b"pay %d %d %d %d" % (seed, subject, tick, n), digest_size=16).digest()


def top_up_key(seed: int, subject: int) -> bytes:
    """The 128-bit key of a person's top-up."""
    return hashlib.blake2b(b"top %d %d" % (seed, subject), digest_size=16).digest()


class Schedule:
    """Intended times: tick `first` at `start_ns` (monotonic), then one every TICK_S / speed."""

    def __init__(self, *, start_ns: int, first_tick: int, speed: float) -> None:
        if speed <= 0:
            raise InvalidInput(f"speed {speed}: a schedule needs a speed above 0")
        self._start_ns, self._first, self._step_ns = start_ns, first_tick, TICK_S * 1e9 / speed

    def intended_ns(self, tick: int) -> int:
        """When the samples of a tick are due, monotonic nanoseconds."""
        return self._start_ns + round((tick - self._first) * self._step_ns)


@dataclass(frozen=True, slots=True)
class PaymentRows:
    """Payments of one tick: subject (n,) u4, unit (n,) u2 (index into Venue.units), amount (n,) u4 minor units, key (n, 16) bytes."""

    subject: npt.NDArray[np.uint32]
    unit: npt.NDArray[np.uint16]
    amount: npt.NDArray[np.uint32]
    key: bytes

    def __len__(self) -> int:
        return len(self.subject)

    def take(self, rows: npt.NDArray[np.bool_]) -> PaymentRows:
        key = np.frombuffer(self.key, np.uint8).reshape(-1, 16)[rows].tobytes()
        return PaymentRows(self.subject[rows], self.unit[rows], self.amount[rows], key)


@dataclass(frozen=True, slots=True)
class Share:
    """What one process does at one tick.

    arrived: people it speaks for from now on. rows: their positions of the tick, leavers included. payments: theirs.
    """

    tick: int
    arrived: npt.NDArray[np.uint32]
    rows: PositionColumns
    payments: PaymentRows


class Splitter:
    """Shares of a tick: the feed's, and one for each client process.

    A WebSocket person holds one of `people` slots from their first row to their LEFT row; the slot then goes to the next who arrives. The choice among people
    who appear at the same tick is by a fixed scramble of the subject number, and slot s belongs to process s % processes. WebSocket people have a row
    in the ticks congruent to their subject modulo SECOND_TICKS, and when they leave.
    """

    def __init__(self, *, seed: int, people: int, processes: int) -> None:
        self._seed = seed
        self._processes = processes
        self._free = list(range(people))
        self._slot = np.full(0, -2, np.int32)  # by subject: -2 unknown, -1 travels by columns, else the slot
        self.websocket_people = 0
        self.people = 0

    def split(
        self,
        tick: int,
        positions: PositionColumns,
        subject: npt.NDArray[np.uint32],
        unit: npt.NDArray[np.uint16],
        amount: npt.NDArray[np.uint32],
    ) -> tuple[Share, list[Share]]:
        """(feed's share, client processes' shares) of a tick; subject, unit and amount are the purchases. Raises InvalidInput for subjects above the limit."""
        slot = self._slots_of(positions.subject)
        gone = positions.level == LEFT
        for freed in slot[gone & (slot >= 0)].tolist():
            heapq.heappush(self._free, freed)
        new = positions.subject[(slot == -2) & ~gone]
        self._admit(new)
        slot = self._slot[positions.subject]
        payments = self._payments(tick, subject, unit, amount)
        payer = self._slots_of(payments.subject)
        newcomer = self._slot[new]
        due = gone | (positions.subject % SECOND_TICKS == tick % SECOND_TICKS)
        clients = []
        for process in range(self._processes):
            mine = (slot >= 0) & (slot % self._processes == process)
            paid = (payer >= 0) & (payer % self._processes == process)
            arrived = (newcomer >= 0) & (newcomer % self._processes == process)
            clients.append(Share(tick, new[arrived], positions.take(mine & due), payments.take(paid)))
        feed = Share(tick, new[newcomer < 0], positions.take(slot == -1), payments.take(payer < 0))
        self._slot[positions.subject[gone]] = -1  # who is gone holds no slot; numbers are never given twice
        return feed, clients

    def _slots_of(self, subject: npt.NDArray[np.uint32]) -> npt.NDArray[np.int32]:
        top = int(subject.max()) + 1 if len(subject) else 0
        if top > MAX_SUBJECTS:
            raise InvalidInput(f"subject {top - 1}: the crowd numbers people below {MAX_SUBJECTS}")
        if top > len(self._slot):
            grown = np.full(max(top, 2 * len(self._slot), 1024), -2, np.int32)
            grown[: len(self._slot)] = self._slot
            self._slot = grown
        return self._slot[subject]

    def _admit(self, new: npt.NDArray[np.uint32]) -> None:
        self.people += len(new)
        self._slot[new] = -1
        scrambled = (new.astype(np.uint64) * np.uint64(2654435761)) % np.uint64(2**32)
        chosen = new[np.argsort(scrambled, kind="stable")][: len(self._free)]
        for subject in chosen.tolist():
            self._slot[subject] = heapq.heappop(self._free)
        self.websocket_people += len(chosen)

    def _payments(self, tick: int, subject: npt.NDArray[np.uint32], unit: npt.NDArray[np.uint16], amount: npt.NDArray[np.uint32]) -> PaymentRows:
        count: dict[int, int] = {}
        keys = []
        for person in subject.tolist():
            n = count.get(person, 0)
            count[person] = n + 1
            keys.append(payment_key(self._seed, person, tick, n))
        return PaymentRows(subject.astype(np.uint32), unit.astype(np.uint16), amount.astype(np.uint32), b"".join(keys))


def parking_changes(plan: ParkingPlan, *, seed: int, seconds: int) -> list[list[tuple[str, bool]]]:
    """What the bay sensors say in each venue second: first the state at the start, then the changes. The same for the same seed."""
    if not plan.units:
        return []
    chance = np.random.default_rng([seed, 0x9A4])
    occupied = chance.random(len(plan.units)) < plan.occupied
    told = [[(unit, bool(occupied[i])) for i, unit in enumerate(plan.units)]]
    for _ in range(1, seconds):
        n = min(int(chance.poisson(plan.changes_per_minute / 60)), len(plan.units))
        changed = chance.choice(len(plan.units), size=n, replace=False)
        occupied[changed] = ~occupied[changed]
        told.append([(plan.units[i], bool(occupied[i])) for i in changed.tolist()])
    return told
