"""Of whom something was heard, on its way into the database: noted at once, written in batches, each person at most every AGAIN_S from a process.

Owns what was noted and not yet written: at most MAX_WAITING people; one more is left out, counted, and noted again at their next word. What cannot be written is tried again until it can, or
the process ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from typing import Final

from esplanade.core.clock import SystemClock
from esplanade.core.errors import EsplanadeError
from esplanade.storage.people import MAX_PEOPLE, People, Person
from gateway.auth import Identity
from gateway.metrics import GatewayMetrics

AGAIN_S: Final = 6 * 3600.0
"""Retention is counted in days, so it need not be known more exactly than this when somebody was last heard of."""
MAX_KNOWN: Final = 100_000
MAX_WAITING: Final = 50_000
GATHER_S: Final = 2.0
RETRY_S: Final = 5.0

_log = logging.getLogger("esplanade.gateway.heard")


class Heard:
    """Call `start` in the loop that will `stop` it."""

    def __init__(self, people: People, clock: SystemClock, metrics: GatewayMetrics) -> None:
        self._people = people
        self._clock = clock
        self._metrics = metrics
        self._known: OrderedDict[tuple[str, int], float] = OrderedDict()  # noted last, monotonic; longest ago first
        self._waiting: dict[tuple[str, int], Person] = {}
        self._noted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def note(self, identity: Identity) -> None:
        """A credential of theirs was presented and counts. Only of people: whoever speaks for a source is none."""
        if not identity.is_person:
            return
        key, now_s = (identity.tenant, identity.subject), self._clock.monotonic_s()
        before = self._known.get(key)
        if before is not None and now_s - before < AGAIN_S:
            return
        if len(self._waiting) >= MAX_WAITING:
            self._metrics.count("esplanade_gateway_people_unheard_total")
            return
        self._known[key] = now_s
        self._known.move_to_end(key)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        self._waiting[key] = Person(identity.tenant, identity.subject, self._clock.unix_ms())
        self._noted.set()

    def start(self) -> None:
        self._task = asyncio.ensure_future(self._run())

    async def stop(self, timeout_s: float = 2.0) -> None:
        """Write what waits, for as long as that may take. Idempotent."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        with contextlib.suppress(TimeoutError, EsplanadeError):
            async with asyncio.timeout(timeout_s):
                await self.write()
        if self._waiting:
            self._metrics.count("esplanade_gateway_people_unheard_total", len(self._waiting))
            self._waiting.clear()

    async def write(self) -> None:
        """Everything that waits. Raises Unavailable; then it still waits."""
        while self._waiting:
            batch = [one for one, _ in zip(self._waiting.values(), range(MAX_PEOPLE), strict=False)]
            await self._people.hear(batch)
            for one in batch:
                if self._waiting.get((one.tenant, one.subject)) is one:
                    del self._waiting[one.tenant, one.subject]

    async def _run(self) -> None:
        while True:
            await self._noted.wait()
            await asyncio.sleep(GATHER_S)
            self._noted.clear()
            try:
                await self.write()
            except EsplanadeError as error:
                _log.warning("people_unwritten", extra={"error": error.message, "waiting": len(self._waiting)})
                self._noted.set()
                await asyncio.sleep(RETRY_S)
