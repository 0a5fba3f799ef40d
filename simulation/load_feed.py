"""The feed process: it runs the crowd ahead of time and speaks for everyone who travels by columns.

Owns the crowd's thread, the hand-over of WebSocket people's rows to the client processes, the source "crowd", the money of column people, the bay sensors,
and what this feed received. The crowd is at most LOOKAHEAD_TICKS ahead of what has been sent.
"""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from esplanade.core.clock import TICK_S, RealClock
from esplanade.core.errors import EsplanadeError, Fault
from gateway.auth import Signer
from gateway.client import Client
from simulation.engine import Crowd
from simulation.load import FEED_SOURCE, FEED_SUBJECT, LOOKAHEAD_TICKS, LoadPlan, Share, Splitter, parking_changes
from simulation.load_money import Money, until_answered
from simulation.load_process import Control, Finished, Measured, Pace, PayLog, PushLog, Told, run_process, save_logs, until_quiet
from simulation.load_source import Source
from spatial.venue import Venue

if TYPE_CHECKING:
    from simulation.walking_shoppers import WalkingShoppers

NAME: Final = "feed"
QUIET_S: Final = 2.5
"""The end of a run waits until no push has come for so long (a gateway refills lost ones within a second)."""
TOKEN_TTL_S: Final = 48 * 3600.0
RECONNECTS: Final = 40
WELCOME_S: Final = 30.0
"""How long a connection may take to be welcomed: the machine that runs everything is at its busiest then."""


def feed_process(conn: Connection, pipes: list[Connection]) -> None:
    """Entry of the process; the plan is the first thing on `conn`. `pipes`: one to each client process."""
    plan: LoadPlan = conn.recv()
    run_process(NAME, conn, lambda control: _Feed(plan, control, pipes).run())


@dataclass(frozen=True, slots=True)
class _End:
    """The crowd has made all its ticks, or failed."""

    failure: str | None
    report: dict[str, object]
    websocket_people: int
    people: int
    turned_away: int


class _CrowdThread:
    """Simulates ahead. `take` waits for the next tick's share."""

    def __init__(self, plan: LoadPlan, control: Control, pipes: list[Connection]) -> None:
        self._plan, self._control, self._pipes = plan, control, pipes
        self._loop = asyncio.get_running_loop()
        self._room = threading.Semaphore(LOOKAHEAD_TICKS)
        self._shares: asyncio.Queue[Share | _End] = asyncio.Queue()
        self._stopped = False
        threading.Thread(target=self._run, name="crowd", daemon=True).start()

    async def take(self) -> Share | _End:
        share = await self._shares.get()
        self._room.release()
        return share

    def stop(self) -> None:
        self._stopped = True
        self._room.release()

    def _hand(self, share: Share | _End) -> None:
        self._loop.call_soon_threadsafe(self._shares.put_nowait, share)

    def _run(self) -> None:
        failure: str | None = None
        report: dict[str, object] = {}
        plan = self._plan
        splitter = Splitter(seed=plan.seed, people=plan.people, processes=plan.processes)
        turned_away = 0
        try:
            self._control.tell(Told(NAME, "reading the plan and the ways through it", 0.0))
            crowd = _crowd(plan)
            crowd.prefill(lambda share: self._control.tell(Told(NAME, "filling the venue", share)))
            for _ in range(plan.ticks):
                self._room.acquire()
                if self._stopped:
                    return
                result = crowd.step()
                turned_away += result.turned_away
                bought = result.purchases
                feed, clients = splitter.split(result.tick, result.positions, bought.subject, bought.unit, bought.amount)
                for pipe, share in zip(self._pipes, clients, strict=True):
                    pipe.send(share)
                self._hand(feed)
            report = {key: value if not isinstance(value, tuple) else len(value) for key, value in dataclasses.asdict(crowd.report()).items()}
        except (EsplanadeError, OSError) as error:
            failure = str(error)
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
        for pipe in self._pipes:
            try:
                pipe.send(None)
            except OSError:
                failure = failure or "a client process is gone"
        try:
            self._hand(_End(failure, report, splitter.websocket_people, splitter.people, turned_away))
        except RuntimeError:
            return  # the loop has ended before


def _crowd(plan: LoadPlan) -> Crowd | WalkingShoppers:
    """The crowd of a plan; a study reads its venue from a file, which lies in the run's folder then."""
    if not plan.walkers:
        return Crowd(Venue.model_validate_json(plan.document), plan.demand, seed=plan.seed)
    from simulation.walking_shoppers import WalkingShoppers

    file = Path(plan.folder) / "venue.json"
    file.write_bytes(plan.document)
    return WalkingShoppers(file, plan.demand, seed=plan.seed, seconds=plan.ticks * TICK_S)


class _Feed:
    def __init__(self, plan: LoadPlan, control: Control, pipes: list[Connection]) -> None:
        self._plan, self._control, self._pipes = plan, control, pipes
        self._pushes = PushLog(plan.offers)
        self._pays = PayLog()
        self._source: Source | None = None
        self._pace: Pace | None = None
        self._tick = 0
        self._people = 0
        self._bays: asyncio.Queue[list[tuple[str, bool]]] = asyncio.Queue(1000)
        self._bay_error = ""

    async def run(self) -> None:
        plan, control = self._plan, self._control
        crowd = _CrowdThread(plan, control, self._pipes)
        signer, clock = Signer(plan.signing_seed), RealClock()
        token = signer.issue(FEED_SUBJECT, plan.tenant, "feed", FEED_SOURCE, TOKEN_TTL_S, clock.unix_ms() / 1000)
        feed = await Client.connect(
            plan.url, client="feed", token=token, venue=plan.venue, reconnects=RECONNECTS, timeout_s=WELCOME_S, on_event=self._on_event
        )
        purse = await Client.connect(plan.url, client="feed-money", token=token, reconnects=RECONNECTS, timeout_s=WELCOME_S, on_event=lambda _: None)
        money = Money(plan, purse, self._pays)
        helpers = [asyncio.create_task(self._measure()), asyncio.create_task(self._tell_bays(purse))]
        try:
            share = await crowd.take()
            if isinstance(share, _End):
                raise Fault(f"the crowd: {share.failure or 'made no tick'}")
            first = share.tick
            control.tell(Told(NAME, "filling the wallets", 1.0))
            money.top_up(first, share.arrived)
            await money.topped_up(share.arrived.tolist())
            self._source = source = Source(venue=plan.venue, name=FEED_SOURCE, first_tick=first)
            await source.open(feed)
            start_ns = await control.go()
            self._pace = pace = Pace(plan, start_ns=start_ns, first_tick=first)
            bays = parking_changes(plan.parking, seed=plan.seed, seconds=plan.ticks // 10 + 1) if plan.parking else []
            end: _End | None = None
            while end is None:
                tick = share.tick
                await pace.until(tick, source.wait_closed)
                source.put(tick, len(share.rows), share.rows)
                await asyncio.sleep(0)  # lets the frame go out before its lateness is noted
                pace.sent(tick)
                if tick != first:
                    money.top_up(tick, share.arrived)
                money.pay(tick, share.payments, pace.intended_ns(tick))
                second, rest = divmod(tick - first, 10)
                if rest == 0 and second < len(bays) and bays[second] and not self._bays.full():
                    self._bays.put_nowait(bays[second])
                self._tick, self._people = tick, len(share.rows)
                following = await crowd.take()
                if isinstance(following, _End):
                    end = following
                else:
                    share = following
            await source.wait_closed(self._tick, plan.drain_s)
            closed_ns = time.monotonic_ns()
            await money.drain(plan.drain_s)
            await until_quiet(self._pushes, closed_ns, QUIET_S)
            await source.close()
            save_logs(plan.folder, NAME, self._pushes, self._pays, gone_subject=np.empty(0, np.int64), gone_tick=np.empty(0, np.int64))
            errors = [e for e in (end.failure and f"the crowd: {end.failure}", source.error, money.error, self._bay_error) if e]
            control.tell(
                Finished(
                    process=NAME,
                    people=end.people,
                    websocket_people=end.websocket_people,
                    turned_away=end.turned_away,
                    first_tick=first,
                    last_tick=self._tick,
                    closed=source.closed,
                    late_rows=source.late_rows,
                    epoch=source.epoch,
                    start_ns=start_ns,
                    closed_ns=closed_ns,
                    pushes=len(self._pushes),
                    pushes_duplicate=self._pushes.duplicates,
                    payments_settled=self._pays.settled,
                    payments_refused=self._pays.refused,
                    payments_unanswered=self._pays.unanswered,
                    not_logged=self._pushes.not_logged + self._pays.not_logged,
                    rewinds=source.rewinds,
                    stalls=source.stalls,
                    reconnects=feed.connects + purse.connects - 2,
                    not_resumed=0 if feed.welcome.get("resumed", False) or feed.connects == 1 else 1,
                    given_up=source.given_up,
                    errors=tuple(errors),
                    offers=tuple(self._pushes.offers),
                    latency=self._pushes.latency.to_state(),
                    payment_latency=self._pays.latency.to_state(),
                    lag=pace.lag.to_state(),
                    crowd=end.report,
                )
            )
        finally:
            crowd.stop()
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            await feed.close()
            await purse.close()

    def _on_event(self, frame: dict[str, Any]) -> None:
        now = time.monotonic_ns()
        if frame["op"] == "push_columns":
            tick = frame["tick"]
            intended = self._pace.intended_ns(tick) if self._pace else now
            index = [self._pushes.offer(offer) for offer in frame["offers"]]
            offers, subjects = np.frombuffer(frame["offer"], "<u2").tolist(), np.frombuffer(frame["subject"], "<u4").tolist()
            for offer, subject in zip(offers, subjects, strict=True):
                self._pushes.add(index[offer], subject, tick, intended_ns=intended, received_ns=now)
        elif self._source is not None:
            self._source.receive(frame)

    async def _tell_bays(self, client: Client) -> None:
        """Bay sensors, one batch after the other: their order is their meaning."""
        while True:
            batch = await self._bays.get()
            bays = [{"unit_id": unit, "occupied": occupied} for unit, occupied in batch]
            try:
                await until_answered(lambda bays=bays: client.request("set_bays", venue=self._plan.venue, bays=bays))  # type: ignore[misc]
            except EsplanadeError as error:
                self._bay_error = self._bay_error or f"bay sensors: {error}"

    async def _measure(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self._control.tell(
                Measured(
                    process=NAME,
                    tick=self._tick,
                    closed=self._source.closed if self._source else 0,
                    people=self._people,
                    connected=0,
                    pushes=len(self._pushes),
                    payments=self._pays.settled,
                    lag_p99_ms=self._pace.lag.quantile_ms(0.99) if self._pace else 0.0,
                )
            )
