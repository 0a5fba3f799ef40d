"""Small requests into large calls: moves of many sessions into position columns.

A lane is what must go in order: a venue's positions (newest wins). It waits a few milliseconds after its first row,
sends, and gathers what comes meanwhile. A full lane refuses.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np

from actors.system import System
from esplanade.core.errors import EsplanadeError, Fault, LimitExceeded
from gateway.metrics import GatewayMetrics
from spatial.columns import MAX_ROWS, PositionColumns

_log = logging.getLogger("esplanade.gateway.batching")

MOVE_WAIT_S: Final = 0.005
MAX_LANE_ROWS: Final = 100_000

Outcome = Callable[[EsplanadeError | None], None]


class Tee(Protocol):
    """Gets every column frame and coalesced batch that the position host took. Must not block; keeps its own queue, with a limit."""

    def rows(self, tenant: str, venue: str, source: str | None, tick: int | None, columns: PositionColumns) -> None: ...


def tee_rows(
    tee: Tee | None, metrics: GatewayMetrics, tenant: str, venue: str, source: str | None, tick: int | None, columns: PositionColumns
) -> None:
    """Hand rows to the recorder; its failure is counted and stops nobody."""
    metrics.count("esplanade_gateway_position_rows_total", len(columns))
    metrics.count("esplanade_gateway_position_batches_total")
    if tee is not None:
        try:
            tee.rows(tenant, venue, source, tick, columns)
        except Exception:
            metrics.count("esplanade_gateway_tee_failures_total")
            _log.exception("tee_failed")


@dataclass(slots=True)
class _Group:
    """Rows of one (source, tick): the newest of each subject."""

    rows: dict[int, tuple[int, float, float]] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)


@dataclass(slots=True)
class _Lane:
    groups: dict[tuple[str | None, int | None], _Group] = field(default_factory=dict)
    waiting: int = 0
    busy: bool = False


class MoveBatcher:
    """Moves of all sessions into one `System.take` a (venue, source, tick) and few milliseconds."""

    def __init__(self, system: System, metrics: GatewayMetrics, tee: Tee | None) -> None:
        self._system = system
        self._metrics = metrics
        self._tee = tee
        self._lanes: dict[tuple[str, str], _Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def add(
        self, tenant: str, venue: str, source: str | None, tick: int | None, subject: int, row: tuple[int, float, float], outcome: Outcome
    ) -> None:
        """Queue a row (level, x, y). `outcome` is called once: with None when the host has taken it. Raises LimitExceeded."""
        lane = self._lanes.setdefault((tenant, venue), _Lane())
        if lane.waiting >= MAX_LANE_ROWS:
            raise LimitExceeded(f"venue {venue}: {lane.waiting} positions wait for its host already; send again later")
        group = lane.groups.get((source, tick))
        if group is None:
            group = lane.groups[(source, tick)] = _Group()
        group.rows[subject] = row
        group.outcomes.append(outcome)
        lane.waiting += 1
        if not lane.busy:
            lane.busy = True
            task = asyncio.ensure_future(self._run(tenant, venue, lane))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, tenant: str, venue: str, lane: _Lane) -> None:
        await asyncio.sleep(MOVE_WAIT_S)
        while lane.groups:
            groups, lane.groups, lane.waiting = lane.groups, {}, 0
            for (source, tick), group in groups.items():
                await self._take(tenant, venue, source, tick, group)
        lane.busy = False
        del self._lanes[(tenant, venue)]

    async def _take(self, tenant: str, venue: str, source: str | None, tick: int | None, group: _Group) -> None:
        n = len(group.rows)
        subject = np.fromiter(group.rows.keys(), np.uint32, n)
        level = np.fromiter((row[0] for row in group.rows.values()), np.uint8, n)
        x_m = np.fromiter((row[1] for row in group.rows.values()), np.float32, n)
        y_m = np.fromiter((row[2] for row in group.rows.values()), np.float32, n)
        failure: EsplanadeError | None = None
        for start in range(0, n, MAX_ROWS):
            part = slice(start, start + MAX_ROWS)
            columns = PositionColumns(subject[part], level[part], x_m[part], y_m[part])
            try:
                await self._system.take(tenant, venue, columns, source=source, tick=tick)
                tee_rows(self._tee, self._metrics, tenant, venue, source, tick, columns)
            except EsplanadeError as error:
                failure = error
            except Exception:
                _log.exception("take_failed", extra={"tenant": tenant, "venue": venue})
                failure = Fault(f"positions for venue {venue} failed inside the server; it is logged")
        for outcome in group.outcomes:
            outcome(failure)

    async def stop(self, timeout_s: float) -> None:
        """Let what is queued go, for a while; then give up."""
        if self._tasks:
            _, late = await asyncio.wait(list(self._tasks), timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
