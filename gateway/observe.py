"""What phones sense, from frames to the venue's live filter and back: coalesced by venue into batches of columns.

Owns the translation and the lane to each venue: one batch is with the filter while the next one gathers, so a phone's observations stay in order. A full lane refuses.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec
import numpy as np

from actors.system import System
from esplanade.core.errors import EsplanadeError, Fault, LimitExceeded, NotFound
from gateway import frames as f
from gateway.batching import Tee, tee_rows
from gateway.metrics import GatewayMetrics
from gateway.venues import VenueFacts
from spatial.frames import Frame
from spatial.positioning.observed import FAST, LEVEL, Answers, Observed, State, rows_of, transmitter_key, wifi_keys

_log = logging.getLogger("esplanade.gateway.observe")

WAIT_S: Final = 0.02
BATCH_ROWS: Final = 1_024
MAX_LANE_ROWS: Final = 20_000
"""Observations of one venue that wait in this process."""
QR_SD_M: Final = 1.5
"""How far from a QR code somebody stands who scans it."""
MAX_BEACONS: Final = 65_536

_KEY = functools.lru_cache(maxsize=MAX_BEACONS)(transmitter_key)

Outcome = Callable[[f.ServerFrame], None]


@dataclass(slots=True)
class _Lane:
    waiting: list[tuple[int, f.Observe, VenueFacts, Outcome]] = field(default_factory=list)
    busy: bool = False
    taken: int = 0
    answered: int = 0
    settling: list[tuple[int, asyncio.Future[None]]] = field(default_factory=list)


class ObserveDesk:
    """Observations of all sessions into one `System.locate` a venue and some milliseconds."""

    def __init__(self, system: System, metrics: GatewayMetrics, tee: Tee | None) -> None:
        self._system = system
        self._metrics = metrics
        self._tee = tee
        self._lanes: dict[tuple[str, str], _Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, facts: VenueFacts, subject: int, frame: f.Observe, outcome: Outcome) -> None:
        """Queue an observation of a subject; `outcome` is called once, with its answer. Raises NotFound for an entrance that is not there, LimitExceeded."""
        if frame.location is not None and frame.location not in facts.entrances:
            raise NotFound(f"location {frame.location!r}: venue {facts.venue} has no entrance of this code")
        lane = self._lanes.setdefault((facts.tenant, facts.venue), _Lane())
        if len(lane.waiting) >= MAX_LANE_ROWS:
            raise LimitExceeded(f"venue {facts.venue}: {len(lane.waiting)} observations wait for its filter already; send again later")
        lane.waiting.append((subject, frame, facts, outcome))
        lane.taken += 1
        if not lane.busy:
            lane.busy = True
            task = asyncio.ensure_future(self._run(facts.tenant, facts.venue, lane))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def settled(self, tenant: str, venue: str) -> None:
        """Returns when every observation of the venue that is queued now has its answer."""
        lane = self._lanes.get((tenant, venue))
        if lane is not None:
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            lane.settling.append((lane.taken, done))
            await done

    async def _run(self, tenant: str, venue: str, lane: _Lane) -> None:
        try:
            await self._empty(tenant, venue, lane)
        finally:
            lane.busy = False
            del self._lanes[(tenant, venue)]
            _tell_settled(lane, lane.taken)

    async def _empty(self, tenant: str, venue: str, lane: _Lane) -> None:
        await asyncio.sleep(WAIT_S)
        while lane.waiting:
            batch, lane.waiting = lane.waiting[:BATCH_ROWS], lane.waiting[BATCH_ROWS:]
            answers: list[f.ServerFrame]
            try:
                answers = await self._locate(tenant, venue, batch)
            except EsplanadeError as error:
                answers = [f.Error(code=error.code, message=error.message, retryable=error.retryable, seq=frame.seq) for _, frame, _, _ in batch]
            except Exception:
                _log.exception("locate_failed", extra={"tenant": tenant, "venue": venue})
                fault = Fault(f"observations of venue {venue} failed inside the server; it is logged")
                answers = [f.Error(code=fault.code, message=fault.message, seq=frame.seq) for _, frame, _, _ in batch]
            for (_, _, _, outcome), answer in zip(batch, answers, strict=True):
                outcome(answer)
            lane.answered += len(batch)
            _tell_settled(lane, lane.answered)

    async def _locate(self, tenant: str, venue: str, batch: list[tuple[int, f.Observe, VenueFacts, Outcome]]) -> list[f.ServerFrame]:
        observed = columns_of([(subject, frame, facts) for subject, frame, facts, _ in batch])
        answers, version = await self._system.locate(tenant, venue, observed)
        self._metrics.count("esplanade_gateway_observations_total", len(batch))
        impossible = int((answers.flags & (FAST | LEVEL) > 0).sum())
        if impossible:
            self._metrics.count("esplanade_gateway_impossible_moves_total", impossible)
        rows = rows_of(observed, answers)
        if len(rows):
            tee_rows(self._tee, self._metrics, tenant, venue, None, None, rows)
        return [told_of(frame, answers, i, version) for i, (_, frame, _, _) in enumerate(batch)]

    async def stop(self, timeout_s: float) -> None:
        """Let what is queued go, for a while; then give up."""
        if self._tasks:
            _, late = await asyncio.wait(list(self._tasks), timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)


def _tell_settled(lane: _Lane, answered: int) -> None:
    for target, done in lane.settling:
        if target <= answered and not done.done():
            done.set_result(None)
    lane.settling = [(target, done) for target, done in lane.settling if not done.done()]


def columns_of(batch: list[tuple[int, f.Observe, VenueFacts]]) -> Observed:
    """One row a frame, in their order."""
    n = len(batch)
    path = np.zeros((n, 2), np.float32)
    keys: list[int] = []
    wifi: list[int] = []
    which: list[bool] = []
    rssi: list[float] = []
    first, fix_first = np.zeros(n + 1, np.int32), np.zeros(n + 1, np.int32)
    fixes: list[tuple[float, float, float, float, float]] = []
    for i, (_, frame, facts) in enumerate(batch):
        for bssid, dbm in frame.wifi:
            wifi.append(int(bssid.replace(":", ""), 16))
            which.append(True)
            rssi.append(dbm)
        for name, dbm in frame.ble:
            keys.append(_KEY("b:" + name.lower()))
            which.append(False)
            rssi.append(dbm)
        if frame.steps:
            steps = np.array(frame.steps)
            heading = np.radians(steps[:, 0])
            path[i] = steps[:, 1] @ np.sin(heading), steps[:, 1] @ np.cos(heading)
        fixes += _fixes(frame, facts)
        first[i + 1], fix_first[i + 1] = len(rssi), len(fixes)
    key = np.empty(len(rssi), np.uint64)
    radio = np.array(which, np.bool_)
    key[radio], key[~radio] = wifi_keys(np.array(wifi, np.uint64)), np.array(keys, np.uint64)
    return Observed(
        np.fromiter((subject for subject, _, _ in batch), np.uint32, n), np.fromiter((frame.at_ms / 1000 for _, frame, _ in batch), np.float64, n),
        np.ascontiguousarray(path[:, 0]), np.ascontiguousarray(path[:, 1]), np.fromiter((frame.steps is not None for _, frame, _ in batch), np.uint8, n), first, key,
        np.array(rssi, np.float32), fix_first, np.array(fixes, np.float64).reshape(-1, 5),
    )  # fmt: skip


def _fixes(frame: f.Observe, facts: VenueFacts) -> list[tuple[float, float, float, float, float]]:
    """x, y, range, sd, level (-1: any) of the points and distances a phone knows."""
    found = [(each.x, each.y, each.range_m, each.sd_m, -1.0 if each.level is None else float(each.level)) for each in frame.ranges]
    if frame.gnss is not None:
        x_m, y_m, _ = (float(v) for v in Frame(facts.origin).to_venue(frame.gnss.lat, frame.gnss.lon))
        found.append((x_m, y_m, 0.0, max(frame.gnss.accuracy_m, 3.0), -1.0))
    if frame.location is not None:
        level, x_m, y_m = facts.entrances[frame.location]
        found.append((x_m, y_m, 0.0, QR_SD_M, float(level)))
    return found


_STATES: Final[dict[int, Literal["located", "settling", "silent", "outside", "late", "repeated"]]] = {
    State.LOCATED: "located", State.SETTLING: "settling", State.SILENT: "silent", State.OUTSIDE: "outside", State.LATE: "late", State.REPEATED: "repeated",
}  # fmt: skip


def told_of(frame: f.Observe, answers: Answers, i: int, version: int) -> f.ServerFrame:
    """Row i of the answers as the answer to its frame. A dot that is not sure yet is not told."""
    state = int(answers.state[i])
    if state == State.FULL:
        error = LimitExceeded(f"venue {frame.venue}: as many phones as its filter holds are in it; send again later")
        return f.Error(code=error.code, message=error.message, retryable=error.retryable, seq=frame.seq)
    message = None
    if state == State.OUTSIDE:
        message = f"not in this venue: of what the phone hears nothing is of {frame.venue}"
    elif state == State.SILENT:
        message = f"nothing heard so far is on the radio map of {frame.venue}"
    located = f.Located(seq=frame.seq, venue=frame.venue, at_ms=frame.at_ms, state=_STATES[state], map=version, message=message)
    if state not in (State.LOCATED, State.REPEATED) or not np.isfinite(answers.radius_m[i]):
        return located
    x_m, y_m = (round(float(v), 2) for v in answers.xy_m[i])
    dot = msgspec.structs.replace(located, level=int(answers.level[i]), x=x_m, y=y_m, radius_m=round(float(answers.radius_m[i]), 2))
    if state == State.REPEATED:
        return dot
    xx, xy, yy = (round(float(v), 3) for v in answers.cov_m2[i])
    flags: tuple[Literal["fast", "level"], ...] = ()
    if answers.flags[i] & FAST:
        flags += ("fast",)
    if answers.flags[i] & LEVEL:
        flags += ("level",)
    return msgspec.structs.replace(dot, cov=(xx, xy, yy), levels=tuple(round(float(v), 4) for v in answers.levels[i]), flags=flags)
