"""Frames into calls of the System, answers into frames: one `match` over the closed union.

The subject and the tenant are the token's, always. A request is answered exactly once, with its `seq`. Never touches a socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import zlib
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, Protocol, TypeVar, assert_never

import numpy as np
import numpy.typing as npt

from actors import messages as m
from actors import topics as t
from actors.localiser import Localiser
from actors.payment_lane import Outcome, Payment, PaymentLane
from actors.system import Key, System, VenueClock
from esplanade.core import tracing
from esplanade.core.clock import SystemClock
from esplanade.core.errors import EsplanadeError, Fault, Forbidden, InvalidInput, NotFound, SecondFactorNeeded, Unavailable
from esplanade.core.ids import Address, check_name
from esplanade.storage.audit import Detail
from esplanade.storage.journal import Journal
from gateway import frames as f
from gateway.ar_frames import ArFrame, ar_address, ar_command
from gateway.audit_trail import AuditTrail
from gateway.auth import Identity
from gateway.batching import MoveBatcher, Tee, tee_rows
from gateway.hub import Hub
from gateway.hub import Peer as HubPeer
from gateway.items import ItemDesk
from gateway.localising import LocalisingDesk
from gateway.metrics import Counter, GatewayMetrics
from gateway.money import MoneyDesk
from gateway.observe import ObserveDesk
from gateway.permissions import SECOND_FACTOR_ABOVE, SECOND_FACTOR_S, needs_second_factor
from gateway.read_plans import ReadFrame, Refused, expect, read_plan
from gateway.session import Session
from gateway.stale_reads import Read, StaleReads
from gateway.ticks import Ticks
from gateway.venues import VenueCache, VenueFacts
from gateway.wayfinding import Wayfinder
from spatial.columns import LEFT, PositionColumns
from spatial.measures import band_of
from spatial.offers import check_offer
from spatial.routes import At

_log = logging.getLogger("esplanade.gateway.dispatch")

MAX_MONEY_ROWS: Final = 20_000
"""Rows of one TopUps or Payments frame."""
MAX_TASKS: Final = 50_000
"""Requests in flight in this process, beyond which watermarks (which no session counts) are refused."""
COORDINATE_M: Final = 1e6
PUBLISHED_TIMES: Final = 4
"""Times that an edited document is put into the catalogue, while other edits overtake it."""

R = TypeVar("R")
Rest = (
    f.GetOffers | f.GetZone | f.GetClock | f.GetBalance | f.GetBooks | f.GetStatement | f.Pay | f.CreateOffer | f.EndOffer
    | f.Search | f.ResolveAnchors | f.AnchorsNear | f.RemoveAnchors | f.TopUps | f.SetBays | f.CountGates | f.Localise
)  # fmt: skip
"""Frames that may come by HTTP (`gateway.rest`)."""


class Caller(Protocol):
    """Who asks, by whichever door. `origin`: where they connect from."""

    @property
    def session(self) -> Session: ...

    @property
    def identity(self) -> Identity: ...

    @property
    def origin(self) -> str: ...


class Peer(HubPeer, Protocol):
    """A connection that asks."""

    @property
    def identity(self) -> Identity: ...

    @property
    def origin(self) -> str: ...

    def send(self, frame: f.ServerFrame) -> None: ...


class Dispatch:
    """`audit`: acts of operators are noted there, with what came of them."""

    def __init__(
        self,
        *,
        system: System,
        venues: VenueCache,
        hub: Hub,
        journal: Journal,
        clock: SystemClock,
        metrics: GatewayMetrics,
        tee: Tee | None,
        audit: AuditTrail | None = None,
        localiser: Localiser | None = None,
    ) -> None:
        self._audit = audit
        self._system = system
        self._venues = venues
        self._hub = hub
        self._clock = clock
        self._metrics = metrics
        self._tee = tee
        self._moves = MoveBatcher(system, metrics, tee)
        self._pays = PaymentLane(system, told=partial(metrics.count, "esplanade_gateway_payment_batches_total"), tick_of=self._tick)
        self._observes = ObserveDesk(system, metrics, tee)
        self._money = MoneyDesk(system=system, venues=venues, journal=journal, clock=clock)
        self._items = ItemDesk(system=system, venues=venues, clock=clock)
        self._localising = LocalisingDesk(localiser)
        self._reads = StaleReads(system, clock, metrics)
        self._ticks = Ticks(system, clock)
        self._ways = Wayfinder(venues)
        self._tasks: set[asyncio.Task[None]] = set()
        self._soon: set[_Answering] = set()
        self._frames_in: dict[type[f.ClientFrame], Counter] = {}
        self._settled = asyncio.Event()
        self.in_flight = 0

    def handle(self, peer: Peer, frame: f.ClientFrame) -> None:
        """Take a permitted frame; the answer comes by `peer.send`, at once or later."""
        counter = self._frames_in.get(type(frame)) or self._frames_in_of(frame)
        counter.n += 1
        started = self._clock.monotonic_s()
        match frame:
            case f.GetZone() | f.GetBalance() | f.GetOffers():
                self._read_soon(peer, frame, started)
            case f.Pay():
                self._pay_soon(peer, frame, started)
            case f.Observe():
                self.in_flight += 1
                self._spawn(self._observe(peer, frame, started))
            case f.Ping():
                self.in_flight += 1
                self._finish(peer, f.Pong(seq=frame.seq, now_ms=self._clock.unix_ms()), started)
            case f.Move() | f.Leave():
                self.in_flight += 1
                facts = self._venues.cached(peer.identity.tenant, frame.venue)
                if facts is not None and self._hub.is_in(peer, frame.venue):
                    self._row(peer, frame, facts, started)
                else:
                    self._spawn(self._first_row(peer, frame, started))
            case f.Watermark():
                if len(self._tasks) > MAX_TASKS:
                    peer.send(
                        f.Error(code="limit", message=f"watermark of tick {frame.tick} dropped: the gateway is full; send it again", retryable=True)
                    )
                    return
                self._spawn(self._watermark(peer, frame))
            case f.WalkIn():
                self._request(peer, frame.seq, self._walk_in(peer, frame), started)
            case f.FindStores():
                self._request(peer, frame.seq, self._stores(peer, frame), started)
            case f.Search():
                self._request(peer, frame.seq, self._search(peer, frame), started)
            case f.GetRoute() | f.GetIsochrone():
                self._request(peer, frame.seq, self._way(peer, frame), started)
            case f.GetAccess():
                self._request(peer, frame.seq, self._access(peer, frame), started)
            case f.SetAccess():
                self._request(peer, frame.seq, self._noted(peer, frame, self._access(peer, frame)), started)
            case f.DrawZone() | f.EraseZone():
                self._request(peer, frame.seq, self._noted(peer, frame, self._draw(peer, frame)), started)
            case f.SetTraits():
                self._request(peer, frame.seq, self._noted(peer, frame, self._traits(peer, frame)), started)
            case f.Explain():
                self._request(peer, frame.seq, self._explain(peer, frame), started)
            case f.Measure() | f.GetHeat():
                self._request(peer, frame.seq, self._measure(peer, frame), started)
            case f.EditVenue() | f.UndoEdit() | f.RedoEdit():
                self._request(peer, frame.seq, self._noted(peer, frame, self._edit(peer, frame)), started)
            case f.GetEdits():
                self._request(peer, frame.seq, self._edit(peer, frame), started)
            case f.CompareParking():
                self._request(peer, frame.seq, self._car_park(peer, frame), started)
            case f.CountGates() | f.Recount():
                self._request(peer, frame.seq, self._noted(peer, frame, self._car_park(peer, frame)), started)
            case f.GetZones():
                self._request(peer, frame.seq, self._zones(peer, frame), started)
            case f.GetClock():
                self._request(peer, frame.seq, self._clock_of(peer, frame), started)
            case f.GetMembers():
                self._request(peer, frame.seq, self._hub.presence.answer(peer, frame), started)
            case f.CreateOffer() | f.EndOffer():
                self._request(peer, frame.seq, self._noted(peer, frame, self._change_offer(peer, frame)), started)
            case f.SetBays():
                self._request(peer, frame.seq, self._noted(peer, frame, self._bays(peer, frame)), started)
            case f.HostAnchor() | f.ResolveAnchors() | f.AnchorsNear() | f.ObserveAnchor() | f.RemoveAnchors() | f.CarryAnchors():
                self._request(peer, frame.seq, self._augmented(peer, frame), started)
            case f.GetAnchorGraph() | f.RefineAnchors():
                self._request(peer, frame.seq, self._augmented(peer, frame), started)
            case f.SceneSync():
                self._request(peer, frame.seq, self._augmented(peer, frame), started)
            case f.SceneApply():
                self._request(peer, frame.seq, self._edit_scene(peer, frame), started)
            case f.ScenePresence():
                self._request(peer, frame.seq, self._present(peer, frame), started)
            case f.Localise():
                self._request(peer, frame.seq, self._localise(peer, frame), started)
            case f.GetBooks():
                self._request(peer, frame.seq, self._books(peer, frame), started)
            case f.Transfer() | f.GetStatement() | f.GetTill():
                self._request(peer, frame.seq, self._money.answer(peer.identity, frame), started)
            case f.Refund() | f.TopUps() if self._lacks_second_factor(peer.identity, frame):
                self.in_flight += 1
                self._finish(peer, error_frame(_second_factor_needed(frame), frame.seq), started)
            case f.Refund() | f.Hold() | f.Post() | f.Void():
                self._request(peer, frame.seq, self._noted(peer, frame, self._money.answer(peer.identity, frame)), started)
            case f.GetItem() | f.Buy():
                self._request(peer, frame.seq, self._items.answer(peer.identity, frame), started)
            case f.PutItem() | f.Grant():
                self._request(peer, frame.seq, self._noted(peer, frame, self._items.answer(peer.identity, frame)), started)
            case f.OpenSource() | f.CloseSource():
                self._request(peer, frame.seq, self._source(peer, frame), started)
            case f.Columns():
                self._request(peer, frame.seq, self._columns(peer, frame), started)
            case f.TopUps():
                self._request(peer, frame.seq, self._noted(peer, frame, self._top_ups(peer, frame)), started)
            case f.Payments():
                self._request(peer, frame.seq, self._payments(peer, frame), started)
            case f.Hello() | f.Ack() | f.Subscribe() | f.Unsubscribe() | f.Saw() | f.Renew():
                raise Fault(f"frame {type(frame).__name__} reached dispatch: the session and the hub own it")
            case _:
                assert_never(frame)

    def _frames_in_of(self, frame: f.ClientFrame) -> Counter:
        counter = self._frames_in[type(frame)] = self._metrics.counter("esplanade_gateway_frames_in_total", str(frame.__struct_config__.tag))
        return counter

    def _lacks_second_factor(self, identity: Identity, frame: f.ClientFrame) -> bool:
        return needs_second_factor(identity.role, frame) and self._clock.unix_ms() / 1000 - identity.strong_unix_s > SECOND_FACTOR_S

    async def answer(self, caller: Caller, frame: Rest) -> f.ServerFrame:
        """The answer to a permitted frame that came by another door than a connection; a behaviour's rejection as an Error. Raises what the system raises."""
        self._frames_in_of(frame).n += 1
        if self._lacks_second_factor(caller.identity, frame):
            raise _second_factor_needed(frame)
        try:
            return await self._work_of(caller, frame)
        except Refused as refused:
            return error_frame(refused, frame.seq)

    async def _work_of(self, caller: Caller, frame: Rest) -> f.ServerFrame:
        match frame:
            case f.GetOffers() | f.GetZone() | f.GetBalance():
                return await self._read_frame(caller, frame)
            case f.GetClock():
                return await self._clock_of(caller, frame)
            case f.GetBooks():
                return await self._books(caller, frame)
            case f.GetStatement():
                return await self._money.answer(caller.identity, frame)
            case f.Pay():
                return await self._pay(caller, frame)
            case f.Localise():
                return await self._localise(caller, frame)
            case f.CreateOffer() | f.EndOffer():
                return await self._noted(caller, frame, self._change_offer(caller, frame))
            case f.Search():
                return await self._search(caller, frame)
            case f.ResolveAnchors() | f.AnchorsNear() | f.RemoveAnchors():
                return await self._augmented(caller, frame)
            case f.TopUps():
                return await self._noted(caller, frame, self._top_ups(caller, frame))
            case f.SetBays():
                return await self._noted(caller, frame, self._bays(caller, frame))
            case f.CountGates():
                return await self._noted(caller, frame, self._car_park(caller, frame))
            case _:
                assert_never(frame)

    async def stop(self, timeout_s: float = 2.0) -> None:
        """Wait a while for what is in flight, then give up."""
        if self._tasks:
            _, late = await asyncio.wait(list(self._tasks), timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._moves.stop(timeout_s)
        await self._pays.stop(timeout_s)
        await self._observes.stop(timeout_s)
        if self._soon:
            self._settled.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._settled.wait()
        self._reads.stop()
        self._ticks.stop()
        for answering in list(self._soon):
            answering(Unavailable("the gateway stops: send again with the same key elsewhere"))
        self._ways.stop()

    @property
    def held_reads(self) -> int:
        return len(self._reads)

    # --- answering ---

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _request(self, peer: Peer, seq: int, work: Coroutine[Any, Any, f.ServerFrame], started: float) -> None:
        self.in_flight += 1
        self._spawn(self._traced(peer, work, self._answer(peer, seq, work, started)) if tracing.on() else self._answer(peer, seq, work, started))

    async def _traced(self, peer: Peer, work: Coroutine[Any, Any, f.ServerFrame], answering: Coroutine[Any, Any, None]) -> None:
        """The whole of answering a frame as one span, the root of what it causes."""
        with tracing.span(f"frame {getattr(work, '__name__', 'request').strip('_')}", tenant=peer.identity.tenant, role=peer.identity.role):
            await answering

    async def _answer(self, peer: Peer, seq: int, work: Coroutine[Any, Any, f.ServerFrame], started: float) -> None:
        reply: f.ServerFrame
        try:
            reply = await work
        except EsplanadeError as error:
            reply = error_frame(error, seq)
        except asyncio.CancelledError:
            reply = f.Error(code="unavailable", message="the gateway stops: send again with the same key elsewhere", retryable=True, seq=seq)
        except Exception:
            _log.exception("request_failed", extra={"seq": seq})
            reply = f.Error(code="fault", message="the request failed inside the server; it is logged, and nothing you can mend", seq=seq)
        self._finish(peer, reply, started)

    def _finish(self, peer: Peer, reply: f.ServerFrame | None, started: float) -> None:
        self.in_flight -= 1
        peer.session.answered()
        if reply is not None:
            peer.send(reply)
        self._metrics.observe(self._clock.monotonic_s() - started)

    async def _ask(self, peer: Caller, address: Address, command: m.Command, kind: type[R], seq: int | None = None, public: bytes | None = None) -> R:
        """The entity's reply, of the kind it must be. A rejection is raised as `Refused`. `public`: the frame's own key, which takes the place of its `seq`."""
        if public is not None:
            own = hashlib.blake2b(public, key=peer.identity.subject.to_bytes(4, "little"), digest_size=16).digest()  # nobody meets another's keys
            return expect(command, await self._system.ask(address, command, public=own), kind)
        key = None if seq is None else Key(client_of(peer), seq)
        return expect(command, await self._system.ask(address, command, key=key), kind)

    def _answer_soon(self, peer: Peer, frame: ReadFrame | f.Pay, started: float, made: Callable[[Any, Any], f.ServerFrame]) -> _Answering:
        """What answers the frame when it is called with an outcome: a request under way without a task."""
        self.in_flight += 1
        answering = _Answering(self, peer, frame, started, made)
        self._soon.add(answering)
        return answering

    def answered(self, answering: _Answering, outcome: Any) -> None:
        """`outcome` is what the frame's answer is made of, or what was raised in its place."""
        if answering not in self._soon:
            return  # it had its answer when the gateway stopped
        self._soon.discard(answering)
        if not self._soon:
            self._settled.set()
        reply: f.ServerFrame
        frame = answering.frame
        try:
            reply = error_frame(outcome, frame.seq) if isinstance(outcome, EsplanadeError) else answering.made(frame, outcome)
        except EsplanadeError as error:
            reply = error_frame(error, frame.seq)
        except Exception:
            _log.exception("request_failed", extra={"seq": frame.seq})
            reply = f.Error(code="fault", message="the request failed inside the server; it is logged, and nothing you can mend", seq=frame.seq)
        self._finish(answering.peer, reply, answering.started)

    def _read_soon(self, peer: Peer, frame: ReadFrame, started: float) -> None:
        """A read of one entity, of which all else is at hand: no task for it."""
        identity, facts, tick, kind = peer.identity, None, None, type(frame)
        at_hand = not tracing.on()
        if kind is not f.GetBalance and at_hand:
            facts = self._venues.cached(identity.tenant, frame.venue)  # type: ignore[union-attr]
            tick = None if facts is None or kind is f.GetZone else self._tick_at_hand(facts)
            at_hand = facts is not None and (kind is f.GetZone or tick is not None)
        if not at_hand:
            self._request(peer, frame.seq, self._read_frame(peer, frame), started)
            return
        try:
            plan = read_plan(identity, frame, facts, tick)
        except EsplanadeError as error:
            self.in_flight += 1
            self._finish(peer, error_frame(error, frame.seq), started)
            return
        self._reads.ask_soon(plan.address, plan.command, self._answer_soon(peer, frame, started, plan.made), stale_ms=frame.stale_ms)

    async def _read_frame(self, peer: Caller, frame: ReadFrame) -> f.ServerFrame:
        identity = peer.identity
        facts = None if isinstance(frame, f.GetBalance) else await self._venues.get(identity.tenant, frame.venue)
        tick = await self._tick(facts.tenant, facts.venue) if facts is not None and isinstance(frame, f.GetOffers) else None
        plan = read_plan(identity, frame, facts, tick)
        return plan.made(frame, await self._reads.ask(plan.address, plan.command, stale_ms=frame.stale_ms))

    async def _read(self, address: Address, command: Read, kind: type[R], stale_ms: int) -> R:
        """Likewise of a read, which may be as old as the reader allows."""
        return expect(command, await self._reads.ask(address, command, stale_ms=stale_ms), kind)

    # --- shoppers ---

    async def _walk_in(self, peer: Peer, frame: f.WalkIn) -> f.ServerFrame:
        identity = peer.identity
        await self._enter(peer, frame.venue)
        address = Address("session", identity.tenant, str(identity.subject))
        reply = await self._ask(peer, address, m.ScanQr(venue=frame.venue, location=frame.location), m.WalkedIn, frame.seq, frame.key)
        return f.WalkedIn(
            seq=frame.seq, venue=reply.venue, venue_name=reply.venue_name, level=reply.level, x=reply.x_m, y=reply.y_m, stores=reply.stores
        )

    async def _enter(self, peer: Peer, venue: str) -> VenueFacts:
        """The venue exists, and from now on its pushes reach this peer."""
        identity = peer.identity
        facts = await self._venues.get(identity.tenant, venue)
        if not self._hub.is_in(peer, venue):
            await self._hub.attach(
                peer,
                tenant=identity.tenant,
                venue=venue,
                subject=identity.subject,
                feed=identity.role == "feed",
                source=identity.source,
                client=peer.session.client,
            )
        return facts

    async def _first_row(self, peer: Peer, frame: f.Move | f.Leave, started: float) -> None:
        try:
            facts = await self._enter(peer, frame.venue)
        except EsplanadeError as error:
            self._finish(peer, error_frame(error, frame.seq), started)
        except Exception:
            _log.exception("request_failed", extra={"seq": frame.seq})
            self._finish(peer, f.Error(code="fault", message="the request failed inside the server; it is logged", seq=frame.seq), started)
        else:
            self._row(peer, frame, facts, started)

    def _row(self, peer: Peer, frame: f.Move | f.Leave, facts: VenueFacts, started: float) -> None:
        identity = peer.identity
        source = identity.source if frame.tick is not None else None
        acked = isinstance(frame, f.Leave) or frame.ack

        def outcome(failure: EsplanadeError | None) -> None:
            if failure is not None:
                self._finish(peer, error_frame(failure, frame.seq), started)
            else:
                self._finish(peer, f.Taken(seq=frame.seq) if acked else None, started)

        try:
            if frame.tick is not None and source is None:
                raise InvalidInput(f"tick {frame.tick}: this token names no source, so the venue's own clock stamps the row; leave `tick` out")
            if isinstance(frame, f.Leave):
                row = (LEFT, 0.0, 0.0)
            else:
                facts.check_level(frame.level)
                row = (frame.level, frame.x, frame.y)
            self._moves.add(identity.tenant, frame.venue, source, frame.tick, identity.subject, row, outcome)
        except EsplanadeError as error:
            self._finish(peer, error_frame(error, frame.seq), started)

    def _pay_soon(self, peer: Peer, frame: f.Pay, started: float) -> None:
        """A payment, where all that it needs beside the ledger is at hand: no task for it."""
        identity = peer.identity
        facts = None if tracing.on() else self._venues.cached(identity.tenant, frame.venue)
        if facts is None:
            self._request(peer, frame.seq, self._pay(peer, frame), started)
            return
        answering = self._answer_soon(peer, frame, started, _paid)
        try:
            self._pays.pay_soon(identity.tenant, frame.venue, frame.currency, frame.tick, _payment(identity, facts, frame), answering)
        except EsplanadeError as error:
            answering(error)

    async def _observe(self, peer: Peer, frame: f.Observe, started: float) -> None:
        try:
            facts = await self._enter(peer, frame.venue)
            self._observes.add(facts, peer.identity.subject, frame, lambda answer: self._finish(peer, answer, started))
        except EsplanadeError as error:
            self._finish(peer, error_frame(error, frame.seq), started)
        except Exception:
            _log.exception("request_failed", extra={"seq": frame.seq})
            self._finish(peer, f.Error(code="fault", message="the request failed inside the server; it is logged", seq=frame.seq), started)

    async def _pay(self, peer: Caller, frame: f.Pay) -> f.ServerFrame:
        identity = peer.identity
        payment = _payment(identity, await self._venues.get(identity.tenant, frame.venue), frame)
        return _paid(frame, await self._pays.pay(identity.tenant, frame.venue, frame.currency, frame.tick, payment))

    async def _tick(self, tenant: str, venue: str) -> int:
        tick = self._hub.tick(tenant, venue)
        return tick if tick is not None else await self._ticks.get(tenant, venue)

    def _tick_at_hand(self, facts: VenueFacts) -> int | None:
        tick = self._hub.tick(facts.tenant, facts.venue)
        return tick if tick is not None else self._ticks.at_hand(facts.tenant, facts.venue)

    async def _stores(self, peer: Peer, frame: f.FindStores) -> f.ServerFrame:
        facts = await self._venues.get(peer.identity.tenant, frame.venue)
        facts.check_level(frame.level)
        command = m.FindStores(level=frame.level, x_m=frame.x, y_m=frame.y, k=frame.k)
        return f.Stores(seq=frame.seq, stores=(await self._ask(peer, facts.address, command, m.Stores)).stores)

    async def _search(self, peer: Caller, frame: f.Search) -> f.ServerFrame:
        facts = await self._venues.get(peer.identity.tenant, frame.venue)
        where = (frame.level, frame.x, frame.y)
        command = m.SearchStores(text=frame.text, k=frame.k)
        if frame.level is not None and frame.x is not None and frame.y is not None:
            facts.check_level(frame.level)
            command = m.SearchStores(text=frame.text, level=frame.level, x_m=frame.x, y_m=frame.y, k=frame.k)
        elif any(part is not None for part in where):
            raise InvalidInput(f"search with level, x, y = {where}: give all three, or none")
        return f.Stores(seq=frame.seq, stores=(await self._ask(peer, facts.address, command, m.Stores)).stores)

    async def _way(self, peer: Caller, frame: f.GetRoute | f.GetIsochrone) -> f.ServerFrame:
        facts = await self._venues.get(peer.identity.tenant, frame.venue)
        mine = peer.identity.subject if frame.start is None else None
        now = await self._ask(peer, facts.address, m.GetAccess(subject=mine), m.Access)
        here = None if now.spotted is None else At(now.spotted.level, now.spotted.x_m, now.spotted.y_m)
        closed = frozenset(now.closed)
        if isinstance(frame, f.GetRoute):
            return await self._ways.route(facts, frame, here, closed)
        return await self._ways.isochrone(facts, frame, here, closed)

    async def _access(self, peer: Caller, frame: f.GetAccess | f.SetAccess) -> f.ServerFrame:
        facts = await self._venues.get(peer.identity.tenant, frame.venue)
        if isinstance(frame, f.GetAccess):
            now = await self._ask(peer, facts.address, m.GetAccess(), m.Access)
        else:
            command = m.SetAccess(close=frame.close, open=frame.open)
            now = await self._ask(peer, facts.address, command, m.Access, frame.seq, frame.key)
        return f.Access(seq=frame.seq, venue=frame.venue, closed=now.closed)

    async def _clock_of(self, peer: Caller, frame: f.GetClock) -> f.ServerFrame:
        facts = await self._venues.get(peer.identity.tenant, frame.venue)
        return clock_state(frame.seq, await self._system.clock(facts.tenant, facts.venue))

    # --- anchors and scenes ---

    async def _augmented(self, peer: Caller, frame: ArFrame) -> f.ServerFrame:
        """Answer a frame about anchors or a scene of a venue that exists. Time is the gateway's: the shard reads no clock."""
        identity, seq = peer.identity, frame.seq
        await self._venues.get(identity.tenant, frame.venue)
        address, command = ar_address(frame, identity.tenant), ar_command(frame, identity, client_of(peer), self._clock.unix_ms())
        match frame:
            case f.SceneSync():
                delta = await self._ask(peer, address, command, m.SceneDelta)
                return f.SceneDelta(seq=seq, ops=delta.ops, whole=delta.whole)
            case f.SceneApply():  # an operation sent again changes nothing: it needs no key
                edits = await self._ask(peer, address, command, m.SceneEdits)
                return f.SceneApplied(seq=seq, applied=edits.applied, known=edits.known)
            case f.RemoveAnchors() | f.CarryAnchors():
                await self._ask(peer, address, command, m.Done)
                return f.Done(seq=seq)
            case f.HostAnchor() | f.ObserveAnchor():
                return f.AnchorsAre(seq=seq, anchors=(await self._ask(peer, address, command, m.Anchors, seq)).anchors)
            case f.GetAnchorGraph():
                graph = await self._ask(peer, address, command, m.AnchorGraph)
                return f.AnchorGraph(seq=seq, anchors=graph.anchors, seen=graph.seen)
            case f.ResolveAnchors() | f.AnchorsNear() | f.RefineAnchors():  # a refinement sent again finds other versions, and moves nothing
                return f.AnchorsAre(seq=seq, anchors=(await self._ask(peer, address, command, m.Anchors)).anchors)
            case _:
                assert_never(frame)

    async def _edit_scene(self, peer: Peer, frame: f.SceneApply) -> f.ServerFrame:
        done = await self._augmented(peer, frame)
        if isinstance(done, f.SceneApplied) and done.applied + done.known:  # made under its own name, or it would have been refused
            self._hub.presence.edited(peer, f"venue/{frame.venue}/scene/{frame.scene}")
        return done

    async def _localise(self, peer: Caller, frame: f.Localise) -> f.ServerFrame:
        return await self._localising.answer(await self._venues.get(peer.identity.tenant, frame.venue), frame)

    async def _present(self, peer: Peer, frame: f.ScenePresence) -> f.ServerFrame:
        """Say to all who look at the scene where this client looks from: to whoever reads the topic now, and nothing is kept."""
        facts = await self._venues.get(peer.identity.tenant, frame.venue)
        facts.check_level(frame.level)
        topic = f"venue/{frame.venue}/presence/{check_name(frame.scene, 'scene')}"
        body = t.Presence(venue=frame.venue, scene=frame.scene, client=client_of(peer), level=frame.level, pose=frame.pose)
        await self._hub.announce(peer.identity.tenant, topic, body)
        return f.Done(seq=frame.seq)

    # --- operators ---

    async def _noted(self, peer: Caller, frame: Act, work: Coroutine[Any, Any, f.ServerFrame]) -> f.ServerFrame:
        """The answer; where an operator asked, the act and its outcome are noted for the audit trail. Feeds do the same all day and are not."""
        if self._audit is None or peer.identity.role != "operator":
            return await work
        outcome = "fault"
        try:
            reply = await work
            outcome = reply.code if isinstance(reply, f.Error) else "done"
            return reply
        except EsplanadeError as error:
            outcome = error_frame(error, None).code
            raise
        finally:
            what, target, detail = described(frame)
            identity = peer.identity
            self._audit.note(
                tenant=identity.tenant, who=who_is(identity), what=what, target=target, origin=peer.origin, outcome=outcome, detail=detail
            )  # fmt: skip

    async def _draw(self, peer: Caller, frame: f.DrawZone | f.EraseZone) -> f.ServerFrame:
        facts = await self._venues.get(peer.identity.tenant, frame.venue)
        command: m.Command = m.DrawZone(zone=frame.zone) if isinstance(frame, f.DrawZone) else m.EraseZone(zone_id=frame.zone)
        await self._ask(peer, facts.address, command, m.Done, frame.seq, frame.key)
        return f.Done(seq=frame.seq)

    async def _traits(self, peer: Caller, frame: f.SetTraits) -> f.ServerFrame:
        facts = await self._venues.get(peer.identity.tenant, frame.venue)
        command = m.SetTraits(subject=frame.subject, segments=frame.segments, language=frame.language)
        await self._ask(peer, facts.address, command, m.Done, frame.seq, frame.key)
        return f.Done(seq=frame.seq)

    async def _explain(self, peer: Caller, frame: f.Explain) -> f.ServerFrame:
        mine = peer.identity.subject
        subject = mine if frame.subject is None else frame.subject
        if subject != mine and peer.identity.role != "operator":
            raise Forbidden(f"explain for subject {subject}: role {peer.identity.role} is told of itself alone; leave `subject` out")
        facts = await self._venues.get(peer.identity.tenant, frame.venue)
        told = await self._ask(peer, facts.address, m.Explain(offer_id=frame.offer, subject=subject), m.Explanation)
        return f.Explained(
            seq=frame.seq, offer=frame.offer, subject=subject, outcome=told.outcome, message=told.message, pushes=told.pushes,
            tick=None if told.tick < 0 else told.tick,
        )  # fmt: skip

    async def _measure(self, peer: Caller, frame: f.Measure | f.GetHeat) -> f.ServerFrame:
        facts = await self._venues.get(peer.identity.tenant, frame.venue)
        if isinstance(frame, f.GetHeat):
            facts.check_level(frame.level)
            heat = await self._ask(peer, facts.address, m.GetHeat(level=frame.level), m.Heat)
            return f.Heat(
                seq=frame.seq, venue=frame.venue, level=frame.level, tick=heat.tick, x0_m=heat.x0_m, y0_m=heat.y0_m, cell_m=heat.cell_m, cols=heat.cols,
                rows=heat.rows, person_s=heat.person_s, since_tick=None if heat.since_tick < 0 else heat.since_tick,
            )  # fmt: skip
        told = await self._ask(peer, facts.address, m.Measure(zone_id=frame.zone, voronoi=frame.voronoi), m.Measures)
        density = told.inside / told.ground_m2 if told.ground_m2 else 0.0
        return f.Measures(
            seq=frame.seq, zone=frame.zone, tick=told.tick, inside=told.inside, ground_m2=told.ground_m2, density_per_m2=density, service=band_of(density),
            waiting=band_of(density, waiting=True), mean_stay_s=told.mean_stay_s, voronoi_per_m2=told.voronoi_per_m2, entries_per_min=told.entries_per_min,
            exits_per_min=told.exits_per_min, stays_s=told.stays_s, stays=told.stays,
        )  # fmt: skip

    async def _car_park(self, peer: Caller, frame: f.CountGates | f.CompareParking | f.Recount) -> f.ServerFrame:
        facts = await self._venues.get(peer.identity.tenant, frame.venue)
        match frame:
            case f.CountGates():
                told = await self._ask(peer, facts.address, m.CountGates(counts=frame.counts), m.ParkingCompared, frame.seq, frame.key)
            case f.Recount():
                told = await self._ask(peer, facts.address, m.Recount(moving=frame.moving), m.ParkingCompared, frame.seq, frame.key)
            case f.CompareParking():
                told = await self._ask(peer, facts.address, m.CompareParking(moving_at_most=frame.moving_at_most), m.ParkingCompared)
            case _:
                assert_never(frame)
        return f.ParkingCompared(seq=frame.seq, venue=frame.venue, total=told.total, taken=told.taken, inside=told.inside, drift=told.drift)

    async def _edit(self, peer: Caller, frame: f.EditVenue | f.UndoEdit | f.RedoEdit | f.GetEdits) -> f.ServerFrame:
        """The mall journals the edit and its host follows by itself; the catalogue, which all others read, gets the document once it is durable."""
        facts = await self._venues.get(peer.identity.tenant, frame.venue)
        match frame:
            case f.EditVenue():
                told = await self._ask(peer, facts.address, m.EditVenue(edit=frame.edit), m.Edited, frame.seq, frame.key)
            case f.UndoEdit():
                told = await self._ask(peer, facts.address, m.UndoEdit(), m.Edited, frame.seq, frame.key)
            case f.RedoEdit():
                told = await self._ask(peer, facts.address, m.RedoEdit(), m.Edited, frame.seq, frame.key)
            case f.GetEdits():
                told = await self._ask(peer, facts.address, m.GetEdits(), m.Edited)
                return f.Edited(seq=frame.seq, venue=frame.venue, digest=told.digest or facts.digest, done=told.done, undone=told.undone)
            case _:
                assert_never(frame)
        document = told.document
        for _ in range(PUBLISHED_TIMES):
            await self._venues.publish(facts.tenant, zlib.decompress(document))
            newest = await self._ask(peer, facts.address, m.GetEdits(), m.Edited)
            if newest.document == document:
                break
            document = newest.document  # another operator's edit came meanwhile: the later document is to stay
        return f.Edited(seq=frame.seq, venue=frame.venue, digest=told.digest, edit=told.edit, done=told.done, undone=told.undone)

    async def _zones(self, peer: Caller, frame: f.GetZones) -> f.ServerFrame:
        facts = await self._venues.get(peer.identity.tenant, frame.venue)
        box = frame.box
        command = m.GetZones() if box is None else m.GetZones(level=box.level, box=(box.x0, box.y0, box.x1, box.y1))
        return f.ZoneList(seq=frame.seq, zones=(await self._ask(peer, facts.address, command, m.Zones)).zones)

    async def _change_offer(self, peer: Caller, frame: f.CreateOffer | f.EndOffer) -> f.ServerFrame:
        facts = await self._venues.get(peer.identity.tenant, frame.venue)
        command: m.Command
        if isinstance(frame, f.CreateOffer):
            check_offer(frame.offer)
            if frame.offer.unit_id not in facts.units:
                raise NotFound(f"offer {frame.offer.id}: venue {frame.venue} has no unit {frame.offer.unit_id!r}")
            command = m.CreateOffer(offer=frame.offer)
        else:
            command = m.EndOffer(offer_id=frame.offer, tick=frame.tick)
        await self._ask(peer, facts.address, command, m.Done, frame.seq, frame.key)
        return f.Done(seq=frame.seq)

    async def _bays(self, peer: Caller, frame: f.SetBays) -> f.ServerFrame:
        facts = await self._venues.get(peer.identity.tenant, frame.venue)
        reply = await self._ask(peer, facts.address, m.SetBays(bays=frame.bays), m.Parking, frame.seq, frame.key)
        return f.Parking(seq=frame.seq, venue=frame.venue, total=reply.total, free=reply.free)

    async def _books(self, peer: Caller, frame: f.GetBooks) -> f.ServerFrame:
        tenant = peer.identity.tenant
        parts = await asyncio.gather(
            *(self._read(Address("ledger", tenant, str(i)), m.GetBooks(), m.Books, frame.stale_ms) for i in range(m.LEDGERS))
        )
        return f.Books(
            seq=frame.seq,
            accounts=sum(part.accounts for part in parts),
            total=_summed([part.total for part in parts]),
            wallets=_summed([part.wallets for part in parts]),
            tills=_summed([part.tills for part in parts]),
            outside=_summed([part.outside for part in parts]),
            payments=sum(part.payments for part in parts),
            top_ups=sum(part.top_ups for part in parts),
        )

    # --- feeds ---

    async def _source(self, peer: Peer, frame: f.OpenSource | f.CloseSource) -> f.ServerFrame:
        self._own_source(peer, frame.source)
        tenant = peer.identity.tenant
        await self._enter(peer, frame.venue)
        if isinstance(frame, f.OpenSource):
            clock = await self._system.open_source(tenant, frame.venue, frame.source, first_tick=frame.first_tick)
        else:
            clock = await self._system.close_source(tenant, frame.venue, frame.source)
        return clock_state(frame.seq, clock)

    async def _columns(self, peer: Peer, frame: f.Columns) -> f.ServerFrame:
        self._own_source(peer, frame.source)
        columns = PositionColumns.unpack(frame.subject, frame.level, frame.x, frame.y)
        facts = await self._enter(peer, frame.venue)
        check_columns(columns, facts)
        self._hub.speak_for(peer, frame.venue, columns.subject)
        await self._system.take(facts.tenant, facts.venue, columns, source=frame.source, tick=frame.tick)
        tee_rows(self._tee, self._metrics, facts.tenant, facts.venue, frame.source, frame.tick, columns)
        return f.Taken(seq=frame.seq)

    async def _watermark(self, peer: Peer, frame: f.Watermark) -> None:
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

    async def _top_ups(self, peer: Caller, frame: f.TopUps) -> f.ServerFrame:
        subject = _money_columns(frame.key, frame.subject, frame.amount)

        def command(rows: npt.NDArray[np.intp]) -> m.Command:
            return m.TopUps(
                tick=frame.tick, key=_pick(frame.key, 16, rows), subject=_pick(frame.subject, 4, rows), amount=_pick(frame.amount, 4, rows),
                currency=frame.currency,
            )  # fmt: skip

        return await self._settle(peer, frame.seq, subject, command)

    async def _payments(self, peer: Peer, frame: f.Payments) -> f.ServerFrame:
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
        self, peer: Caller, seq: int, subject: npt.NDArray[np.uint32], command: Callable[[npt.NDArray[np.intp]], m.Command]
    ) -> f.ServerFrame:
        """Split rows by ledger, ask all, and put the results back in order.

        One ledger away: the whole frame is retryable; each row's own key makes that safe, and the connection's `seq` is not needed for it.
        """
        ledger = subject % m.LEDGERS
        parts = [np.flatnonzero(ledger == i) for i in range(m.LEDGERS)]
        used = [i for i, rows in enumerate(parts) if len(rows)]
        tenant = peer.identity.tenant
        replies = await asyncio.gather(
            *(self._ask(peer, Address("ledger", tenant, str(i)), command(parts[i]), m.Settled) for i in used), return_exceptions=True
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


def _second_factor_needed(frame: f.ClientFrame) -> SecondFactorNeeded:
    return SecondFactorNeeded(
        f"{frame.__struct_config__.tag} of more than {SECOND_FACTOR_ABOVE} minor units needs a second factor shown within {SECOND_FACTOR_S:.0f} s: "
        "get a token with one (docs/security.md), then send renew"
    )


class _Answering:
    """A request under way without a task; called with its outcome."""

    __slots__ = ("_dispatch", "frame", "made", "peer", "started")

    def __init__(self, dispatch: Dispatch, peer: Peer, frame: ReadFrame | f.Pay, started: float, made: Callable[[Any, Any], f.ServerFrame]) -> None:
        self._dispatch = dispatch
        self.peer = peer
        self.frame = frame
        self.started = started
        self.made = made

    def __call__(self, outcome: Any) -> None:
        self._dispatch.answered(self, outcome)


def _payment(identity: Identity, facts: VenueFacts, frame: f.Pay) -> Payment:
    unit = facts.units.get(frame.unit)
    if unit is None:
        raise NotFound(f"unit {frame.unit!r}: venue {frame.venue} has none of this id")
    if not unit[1]:
        raise InvalidInput(f"unit {frame.unit!r} has no till: pay at one that has")
    if frame.amount >= 2**32:
        raise InvalidInput(f"amount {frame.amount}: one payment is below {2**32} minor units; split it")
    return Payment(frame.key, identity.subject, unit[0], frame.amount)


def _paid(frame: f.Pay, outcome: Outcome) -> f.ServerFrame:
    code, balance = outcome
    if code is None:
        return f.Paid(seq=frame.seq, key=frame.key, balance=balance)
    message = f"payment of {frame.amount} {frame.currency} at {frame.unit} refused: {code} (balance {balance}); nothing was taken"
    return f.Error(code=code, message=message, seq=frame.seq)


def error_frame(error: EsplanadeError, seq: int | None) -> f.Error:
    code = error.rejected.code if isinstance(error, Refused) else error.code
    return f.Error(code=code, message=error.message, retryable=error.retryable, seq=seq)


Act = (
    f.CreateOffer
    | f.EndOffer
    | f.SetBays
    | f.SetAccess
    | f.DrawZone
    | f.EraseZone
    | f.SetTraits
    | f.CountGates
    | f.Recount
    | f.EditVenue
    | f.UndoEdit
    | f.RedoEdit
    | f.TopUps
    | f.Refund
    | f.Hold
    | f.Post
    | f.Void
    | f.PutItem
    | f.Grant
)
"""What an operator does that the audit trail tells."""


def described(frame: Act) -> tuple[str, str, Detail]:
    """What an operator's frame asks for, as the audit trail says it: act, target, detail."""
    match frame:
        case f.CreateOffer():
            offer = frame.offer
            return (
                "offer.create",
                f"{frame.venue}/{offer.id}",
                {"unit": offer.unit_id, "title": offer.title, "starts": offer.starts_tick, "ends": offer.ends_tick},
            )
        case f.EndOffer():
            return "offer.end", f"{frame.venue}/{frame.offer}", {"tick": frame.tick}
        case f.SetBays():
            return "bays.set", frame.venue, {"bays": len(frame.bays)}
        case f.DrawZone():
            return "zone.draw", f"{frame.venue}/{frame.zone.id}", {"name": frame.zone.name, "level": frame.zone.level}
        case f.SetTraits():
            return "traits.set", frame.venue, {"rows": len(frame.subject) // 4, "language": frame.language}
        case f.EditVenue():
            return "map.edit", f"{frame.venue}/{frame.edit.unit_id}", {"edit": type(frame.edit).__name__}
        case f.UndoEdit() | f.RedoEdit():
            return ("map.undo" if isinstance(frame, f.UndoEdit) else "map.redo"), frame.venue, {}
        case f.CountGates():
            return "gates.count", frame.venue, {"gates": len(frame.counts)}
        case f.Recount():
            return "parking.recount", frame.venue, {"moving": frame.moving}
        case f.EraseZone():
            return "zone.erase", f"{frame.venue}/{frame.zone}", {}
        case f.SetAccess():
            return "access.set", frame.venue, {"close": ", ".join(frame.close)[:200], "open": ", ".join(frame.open)[:200]}
        case f.TopUps():
            amount = int(np.frombuffer(frame.amount, "<u4").sum()) if len(frame.amount) % 4 == 0 else 0
            return "wallets.top_up", frame.currency, {"rows": len(frame.subject) // 4, "amount": amount}
        case f.Refund() | f.Hold() | f.Post():
            return (
                f"money.{frame.__struct_config__.tag}",
                str(frame.subject),
                {"amount": frame.amount, "currency": frame.currency, "key": frame.key.hex()},
            )
        case f.PutItem():
            return (
                "item.put",
                frame.item,
                {"amount": frame.amount, "currency": frame.currency, "limit": frame.limit, "unit": frame.unit or "", "each": frame.each},
            )
        case f.Grant():
            return "item.grant", frame.item, {"subject": frame.subject, "key": frame.key.hex()}
        case f.Void():
            return "money.void", str(frame.subject), {"currency": frame.currency, "key": frame.key.hex()}
        case _:
            assert_never(frame)


def who_is(identity: Identity) -> str:
    """A person or program as the audit trail names it."""
    return f"{identity.role}:{identity.subject}"


def client_of(peer: Caller) -> str:
    """The client part of an idempotency key: the person and their device."""
    return f"{peer.identity.subject}:{peer.session.client}"


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


def _summed(parts: list[dict[str, int]]) -> dict[str, int]:
    out: dict[str, int] = {}
    for part in parts:
        for currency, amount in part.items():
            out[currency] = out.get(currency, 0) + amount
    return out
