"""A process of the load generator seen from inside: its pipe to the runner, its pace, and what it measured.

Owns the messages between runner and process, the waiting for intended times, and the logs of pushes and payments that end up in files. Reads the machine's
clocks, as the root of its process.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Coroutine
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from esplanade.core.errors import EsplanadeError
from simulation.load import FREE_RUN_TICKS, LoadPlan, Schedule
from simulation.load_histogram import DurationHistogram

MAX_LOGGED: Final = 5_000_000
"""Pushes, and payments, that a process keeps; beyond, they are counted only and the run says so."""


# --- messages ---------------------------------------------------------------------------------------------------------


class Told(msgspec.Struct, frozen=True):
    """Where a process stands in its preparation: `share` 0 to 1."""

    process: str
    doing: str
    share: float


class Ready(msgspec.Struct, frozen=True):
    process: str


class Go(msgspec.Struct, frozen=True):
    """Tick 1 of the schedule is due at `start_ns` (monotonic, the same for all processes of the machine)."""

    start_ns: int


class Stop(msgspec.Struct, frozen=True):
    """End now."""


class Measured(msgspec.Struct, frozen=True):
    """Counters so far, once a second. lag_p99_ms: lateness of sends since the start."""

    process: str
    tick: int
    closed: int
    people: int
    connected: int
    pushes: int
    payments: int
    lag_p99_ms: float


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a process: everything was sent and the drain is over. Pushes and payments are in `<process>.npz` of the plan's folder."""

    process: str
    people: int
    websocket_people: int
    turned_away: int
    first_tick: int
    last_tick: int
    closed: int
    late_rows: int
    epoch: int
    start_ns: int
    closed_ns: int
    pushes: int
    pushes_duplicate: int
    payments_settled: int
    payments_refused: int
    payments_unanswered: int
    not_logged: int
    rewinds: int
    stalls: int
    reconnects: int
    not_resumed: int
    given_up: int
    errors: tuple[str, ...]
    offers: tuple[str, ...]
    latency: dict[str, object]
    payment_latency: dict[str, object]
    lag: dict[str, object]
    crowd: dict[str, object]


class Failed(msgspec.Struct, frozen=True):
    process: str
    message: str


Message = Told | Ready | Measured | Finished | Failed


# --- the pipe and the clock -------------------------------------------------------------------------------------------


def run_process(name: str, conn: Connection, work: Callable[[Control], Coroutine[Any, Any, None]]) -> None:
    """Entry of a child process: interrupts are the parent's business; what goes wrong is told, not printed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = Control(name, conn)
    try:
        asyncio.run(control.serve(work))
    except EsplanadeError as error:
        control.tell(Failed(name, error.message))
    except Exception as error:
        control.tell(Failed(name, f"{type(error).__name__}: {error}"))
        raise
    finally:
        conn.close()
    # Python's own ending would break into a thread that still computes in compiled code, and abort with a page of complaint.
    os._exit(0)


class Control:
    """A process's line to the runner."""

    def __init__(self, name: str, conn: Connection) -> None:
        self.name = name
        self._conn = conn
        self._lock = threading.Lock()
        self._go: asyncio.Future[int] | None = None

    def tell(self, message: Message) -> None:
        """Send to the runner; from any thread. A runner that is gone ends the process by itself."""
        with self._lock:
            try:
                self._conn.send(message)
            except (BrokenPipeError, OSError):
                return

    async def serve(self, work: Callable[[Control], Coroutine[Any, Any, None]]) -> None:
        """Run the work until it ends, or until the runner says stop or is gone."""
        loop = asyncio.get_running_loop()
        self._go = loop.create_future()
        task = asyncio.ensure_future(work(self))

        def listen() -> None:
            while True:
                try:
                    message = self._conn.recv()
                except (EOFError, OSError):
                    message = Stop()
                if loop.is_closed():
                    return
                if isinstance(message, Go):
                    loop.call_soon_threadsafe(self._set_go, message.start_ns)
                else:
                    loop.call_soon_threadsafe(task.cancel)
                    return

        threading.Thread(target=listen, daemon=True, name="control").start()
        try:
            await task
        except asyncio.CancelledError:
            return

    def _set_go(self, start_ns: int) -> None:
        assert self._go is not None
        if not self._go.done():
            self._go.set_result(start_ns)

    async def go(self) -> int:
        """Say Ready and wait for the start; its time in monotonic nanoseconds.

        What was made before stays, so the collector need not walk through it while times are taken.
        """
        assert self._go is not None
        gc.collect()
        gc.freeze()
        self.tell(Ready(self.name))
        return await self._go


class Pace:
    """When ticks are due. With a speed: by the schedule. At speed 0: when the tick FREE_RUN_TICKS earlier has closed; then the intended time is that of sending."""

    def __init__(self, plan: LoadPlan, *, start_ns: int, first_tick: int) -> None:
        self._schedule = Schedule(start_ns=start_ns, first_tick=first_tick, speed=plan.speed) if plan.speed > 0 else None
        self._first = first_tick
        self._due: dict[int, int] = {}
        self.lag = DurationHistogram()

    async def until(self, tick: int, wait_closed: Callable[[int, float], Coroutine[Any, Any, bool]]) -> None:
        """Wait until a tick is due and note how late that was noticed."""
        if self._schedule is None:
            while not await wait_closed(tick - FREE_RUN_TICKS, 5.0):
                pass
            self._due[tick] = time.monotonic_ns()
            return
        due = self._schedule.intended_ns(tick)
        wait_s = (due - time.monotonic_ns()) / 1e9
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    def sent(self, tick: int) -> None:
        """Note that the tick's frames have been handed to the sockets."""
        self.lag.record_one_us((time.monotonic_ns() - self.intended_ns(tick)) // 1000)

    def intended_ns(self, tick: int) -> int:
        if self._schedule is not None:
            return self._schedule.intended_ns(tick)
        return self._due.get(tick, time.monotonic_ns())


# --- logs -------------------------------------------------------------------------------------------------------------


class PushLog:
    """Pushes received, each (offer, subject, tick) once; receipts beyond the first are counted."""

    def __init__(self, offers: tuple[str, ...]) -> None:
        self.offers = list(offers)
        self._index = {offer: i for i, offer in enumerate(offers)}
        self._seen: set[int] = set()
        self._rows: list[tuple[int, int, int, int]] = []
        self.latency = DurationHistogram()
        self.duplicates = 0
        self.not_logged = 0
        self.last_ns = 0

    def __len__(self) -> int:
        return len(self._rows)

    def offer(self, offer: str) -> int:
        """Index of an offer; one that the plan does not name gets a new index."""
        index = self._index.get(offer)
        if index is None:
            index = self._index[offer] = len(self.offers)
            self.offers.append(offer)
        return index

    def add(self, offer: int, subject: int, tick: int, *, intended_ns: int, received_ns: int) -> None:
        key = (offer << 64) | (subject << 32) | tick
        if key in self._seen:
            self.duplicates += 1
            return
        if len(self._rows) >= MAX_LOGGED:
            self.not_logged += 1
            return
        self._seen.add(key)
        self._rows.append((offer, subject, tick, received_ns))
        self.last_ns = received_ns
        self.latency.record_one_us((received_ns - intended_ns) // 1000)

    def columns(self) -> dict[str, Any]:
        """push_offer, push_subject, push_tick, push_ns: (n,) int64."""
        table = np.array(self._rows, np.int64).reshape(-1, 4)
        return {f"push_{name}": table[:, i] for i, name in enumerate(("offer", "subject", "tick", "ns"))}


async def until_quiet(pushes: PushLog, since_ns: int, quiet_s: float) -> None:
    """Until no push has come for `quiet_s`, counted from `since_ns` (monotonic) at the earliest."""
    while True:
        left_s = quiet_s - (time.monotonic_ns() - max(pushes.last_ns, since_ns)) / 1e9
        if left_s <= 0:
            return
        await asyncio.sleep(left_s)


UNANSWERED: Final = 0
SETTLED: Final = 1
REFUSED: Final = 2


class PayLog:
    """Payments sent and what became of them."""

    def __init__(self) -> None:
        self._rows: dict[bytes, list[int]] = {}
        self.latency = DurationHistogram()
        self.settled = 0
        self.refused = 0
        self.not_logged = 0

    def __len__(self) -> int:
        return len(self._rows)

    def sent(self, key: bytes, subject: int, unit: int, amount: int, tick: int) -> None:
        if len(self._rows) >= MAX_LOGGED:
            self.not_logged += 1
            return
        self._rows[key] = [subject, unit, amount, tick, UNANSWERED, 0]

    def answered(self, key: bytes, *, settled: bool, intended_ns: int, received_ns: int) -> None:
        row = self._rows.get(key)
        if row is None or row[4] != UNANSWERED:
            return
        row[4], row[5] = SETTLED if settled else REFUSED, received_ns
        if settled:
            self.settled += 1
        else:
            self.refused += 1
        self.latency.record_one_us((received_ns - intended_ns) // 1000)

    @property
    def unanswered(self) -> int:
        return len(self._rows) - self.settled - self.refused

    def columns(self) -> dict[str, Any]:
        """pay_key: (n, 16) u1; pay_subject, pay_unit, pay_amount, pay_tick, pay_status, pay_ns: (n,) int64."""
        table = np.array(list(self._rows.values()), np.int64).reshape(-1, 6)
        key = np.frombuffer(b"".join(self._rows), np.uint8).reshape(-1, 16)
        names = ("subject", "unit", "amount", "tick", "status", "ns")
        return {"pay_key": key} | {f"pay_{name}": table[:, i] for i, name in enumerate(names)}


def save_logs(folder: str, process: str, pushes: PushLog, pays: PayLog, **more: Any) -> None:
    """Write `<process>.npz`."""
    np.savez(Path(folder) / f"{process}.npz", **pushes.columns(), **pays.columns(), **more)
