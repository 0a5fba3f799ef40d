"""A source of a driven venue, as the load generator runs it: rows and watermarks out, closed ticks and rewinds in.

Owns what has been sent and may be asked for again, and sends it again when the position host says rewind, when the connection came back, or when ticks stop closing.
Sending again is harmless: rows count by (tick, subject). Never waits for an answer before the next tick goes out.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Final

from esplanade.core.errors import EsplanadeError, Fault, Unavailable
from gateway.client import Client
from simulation.load import KEEP_CLOSED_TICKS, KEEP_TICKS
from spatial.columns import PositionColumns

_log = logging.getLogger("esplanade.load.source")

STALL_S: Final = (3.0, 30.0)
"""Ticks not closing for so long are sent again; the wait doubles up to the second figure."""
RESEND_PAUSE_S: Final = 0.002
RETRY_S: Final = (0.1, 1.0)
MAX_TASKS: Final = 4096
"""Ticks being sent at once; beyond, they are left to the stall rule."""

Frame = dict[str, Any]


class Source:
    """`resend_people(after_tick)`: called before watermarks go again, for sources whose rows come over sockets of their own."""

    def __init__(self, *, venue: str, name: str, first_tick: int, resend_people: Callable[[int], Awaitable[None]] | None = None) -> None:
        self._venue, self.name, self._first_tick = venue, name, first_tick
        self._resend_people = resend_people
        self._client: Client | None = None
        self._sent: OrderedDict[int, tuple[int, PositionColumns | None]] = OrderedDict()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._progress = asyncio.Event()
        self._closed_at_s = 0.0
        self._resending: asyncio.Task[None] | None = None
        self._resend_after: int | None = None
        self.closed = first_tick - 1
        self._sent_to = first_tick - 1
        self.epoch = 0
        self.late_rows = 0
        self.given_up = 0
        self.rewinds = 0
        self.stalls = 0
        self.reconnects = 0
        self.error = ""
        self.on_closed: Callable[[int], None] | None = None

    async def open(self, client: Client) -> None:
        """Open the source on a connection whose token names it, and follow the venue's clock."""
        self._client = client
        state = await client.open_source(self._venue, self.name, self._first_tick)
        if state["tick"] >= self._first_tick:
            raise Fault(
                f"source {self.name}: venue {self._venue} has closed tick {state['tick']} already, before the first, {self._first_tick}; use a fresh tenant"
            )
        self.epoch = state["epoch"]
        await client.subscribe(f"venue/{self._venue}/clock", rate_hz=10.0)
        self._closed_at_s = asyncio.get_running_loop().time()
        self._spawn(self._watch())

    def put(self, tick: int, rows: int, columns: PositionColumns | None) -> None:
        """Send a tick: its columns (None where people sent their rows themselves) and the watermark. Returns at once."""
        if len(self._sent) >= KEEP_TICKS:
            self._sent.popitem(last=False)
            self.given_up += 1
        self._sent[tick] = (rows, columns)
        self._sent_to = tick
        if len(self._tasks) < MAX_TASKS:
            self._spawn(self._send(tick, rows, columns))

    def receive(self, frame: Frame) -> bool:
        """Take an event of the connection; whether it was one for a source."""
        match frame["op"]:
            case "closed" if frame["venue"] == self._venue:
                self._on_closed(frame["tick"], frame["epoch"], frame["late_rows"])
            case "rewind" if frame["venue"] == self._venue:
                self.rewinds += 1
                self.epoch = max(self.epoch, frame["epoch"])
                self._resend(frame["tick"])
            case "_reconnected":
                self.reconnects += 1
                self._spawn(self._open_again())
            case "error":
                if not frame.get("retryable"):
                    self.error = self.error or f"{frame['code']}: {frame['message']}"
            case _:
                return False
        return True

    async def wait_closed(self, tick: int, timeout_s: float) -> bool:
        """Until a tick is durable; whether it came to that within the time."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.closed < tick:
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Close the source, so that the venue no longer waits for it."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._client is not None:
            try:
                await self._client.close_source(self._venue, self.name)
            except EsplanadeError as error:
                _log.warning("source_not_closed", extra={"source": self.name, "error": str(error)})

    # --- inside ---

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, tick: int, rows: int, columns: PositionColumns | None) -> None:
        """Until the position host has taken the tick's columns, or nobody can ask for them any more."""
        assert self._client is not None
        wait_s = RETRY_S[0]
        while tick in self._sent:
            try:
                await self._client.watermark(self._venue, self.name, tick, rows)
                if columns is not None and len(columns):
                    await self._client.columns(self._venue, self.name, tick, columns)
            except EsplanadeError as error:
                if not error.retryable:
                    self.error = self.error or f"tick {tick}: {error}"
                    return
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, RETRY_S[1])
            else:
                return

    def _on_closed(self, tick: int, epoch: int, late_rows: int) -> None:
        self.epoch = max(self.epoch, epoch)
        self.late_rows = max(self.late_rows, late_rows)
        if tick <= self.closed:
            return
        self.closed = tick
        self._closed_at_s = asyncio.get_running_loop().time()
        while self._sent:
            oldest = next(iter(self._sent))
            if oldest > tick - KEEP_CLOSED_TICKS:
                break
            del self._sent[oldest]
        self._progress.set()
        if self.on_closed is not None:
            self.on_closed(tick)

    def _resend(self, after: int) -> None:
        """Send everything after a tick again, once, in order; what is asked for meanwhile widens the next round."""
        self._resend_after = after if self._resend_after is None else min(after, self._resend_after)
        if self._resending is None or self._resending.done():
            self._resending = asyncio.ensure_future(self._resend_all())
            self._tasks.add(self._resending)
            self._resending.add_done_callback(self._tasks.discard)

    async def _resend_all(self) -> None:
        while self._resend_after is not None:
            after, self._resend_after = self._resend_after, None
            if self._resend_people is not None:
                await self._resend_people(after)
            for tick, (rows, columns) in list(self._sent.items()):
                if tick > after and len(self._tasks) < MAX_TASKS:
                    self._spawn(self._send(tick, rows, columns))
                    await asyncio.sleep(RESEND_PAUSE_S)

    async def _open_again(self) -> None:
        assert self._client is not None
        try:
            state = await self._client.open_source(self._venue, self.name, self._first_tick)
        except Unavailable:
            return  # the stall rule asks again; the source itself is journalled
        except EsplanadeError as error:
            self.error = self.error or str(error)
            return
        self._resend_from(state)

    async def _ask(self) -> None:
        """Ticks do not close: ask where the host is."""
        assert self._client is not None
        try:
            self._resend_from(await self._client.request("get_clock", venue=self._venue))
        except EsplanadeError:
            return  # asked again after the next wait

    def _resend_from(self, state: Frame) -> None:
        """Send what the host has not closed; after a restart whose Rewind was lost, from where it is now. Never older: those rows would count as late."""
        restarted = state["epoch"] > self.epoch
        self.epoch = max(self.epoch, state["epoch"])
        self._resend(state["tick"] if restarted else max(state["tick"], self.closed))

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        wait_s = STALL_S[0]
        at = self.closed
        while True:
            await asyncio.sleep(0.5)
            if self.closed != at or self.closed >= self._sent_to:
                at, wait_s = self.closed, STALL_S[0]
                if self.closed >= self._sent_to:
                    self._closed_at_s = loop.time()
                continue
            if loop.time() - self._closed_at_s >= wait_s:
                self.stalls += 1
                wait_s = min(2 * wait_s, STALL_S[1])
                self._closed_at_s = loop.time()
                self._spawn(self._ask())
