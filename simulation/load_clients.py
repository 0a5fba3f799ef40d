"""A client process: some of the WebSocket people of a run, each with a connection, a token and a wallet of their own.

Owns the people's connections from arrival to a while after they left, their rows at 1 Hz, their payments, their acks, and the process's source, whose
watermark says how many rows its people sent at each tick. Who they are and what they do comes from the feed, ahead of time.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Coroutine
from multiprocessing.connection import Connection
from typing import Any, Final

import numpy as np

from esplanade.core.clock import RealClock
from esplanade.core.errors import EsplanadeError, Fault
from gateway.auth import Signer
from gateway.client import Client
from simulation.load import FEED_SUBJECT, KEEP_CLOSED_TICKS, KEEP_TICKS, SECOND_TICKS, LoadPlan, Share, source_name
from simulation.load_feed import QUIET_S, RECONNECTS, TOKEN_TTL_S, WELCOME_S
from simulation.load_money import Money
from simulation.load_process import Control, Finished, Measured, Pace, PayLog, PushLog, Told, run_process, save_logs, until_quiet
from simulation.load_source import Source
from spatial.columns import LEFT
from spatial.venue import Venue

CONNECTING: Final = 32
"""Connections being made at once."""
LINGER_S: Final = 2.5
"""A person hangs up so long after no rewind can ask for their LEFT row any more."""
RESEND_ROWS: Final = 40
"""Rows of a person sent again at once; a person may send 20 frames a second and 60 in a burst."""
RESEND_PAUSE_S: Final = 2.0
ERROR_PAUSE_S: Final = 0.5


def clients_process(process: int, conn: Connection, pipe: Connection) -> None:
    """Entry of client process number `process`; the plan is the first thing on `conn`, and `pipe` brings its shares from the feed."""
    plan: LoadPlan = conn.recv()
    name = source_name(process)
    run_process(name, conn, lambda control: _Clients(plan, process, control, pipe).run())


class _Person:
    """One WebSocket person. Rows wait until the connection is there, and are kept until their tick is durable."""

    def __init__(self, owner: _Clients, subject: int) -> None:
        self._owner = owner
        self.subject = subject
        self.client: Client | None = None
        self._connected = asyncio.Event()
        self.unpaid = 0
        self.rows: deque[tuple[int, int, float, float]] = deque(maxlen=KEEP_TICKS // SECOND_TICKS + 2)
        self.left_tick: int | None = None
        self.hang_up_at: float | None = None
        self._again = False

    async def connect(self) -> None:
        owner = self._owner
        token = owner.token(self.subject)
        async with owner.connecting:
            while self.client is None:
                try:
                    self.client = await Client.connect(
                        owner.plan.url,
                        client=f"phone-{self.subject}",
                        token=token,
                        venue=owner.plan.venue,
                        reconnects=RECONNECTS,
                        timeout_s=WELCOME_S,
                        on_event=self._on_event,
                        auto_ack=True,
                        keepalive_s=None,
                    )
                except EsplanadeError as error:
                    if not error.retryable:
                        owner.note(f"person {self.subject}: {error}")
                        return
                    await asyncio.sleep(0.2)
        self._connected.set()
        await self._send_all(-1)

    async def connected(self) -> Client:
        """The connection, once it is there."""
        await self._connected.wait()
        assert self.client is not None
        return self.client

    def paid(self, _: object) -> None:
        self.unpaid -= 1

    async def put(self, tick: int, level: int, x: float, y: float) -> None:
        self.rows.append((tick, level, x, y))
        if self.client is not None:
            await self._send(tick, level, x, y)

    async def send_again(self, after: int) -> None:
        """Every row after a tick, once more."""
        if self.client is not None:
            await self._send_all(after)

    def forget(self, closed: int) -> None:
        while self.rows and self.rows[0][0] <= closed - KEEP_CLOSED_TICKS:
            self.rows.popleft()

    async def _send_all(self, after: int) -> None:
        rows = [row for row in self.rows if row[0] > after]
        for i, row in enumerate(rows):
            if i and i % RESEND_ROWS == 0:
                await asyncio.sleep(RESEND_PAUSE_S)
            await self._send(*row)

    async def _send(self, tick: int, level: int, x: float, y: float) -> None:
        assert self.client is not None
        venue = self._owner.plan.venue
        try:
            if level == LEFT:
                await self.client.send("leave", venue=venue, tick=tick)
            else:
                await self.client.send("move", venue=venue, level=level, x=x, y=y, tick=tick)
        except EsplanadeError as error:
            self._owner.note(f"person {self.subject}: {error}")

    def _on_event(self, frame: dict[str, Any]) -> None:
        owner = self._owner
        match frame["op"]:
            case "push":
                owner.push(self.subject, frame)
            case "error":
                if not frame.get("retryable"):
                    owner.note(f"person {self.subject}: {frame['code']}: {frame['message']}")
                elif not self._again:
                    self._again = True
                    owner.spawn(self._send_soon())
            case "_reconnected":
                owner.reconnects += 1
                if not frame.get("resumed"):
                    owner.not_resumed += 1
                owner.spawn(self._send_all(owner.closed))

    async def _send_soon(self) -> None:
        await asyncio.sleep(ERROR_PAUSE_S)
        self._again = False
        await self._send_all(self._owner.closed)


class _Clients:
    def __init__(self, plan: LoadPlan, process: int, control: Control, pipe: Connection) -> None:
        self.plan, self._control = plan, control
        self._process, self._pipe = process, pipe
        self._name = source_name(process)
        self._signer, self._clock = Signer(plan.signing_seed), RealClock()
        self._units = [unit.id for unit in Venue.model_validate_json(plan.document).units]
        self.connecting = asyncio.Semaphore(CONNECTING)
        self._people: dict[int, _Person] = {}
        self._gone: list[tuple[int, int]] = []
        self._seen = 0
        self._pushes = PushLog(plan.offers)
        self._pays = PayLog()
        self._pace: Pace | None = None
        self._source: Source | None = None
        self._money: Money | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._shares: asyncio.Queue[Share | None] = asyncio.Queue()
        self._tick = 0
        self._arrivals: set[asyncio.Task[Any]] = set()
        self._errors: list[str] = []
        self.reconnects = 0
        self.not_resumed = 0

    @property
    def closed(self) -> int:
        return self._source.closed if self._source is not None else -1

    def note(self, error: str) -> None:
        """Keep the first few errors for the report."""
        if len(self._errors) < 5:
            self._errors.append(error)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def token(self, subject: int) -> str:
        return self._signer.issue(subject, self.plan.tenant, "shopper", self._name, TOKEN_TTL_S, self._clock.unix_ms() / 1000)

    def push(self, subject: int, frame: dict[str, Any]) -> None:
        now = time.monotonic_ns()
        intended = self._pace.intended_ns(frame["tick"]) if self._pace else now
        self._pushes.add(self._pushes.offer(frame["offer"]), subject, frame["tick"], intended_ns=intended, received_ns=now)

    async def run(self) -> None:
        plan, control = self.plan, self._control
        token = self._signer.issue(FEED_SUBJECT - 1 - self._process, plan.tenant, "feed", self._name, TOKEN_TTL_S, self._clock.unix_ms() / 1000)
        lead = await Client.connect(
            plan.url, client=self._name, token=token, venue=plan.venue, reconnects=RECONNECTS, timeout_s=WELCOME_S, on_event=self._on_event
        )
        self._money = money = Money(plan, lead, self._pays)
        self._listen()
        helpers = [asyncio.create_task(self._measure())]
        try:
            share = await self._shares.get()
            if share is None:
                raise Fault("the feed ended before its first tick")
            first = share.tick
            control.tell(Told(self._name, "connecting people", 0.0))
            await asyncio.gather(*list(self._arrivals))
            await money.topped_up(share.arrived.tolist())
            self._source = source = Source(venue=plan.venue, name=self._name, first_tick=first, resend_people=self._resend_people)
            source.on_closed = self._forget
            await source.open(lead)
            start_ns = await control.go()
            self._pace = pace = Pace(plan, start_ns=start_ns, first_tick=first)
            helpers.append(asyncio.create_task(self._hang_up()))
            while share is not None:
                tick = share.tick
                await pace.until(tick, source.wait_closed)
                self._rows(share)
                source.put(tick, len(share.rows), None)
                await asyncio.sleep(0)
                pace.sent(tick)
                self._payments(share, pace.intended_ns(tick))
                self._tick = tick
                share = await self._shares.get()
            await source.wait_closed(self._tick, plan.drain_s)
            closed_ns = time.monotonic_ns()
            await money.drain(plan.drain_s)
            await until_quiet(self._pushes, closed_ns, QUIET_S)
            await source.close()
            gone = np.array(self._gone, np.int64).reshape(-1, 2)
            save_logs(plan.folder, self._name, self._pushes, self._pays, gone_subject=gone[:, 0], gone_tick=gone[:, 1])
            duplicates = self._pushes.duplicates + sum(p.client.duplicate_pushes for p in self._people.values() if p.client is not None)
            control.tell(
                Finished(
                    process=self._name,
                    people=self._seen,
                    websocket_people=self._seen,
                    turned_away=0,
                    first_tick=first,
                    last_tick=self._tick,
                    closed=source.closed,
                    late_rows=source.late_rows,
                    epoch=source.epoch,
                    start_ns=start_ns,
                    closed_ns=closed_ns,
                    pushes=len(self._pushes),
                    pushes_duplicate=duplicates,
                    payments_settled=self._pays.settled,
                    payments_refused=self._pays.refused,
                    payments_unanswered=self._pays.unanswered,
                    not_logged=self._pushes.not_logged + self._pays.not_logged,
                    rewinds=source.rewinds,
                    stalls=source.stalls,
                    reconnects=self.reconnects + lead.connects - 1,
                    not_resumed=self.not_resumed,
                    given_up=source.given_up,
                    errors=tuple(self._errors + [e for e in (source.error, money.error) if e]),
                    offers=tuple(self._pushes.offers),
                    latency=self._pushes.latency.to_state(),
                    payment_latency=self._pays.latency.to_state(),
                    lag=pace.lag.to_state(),
                    crowd={},
                )
            )
        finally:
            rest = helpers + list(self._tasks)
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)
            clients = [person.client for person in self._people.values() if person.client is not None]
            await asyncio.gather(*(client.close() for client in clients), lead.close(), return_exceptions=True)

    # --- inside ---

    def _listen(self) -> None:
        """Shares come over a pipe, read by a thread; the feed runs a bounded number of ticks ahead, so no more than those wait here."""
        loop = asyncio.get_running_loop()

        def read() -> None:
            while True:
                try:
                    share = self._pipe.recv()
                except (EOFError, OSError):
                    share = None
                try:
                    loop.call_soon_threadsafe(self._arrive, share)
                except RuntimeError:
                    return
                if share is None:
                    return

        threading.Thread(target=read, name="shares", daemon=True).start()

    def _arrive(self, share: Share | None) -> None:
        """Ahead of the tick: whoever arrives connects and gets a wallet."""
        if share is not None:
            assert self._money is not None
            for subject in share.arrived.tolist():
                person = self._people[subject] = _Person(self, subject)
                self._seen += 1
                task = self.spawn(person.connect())
                self._arrivals.add(task)
                task.add_done_callback(self._arrivals.discard)
            self._money.top_up(share.tick, share.arrived)
        self._shares.put_nowait(share)

    def _rows(self, share: Share) -> None:
        rows = share.rows
        for subject, level, x, y in zip(rows.subject.tolist(), rows.level.tolist(), rows.x_m.tolist(), rows.y_m.tolist(), strict=True):
            person = self._people[subject]
            if level == LEFT:
                person.left_tick = share.tick
            self.spawn(person.put(share.tick, level, x, y))

    def _payments(self, share: Share, intended_ns: int) -> None:
        assert self._money is not None
        paid = share.payments
        for i, (subject, unit, amount) in enumerate(zip(paid.subject.tolist(), paid.unit.tolist(), paid.amount.tolist(), strict=True)):
            person = self._people[subject]
            task = self._money.pay_single(
                person.connected,
                share.tick,
                subject=subject,
                unit=unit,
                unit_id=self._units[unit],
                amount=amount,
                key=paid.key[16 * i : 16 * i + 16],
                intended_ns=intended_ns,
            )
            if task is not None:
                person.unpaid += 1
                task.add_done_callback(person.paid)

    def _on_event(self, frame: dict[str, Any]) -> None:
        if self._source is not None:
            self._source.receive(frame)

    def _forget(self, closed: int) -> None:
        for person in self._people.values():
            person.forget(closed)

    async def _resend_people(self, after: int) -> None:
        await asyncio.gather(*(person.send_again(after) for person in list(self._people.values())))

    async def _hang_up(self) -> None:
        """People who left hang up some time after that is durable; pushes made before they left have reached them by then."""
        while True:
            await asyncio.sleep(0.5)
            now = time.monotonic()
            for person in list(self._people.values()):
                if person.left_tick is None or person.left_tick > self.closed - KEEP_CLOSED_TICKS or person.unpaid:
                    continue
                if person.hang_up_at is None:
                    person.hang_up_at = now + LINGER_S
                elif now >= person.hang_up_at:
                    del self._people[person.subject]
                    self._gone.append((person.subject, self.closed))
                    if person.client is not None:
                        self._pushes.duplicates += person.client.duplicate_pushes
                        await person.client.close()

    async def _measure(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self._control.tell(
                Measured(
                    process=self._name,
                    tick=self._tick,
                    closed=self.closed,
                    people=len(self._people),
                    connected=sum(person.client is not None and person.client.connected for person in self._people.values()),
                    pushes=len(self._pushes),
                    payments=self._pays.settled,
                    lag_p99_ms=self._pace.lag.quantile_ms(0.99) if self._pace else 0.0,
                )
            )
