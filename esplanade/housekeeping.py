"""Drops what the database no longer has to keep: outbox entries past their keeping and idempotency keys whose window is over.

Owns when that happens, not what it means (`storage.journal`). Runs in the API process, of which a service has one; several services on one database do the same work
twice and nothing wrong. One connection, one pass at a time; a pass that fails is logged and made again at the next turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from esplanade.core.errors import EsplanadeError
from esplanade.storage.journal import Journal

EVERY_S: Final = 60.0
"""From the end of a pass to the next: so a pass drops about a minute's worth, and not more than its statements' time limit allows."""

_log = logging.getLogger("esplanade.housekeeping")


class Housekeeper:
    """`start` begins the passes, `stop` ends them. Counters are totals since the start."""

    def __init__(
        self, journal: Journal, *, outbox_keep_s: float, every_s: float = EVERY_S, also: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """`also`: what else is kept in order in each pass."""
        self._journal = journal
        self._keep_ms = round(outbox_keep_s * 1000)
        self._every_s = every_s
        self._also = also
        self._task: asyncio.Task[None] | None = None
        self.dropped_entries = 0
        self.dropped_keys = 0
        self.failures = 0

    def start(self) -> None:
        """The first pass comes after `every_s`: a start has other things to do."""
        self._task = asyncio.ensure_future(self._run())

    async def stop(self) -> None:
        """End; a pass under way is broken off, which its transactions bear. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def one_pass(self) -> None:
        """Raises what the journal raises."""
        self.dropped_entries += await self._journal.trim_outbox(older_than_ms=self._keep_ms)
        self.dropped_keys += await self._journal.drop_expired_keys()
        if self._also is not None:
            await self._also()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.one_pass()
            except EsplanadeError as error:
                self.failures += 1
                _log.warning("housekeeping_failed", extra={"error": error.message, "failures": self.failures})
