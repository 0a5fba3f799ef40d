"""The two clocks, both passed in as arguments and never read from a global.

The *venue clock* counts ticks of `TICK_S` seconds of venue time; every domain rule (dwell, cool-down, schedule) is stated in ticks.
The *system clock* drives sockets, leases, heartbeats and retries.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from typing import Final, Protocol

TICK_S: Final = 0.1
"""Seconds of venue time in a tick."""


class SystemClock(Protocol):
    def monotonic_s(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
        ...

    def unix_ms(self) -> int:
        """Milliseconds since 1970-01-01T00:00Z; for stamps and expiry that other machines compare."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Returns when so many seconds have passed on this clock."""
        ...


class RealClock:
    """The machine's clocks. Built in composition roots only."""

    def monotonic_s(self) -> float:
        return time.monotonic()

    def unix_ms(self) -> int:
        return time.time_ns() // 1_000_000

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class ManualClock:
    """A clock that moves when a test moves it; sleepers wake in the order of their times, then of their coming."""

    def __init__(self, *, monotonic_s: float = 0.0, unix_ms: int = 1_700_000_000_000) -> None:
        self._monotonic_s = monotonic_s
        self._unix_ms = unix_ms
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._slept = 0

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def unix_ms(self) -> int:
        return self._unix_ms

    def advance(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError(f"advance({seconds}): a clock does not go back; pass seconds >= 0")
        self._monotonic_s += seconds
        self._unix_ms += round(seconds * 1000)
        while self._sleepers and self._sleepers[0][0] <= self._monotonic_s:
            _, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)

    async def sleep(self, seconds: float) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._slept += 1
        heapq.heappush(self._sleepers, (self._monotonic_s + seconds, self._slept, woken))
        await woken


def ticks(seconds: float) -> int:
    """Venue ticks in `seconds` of venue time, rounded to the nearest."""
    return round(seconds / TICK_S)
