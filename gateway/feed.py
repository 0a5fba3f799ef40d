"""Answers sources that speak for many: positions tick by tick, and money by the thousand rows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from actors import messages as m
from actors.system import System, VenueClock
from esplanade.core.errors import EsplanadeError, Forbidden, InvalidInput
from esplanade.core.ids import Address, check_name
from gateway import frames as f
from gateway.asking import Asker, Caller, Peer
from gateway.batching import Tee, tee_rows
from gateway.hub import Hub
from gateway.metrics import GatewayMetrics
from gateway.venues import VenueCache, VenueFacts
from spatial.columns import LEFT, PositionColumns

_log = logging.getLogger("esplanade.gateway.feed")

MAX_MONEY_ROWS: Final = 20_000
"""Rows of one TopUps or Payments frame."""
COORDINATE_M: Final = 1e6

Enter = Callable[[Peer, str], Awaitable[VenueFacts]]
"""The venue exists, and from then on its pushes reach the peer."""


class FeedDesk:
    def __init__(self, asker: Asker, system: System, venues: VenueCache, hub: Hub, metrics: GatewayMetrics, tee: Tee | None, enter: Enter) -> None:
        self._asker = asker
        self._system = system
        self._venues = venues
        self._hub = hub
        self._metrics = metrics
        self._tee = tee
        self._enter = enter

    async def source(self, peer: Peer, frame: f.OpenSource | f.CloseSource) -> f.ServerFrame:
        self._own_source(peer, frame.source)
        tenant = peer.identity.tenant
        await self._enter(peer, frame.venue)
        if isinstance(frame, f.OpenSource):
            clock = await self._system.open_source(tenant, frame.venue, frame.source, first_tick=frame.first_tick)
        else:
            clock = await self._system.close_source(tenant, frame.venue, frame.source)
        return clock_state(frame.seq, clock)

    async def columns(self, peer: Peer, frame: f.Columns) -> f.ServerFrame:
        self._own_source(peer, frame.source)
        columns = PositionColumns.unpack(frame.subject, frame.level, frame.x, frame.y)
        facts = await self._enter(peer, frame.venue)
        check_columns(columns, facts)
        self._hub.speak_for(peer, frame.venue, columns.subject)
        await self._system.take(facts.tenant, facts.venue, columns, source=frame.source, tick=frame.tick)
        tee_rows(self._tee, self._metrics, facts.tenant, facts.venue, frame.source, frame.tick, columns)
        return f.Taken(seq=frame.seq)

    async def watermark(self, peer: Peer, frame: f.Watermark) -> None:
        try:
            self._own_source(peer, frame.source)
            check_name(frame.venue, "venue")
            if frame.rows < 0:
                raise InvalidInput(f"watermark of tick {frame.tick}: {frame.rows} rows; must be 0 or more")
            await self._system.watermark(peer.identity.tenant, frame.venue, frame.source, tick=frame.tick, rows=frame.rows)
        except EsplanadeError as error:
            peer.send(f.Error(code=error.code, message=f"watermark of tick {frame.tick}: {error.message}", retryable=error.retryable))
        except Exception:
            _log.exception("watermark_failed", extra={"venue": frame.venue, "tick": frame.tick})
            peer.send(f.Error(code="fault", message=f"watermark of tick {frame.tick} failed inside the server; it is logged"))

    @staticmethod
    def _own_source(peer: Peer, source: str) -> None:
        if peer.identity.source != source:
            raise Forbidden(f"source {source!r}: this token speaks for {peer.identity.source!r}; get a token with this source")

    async def top_ups(self, caller: Caller, frame: f.TopUps) -> f.ServerFrame:
        subject = _money_columns(frame.key, frame.subject, frame.amount)

        def command(rows: npt.NDArray[np.intp]) -> m.Command:
            return m.TopUps(
                tick=frame.tick, key=_pick(frame.key, 16, rows), subject=_pick(frame.subject, 4, rows), amount=_pick(frame.amount, 4, rows),
                currency=frame.currency,
            )  # fmt: skip

        return await self._settle(caller, frame.seq, subject, command)

    async def payments(self, peer: Peer, frame: f.Payments) -> f.ServerFrame:
        subject = _money_columns(frame.key, frame.subject, frame.amount)
        if len(frame.unit) != 2 * len(subject):
            raise InvalidInput(f"payments: unit has {len(frame.unit)} bytes; {len(subject)} rows need {2 * len(subject)} (u2, little-endian)")
        facts = await self._venues.get(peer.identity.tenant, frame.venue)
        unit = np.frombuffer(frame.unit, "<u2")
        tills = np.zeros(2**16, np.bool_)
        tills[[index for index, till in facts.units.values() if till]] = True
        bad = np.flatnonzero(~tills[unit])
        if len(bad):
            raise InvalidInput(f"payments: row {bad[0]} pays at unit {unit[bad[0]]}, which has no till in venue {frame.venue}; nothing was taken")

        def command(rows: npt.NDArray[np.intp]) -> m.Command:
            return m.Payments(
                tick=frame.tick, venue=frame.venue, key=_pick(frame.key, 16, rows), subject=_pick(frame.subject, 4, rows),
                unit=_pick(frame.unit, 2, rows), amount=_pick(frame.amount, 4, rows), currency=frame.currency,
            )  # fmt: skip

        return await self._settle(peer, frame.seq, subject, command)

    async def _settle(
        self, caller: Caller, seq: int, subject: npt.NDArray[np.uint32], command: Callable[[npt.NDArray[np.intp]], m.Command]
    ) -> f.ServerFrame:
        """Split rows by ledger, ask all, and put the results back in order.

        One ledger away: the whole frame is retryable; each row's own key makes that safe, and the connection's `seq` is not needed for it.
        """
        ledger = subject % m.LEDGERS
        parts = [np.flatnonzero(ledger == i) for i in range(m.LEDGERS)]
        used = [i for i, rows in enumerate(parts) if len(rows)]
        tenant = caller.identity.tenant
        replies = await asyncio.gather(
            *(self._asker.ask(caller, Address("ledger", tenant, str(i)), command(parts[i]), m.Settled) for i in used), return_exceptions=True
        )
        codes: list[str] = []
        result = np.zeros(len(subject), np.uint8)
        for i, reply in zip(used, replies, strict=True):
            if isinstance(reply, BaseException):
                raise reply
            table = [0]
            for code in reply.codes:
                if code not in codes:
                    codes.append(code)
                table.append(1 + codes.index(code))
            result[parts[i]] = np.array(table, np.uint8)[np.frombuffer(reply.result, np.uint8)]
        return f.Settled(seq=seq, result=result.tobytes(), codes=tuple(codes))


def clock_state(seq: int, clock: VenueClock) -> f.ClockState:
    return f.ClockState(seq=seq, tick=clock.tick, epoch=clock.epoch, driven=clock.driven, late_rows=clock.late_rows, late_ticks=clock.late_ticks)


def check_columns(columns: PositionColumns, facts: VenueFacts) -> None:
    """Levels exist, coordinates are possible, no subject twice. Raises InvalidInput naming the first bad row."""
    bad = np.flatnonzero((columns.level >= facts.levels) & (columns.level != LEFT))
    if len(bad):
        raise InvalidInput(
            f"columns: row {bad[0]} is on level {columns.level[bad[0]]}; venue {facts.venue} has 0 to {facts.levels - 1}, and 255 for left"
        )
    far = np.flatnonzero((np.abs(columns.x_m) > COORDINATE_M) | (np.abs(columns.y_m) > COORDINATE_M))
    if len(far):
        row = far[0]
        raise InvalidInput(
            f"columns: row {row} is at x={columns.x_m[row]}, y={columns.y_m[row]}; coordinates are within {COORDINATE_M:g} m of the origin"
        )
    if len(columns) > 1:
        subject = columns.subject
        if not bool((subject[1:] > subject[:-1]).all()):
            ordered = np.sort(subject)
            twice = np.flatnonzero(ordered[1:] == ordered[:-1])
            if len(twice):
                raise InvalidInput(f"columns: subject {ordered[twice[0]]} occurs twice; a frame has each subject at most once")


def _money_columns(key: bytes, subject: bytes, amount: bytes) -> npt.NDArray[np.uint32]:
    n = len(subject) // 4
    if len(subject) != 4 * n or len(amount) != 4 * n or len(key) != 16 * n or n == 0:
        raise InvalidInput(
            f"money columns: key {len(key)} B, subject {len(subject)} B, amount {len(amount)} B; n >= 1 rows need 16n, 4n and 4n bytes"
        )
    if n > MAX_MONEY_ROWS:
        raise InvalidInput(f"money columns: {n} rows; at most {MAX_MONEY_ROWS} a frame, send several frames")
    return np.frombuffer(subject, "<u4")


def _pick(column: bytes, width: int, rows: npt.NDArray[np.intp]) -> bytes:
    return np.frombuffer(column, f"V{width}")[rows].tobytes()
