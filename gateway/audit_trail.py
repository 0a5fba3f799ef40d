"""What this process does on somebody's behalf, on its way into the audit trail: noted at once, written in batches, never in the way of a request.

Owns the waiting lines: at most MAX_WAITING; a line more is lost, and so are refusals beyond REFUSALS_PER_S, which anybody can cause; both are counted. A batch that fails is
written again, with the same ids, until it is durable or the process ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import Final

from esplanade.core.clock import SystemClock
from esplanade.core.errors import EsplanadeError
from esplanade.storage.audit import NO_TENANT, AuditLine, AuditLog, Detail, shortened
from gateway.limits import TokenBucket
from gateway.metrics import GatewayMetrics

MAX_WAITING: Final = 10_000
MAX_BATCH: Final = 500
GATHER_S: Final = 0.2
"""How long lines gather before they are written together."""

AGAIN_S: Final = 1.0
"""Between attempts while the database is away."""

REFUSALS_PER_S: Final = 20.0

_log = logging.getLogger("esplanade.gateway.audit")


class AuditTrail:
    """`run`: 8 random bytes, drawn at each start of a process; ids of lines are made from it. Call `start` in the loop that will `stop` it."""

    def __init__(self, log: AuditLog, clock: SystemClock, metrics: GatewayMetrics, *, run: bytes) -> None:
        if len(run) != 8:
            raise ValueError(f"run of {len(run)} bytes: must have 8, drawn at random")
        self._log = log
        self._clock = clock
        self._metrics = metrics
        self._run_id = run
        self._count = 0
        self._waiting: deque[AuditLine] = deque()
        self._noted = asyncio.Event()
        self._refusals = TokenBucket(REFUSALS_PER_S, 5 * REFUSALS_PER_S, clock.monotonic_s())
        self._task: asyncio.Task[None] | None = None

    def note(self, *, tenant: str, who: str, what: str, target: str, origin: str, outcome: str = "done", detail: Detail | None = None) -> None:
        """Take a line; it is durable a moment later, unless it is lost at the limit."""
        if len(self._waiting) >= MAX_WAITING:
            self._metrics.count("esplanade_gateway_audit_lost_total", label="full")
            return
        self._count += 1
        line_id = self._run_id + self._count.to_bytes(8, "big")
        cleaned = {key: shortened(value) if isinstance(value, str) else value for key, value in (detail or {}).items()}
        self._waiting.append(
            AuditLine(
                line_id, shortened(tenant) or NO_TENANT, self._clock.unix_ms(), shortened(who), what, shortened(target), origin, outcome, cleaned
            )
        )
        self._noted.set()

    def refused(self, *, tenant: str, who: str, what: str, target: str, origin: str, outcome: str, why: str) -> None:
        """Take a line about somebody who was refused; at most REFUSALS_PER_S of these."""
        if self._refusals.take(self._clock.monotonic_s()):
            self.note(tenant=tenant, who=who, what=what, target=target, origin=origin, outcome=outcome, detail={"why": why})
        else:
            self._metrics.count("esplanade_gateway_audit_lost_total", label="rate")

    def start(self) -> None:
        self._task = asyncio.ensure_future(self._run())

    async def stop(self, timeout_s: float = 2.0) -> None:
        """Write what waits, for as long as that may take; what then still waits is counted as lost. Idempotent."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        with contextlib.suppress(TimeoutError, EsplanadeError):
            async with asyncio.timeout(timeout_s):
                while self._waiting:
                    await self._write()
        if self._waiting:
            self._metrics.count("esplanade_gateway_audit_lost_total", len(self._waiting), label="stopped")
            _log.error("audit_lines_lost", extra={"lines": len(self._waiting)})
            self._waiting.clear()

    async def _run(self) -> None:
        while True:
            await self._noted.wait()
            await asyncio.sleep(GATHER_S)
            try:
                while self._waiting:
                    await self._write()
                self._noted.clear()
            except EsplanadeError as error:
                _log.warning("audit_write_failed", extra={"error": error.message, "waiting": len(self._waiting)})
                await asyncio.sleep(AGAIN_S)

    async def _write(self) -> None:
        batch = [self._waiting[i] for i in range(min(MAX_BATCH, len(self._waiting)))]
        await self._log.append(batch)
        for _ in batch:
            self._waiting.popleft()
        self._metrics.count("esplanade_gateway_audit_lines_total", len(batch))
