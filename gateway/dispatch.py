"""Frames into calls of the System, answers into frames: one `match` over the closed union.

The subject and the tenant are the token's, always. A request is answered exactly once, with its `seq`. Never touches a socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final, assert_never

from actors import messages as m
from actors.localiser import Localiser
from actors.payment_lane import Outcome, Payment, PaymentLane
from actors.requests import MAX_FRAME_REQUESTS
from actors.system import System
from esplanade.core import tracing
from esplanade.core.clock import SystemClock
from esplanade.core.errors import EsplanadeError, Fault, InvalidInput, NotFound, SecondFactorNeeded, Unavailable
from esplanade.core.ids import Address
from esplanade.storage.journal import Journal
from gateway import frames as f
from gateway.acts import Act, described, who_is
from gateway.answers import Answers
from gateway.ar_desk import ArDesk
from gateway.asking import Asker, Caller, Peer
from gateway.audit_trail import AuditTrail
from gateway.auth import Identity
from gateway.batching import MoveBatcher, Tee
from gateway.consent import ConsentDesk
from gateway.feed import FeedDesk, clock_state
from gateway.hub import Hub
from gateway.items import ItemDesk
from gateway.metrics import Counter, GatewayMetrics
from gateway.money import MoneyDesk
from gateway.observe import ObserveDesk
from gateway.permissions import SECOND_FACTOR_ABOVE, SECOND_FACTOR_S, needs_second_factor
from gateway.place_desk import PlaceDesk
from gateway.read_plans import Plan, ReadFrame, Refused, read_plan
from gateway.stale_reads import StaleReads
from gateway.ticks import Ticks
from gateway.venues import VenueCache, VenueFacts
from spatial.columns import LEFT

_log = logging.getLogger("esplanade.gateway.dispatch")

MAX_TASKS: Final = 50_000
"""Requests in flight in this process, beyond which watermarks (which no session counts) are refused."""

Rest = (
    f.GetOffers | f.GetDistances | f.GetZone | f.GetClock | f.GetBalance | f.GetBooks | f.GetStatement | f.Pay | f.CreateOffer | f.EndOffer
    | f.Search | f.ResolveAnchors | f.AnchorsNear | f.RemoveAnchors | f.SceneSync | f.TopUps | f.SetBays | f.CountGates | f.Localise
)  # fmt: skip
"""Frames that may come by HTTP (`gateway.rest`)."""


class Dispatch:
    """`audit`: acts of operators are noted there, with what came of them. `answers`: of tenants; without any nobody is asked for consent."""

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
        answers: Answers | None = None,
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
        self._reads = StaleReads(system, clock, metrics)
        self._ticks = Ticks(system, clock)
        self._asker = Asker(system, self._reads)
        self._places = PlaceDesk(self._asker, venues)
        self._ar = ArDesk(self._asker, venues, hub, clock, localiser)
        self._feed = FeedDesk(self._asker, system, venues, hub, metrics, tee, self._enter)
        self.consents = ConsentDesk(
            answers=answers or Answers(), system=system, asker=self._asker, hub=hub, moves=self._moves, observes=self._observes, audit=audit
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._soon: set[_Answering] = set()
        self._gathering: _Reads | None = None
        self._reading: set[_Reads] = set()
        self._frames_in: dict[type[f.ClientFrame], Counter] = {}
        self._settled = asyncio.Event()
        self.in_flight = 0

    def handle(self, peer: Peer, frame: f.ClientFrame) -> None:
        """Take a permitted frame; the answer comes by `peer.send`, at once or later."""
        self._take(peer, frame, self._clock.monotonic_s())

    def handle_all(self, peer: Peer, frames: Sequence[f.ClientFrame]) -> None:
        """Likewise all frames of a message."""
        started = self._clock.monotonic_s()
        for frame in frames:
            self._take(peer, frame, started)

    def _take(self, peer: Peer, frame: f.ClientFrame, started: float) -> None:
        counter = self._frames_in.get(type(frame)) or self._frames_in_of(frame)
        counter.n += 1
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
                self._spawn(self._feed.watermark(peer, frame))
            case f.WalkIn():
                self._request(peer, frame.seq, self._walk_in(peer, frame), started)
            case (
                f.FindStores() | f.Search() | f.GetRoute() | f.GetIsochrone() | f.GetDistances() | f.GetAccess() | f.Explain() | f.Measure() | f.GetHeat() | f.GetEdits()
                | f.CompareParking() | f.GetZones()
            ):  # fmt: skip
                self._request(peer, frame.seq, self._places.answer(peer, frame), started)
            case (
                f.SetAccess() | f.DrawZone() | f.EraseZone() | f.SetTraits() | f.EditVenue() | f.UndoEdit() | f.RedoEdit() | f.CountGates() | f.Recount()
                | f.CreateOffer() | f.EndOffer() | f.SetBays()
            ):  # fmt: skip
                self._request(peer, frame.seq, self._noted(peer, frame, self._places.answer(peer, frame)), started)
            case f.GetClock():
                self._request(peer, frame.seq, self._clock_of(peer, frame), started)
            case f.GetConsent() | f.GiveConsent() | f.WithdrawConsent():
                self._request(peer, frame.seq, self.consents.answer(peer, frame), started)
            case f.GetMembers():
                self._request(peer, frame.seq, self._hub.presence.answer(peer, frame), started)
            case (
                f.HostAnchor() | f.ResolveAnchors() | f.AnchorsNear() | f.ObserveAnchor() | f.RemoveAnchors() | f.CarryAnchors()
                | f.GetAnchorGraph() | f.RefineAnchors() | f.SceneSync()
            ):  # fmt: skip
                self._request(peer, frame.seq, self._ar.answer(peer, frame), started)
            case f.SceneApply():
                self._request(peer, frame.seq, self._ar.edit_scene(peer, frame), started)
            case f.ScenePresence():
                self._request(peer, frame.seq, self._ar.present(peer, frame), started)
            case f.Localise():
                self._request(peer, frame.seq, self._ar.localise(peer, frame), started)
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
                self._request(peer, frame.seq, self._feed.source(peer, frame), started)
            case f.Columns():
                self._request(peer, frame.seq, self._feed.columns(peer, frame), started)
            case f.TopUps():
                self._request(peer, frame.seq, self._noted(peer, frame, self._feed.top_ups(peer, frame)), started)
            case f.Payments():
                self._request(peer, frame.seq, self._feed.payments(peer, frame), started)
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
                return await self._ar.localise(caller, frame)
            case f.Search():
                return await self._places.answer(caller, frame)
            case f.GetDistances():
                return await self._places.answer(caller, frame)
            case f.CreateOffer() | f.EndOffer() | f.SetBays() | f.CountGates():
                return await self._noted(caller, frame, self._places.answer(caller, frame))
            case f.ResolveAnchors() | f.AnchorsNear() | f.RemoveAnchors() | f.SceneSync():
                return await self._ar.answer(caller, frame)
            case f.TopUps():
                return await self._noted(caller, frame, self._feed.top_ups(caller, frame))
            case _:
                assert_never(frame)

    async def stop(self, timeout_s: float = 2.0) -> None:
        """Wait a while for what is in flight, then give up."""
        if self._tasks:
            _, late = await asyncio.wait(list(self._tasks), timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self.consents.stop()
        await self._moves.stop(timeout_s)
        await self._pays.stop(timeout_s)
        await self._observes.stop(timeout_s)
        if self._gathering is not None:
            self._send_reads()
        if self._soon or self._reading:
            self._settled.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._settled.wait()
        self._reads.stop()
        self._ticks.stop()
        gone = Unavailable("the gateway stops: send again with the same key elsewhere")
        for answering in list(self._soon):
            answering(gone)
        for reads in list(self._reading):
            left = reads.left()
            reads(left, [gone] * len(left))
        self._places.stop()

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

    def _answer_soon(self, peer: Peer, frame: ReadFrame | f.Pay, started: float, made: Callable[[Any, Any], f.ServerFrame]) -> _Answering:
        """What answers the frame when it is called with an outcome: a request under way without a task."""
        self.in_flight += 1
        answering = _Answering(self, peer, frame, started, made)
        self._soon.add(answering)
        return answering

    def answered(self, answering: _Answering, outcome: Any) -> None:
        """`outcome` is what the frame's answer is made of, or what was raised in its place."""
        soon = self._soon
        if answering not in soon:
            return  # it had its answer when the gateway stopped
        soon.discard(answering)
        if not soon and not self._reading:
            self._settled.set()
        self._finish(answering.peer, _reply(answering.frame, answering.made, outcome), answering.started)

    def _send_reads(self) -> None:
        """What this turn of the loop has gathered goes together."""
        reads, self._gathering = self._gathering, None
        if reads is not None:
            self._reading.add(reads)
            self._system.ask_each_soon(reads.asks, reads)

    def reads_answered(self, reads: _Reads, places: Sequence[int], outcomes: Sequence[Any]) -> None:
        """As `answered`, of reads that went together, by their places among them."""
        if reads not in self._reading:
            return  # they had their answers when the gateway stopped
        now, observe = self._clock.monotonic_s(), self._metrics.observe
        self.in_flight -= len(places)
        for (peer, frame, made, started), outcome in zip(reads.take(places), outcomes, strict=True):
            peer.session.answered()
            peer.send(_reply(frame, made, outcome))
            observe(now - started)
        if not reads.open:
            self._reading.discard(reads)
            if not self._soon and not self._reading:
                self._settled.set()

    def _read_soon(self, peer: Peer, frame: ReadFrame, started: float) -> None:
        """A read of one entity, of which all else is at hand: no task for it."""
        identity, kind, facts, tick = peer.identity, type(frame), None, None
        at_hand = not tracing.on()
        if at_hand and not isinstance(frame, f.GetBalance):
            facts = self._venues.cached(identity.tenant, frame.venue, started)
            if facts is None:
                at_hand = False
            elif kind is f.GetOffers:
                tick = self._tick_at_hand(facts)
                at_hand = tick is not None
        if not at_hand:
            self._request(peer, frame.seq, self._read_frame(peer, frame), started)
            return
        try:
            plan = read_plan(identity, frame, facts, tick)
        except EsplanadeError as error:
            self.in_flight += 1
            self._finish(peer, error_frame(error, frame.seq), started)
            return
        if frame.stale_ms:
            self._reads.ask_soon(plan.address, plan.command, self._answer_soon(peer, frame, started, plan.made), stale_ms=frame.stale_ms)
            return
        self.in_flight += 1
        reads = self._gathering
        if reads is None:
            reads = self._gathering = _Reads(self)
            asyncio.get_running_loop().call_soon(self._send_reads)
        if reads.add(peer, frame, plan, started) >= MAX_FRAME_REQUESTS:
            self._send_reads()

    async def _read_frame(self, peer: Caller, frame: ReadFrame) -> f.ServerFrame:
        identity = peer.identity
        facts = None if isinstance(frame, f.GetBalance) else await self._venues.get(identity.tenant, frame.venue)
        tick = await self._tick(facts.tenant, facts.venue) if facts is not None and isinstance(frame, f.GetOffers) else None
        plan = read_plan(identity, frame, facts, tick)
        return plan.made(frame, await self._reads.ask(plan.address, plan.command, stale_ms=frame.stale_ms))

    # --- shoppers ---

    async def _walk_in(self, peer: Peer, frame: f.WalkIn) -> f.ServerFrame:
        identity = peer.identity
        await self._enter(peer, frame.venue)
        address = Address("session", identity.tenant, str(identity.subject))
        reply = await self._asker.ask(peer, address, m.ScanQr(venue=frame.venue, location=frame.location), m.WalkedIn, frame.seq, frame.key)
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
            if isinstance(frame, f.Move):
                self.consents.check(peer)
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
        facts = None if tracing.on() else self._venues.cached(identity.tenant, frame.venue, started)
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
            self.consents.check(peer)
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

    async def _clock_of(self, peer: Caller, frame: f.GetClock) -> f.ServerFrame:
        facts = await self._venues.get(peer.identity.tenant, frame.venue)
        return clock_state(frame.seq, await self._system.clock(facts.tenant, facts.venue))

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

    async def _books(self, peer: Caller, frame: f.GetBooks) -> f.ServerFrame:
        tenant = peer.identity.tenant
        parts = await asyncio.gather(
            *(self._asker.read(Address("ledger", tenant, str(i)), m.GetBooks(), m.Books, frame.stale_ms) for i in range(m.LEDGERS))
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


_Row = tuple[Peer, ReadFrame, Callable[[Any, Any], f.ServerFrame], float]


class _Reads:
    """Reads that go to the system together; called with the outcomes of some of them, by place."""

    __slots__ = ("_dispatch", "_rows", "asks", "open")

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch
        self._rows: list[_Row | None] = []  # None: answered
        self.asks: list[tuple[Address, m.Command]] = []
        self.open = 0

    def add(self, peer: Peer, frame: ReadFrame, plan: Plan, started: float) -> int:
        """How many there are now."""
        address, command, made = plan
        self.asks.append((address, command))
        self._rows.append((peer, frame, made, started))
        self.open += 1
        return self.open

    def take(self, places: Sequence[int]) -> list[_Row]:
        """Those that are answered now."""
        rows = self._rows
        found = [row for row in (rows if len(places) == len(rows) else [rows[place] for place in places]) if row is not None]
        self.open -= len(found)
        if self.open:
            for place in places:
                rows[place] = None
        return found

    def left(self) -> list[int]:
        """Places of those that are not."""
        return [place for place, row in enumerate(self._rows) if row is not None]

    def __call__(self, places: Sequence[int], outcomes: Sequence[Any]) -> None:
        self._dispatch.reads_answered(self, places, outcomes)


def _reply(frame: ReadFrame | f.Pay, made: Callable[[Any, Any], f.ServerFrame], outcome: Any) -> f.ServerFrame:
    """The answer that an outcome is, or that what was raised in its place is."""
    try:
        return error_frame(outcome, frame.seq) if isinstance(outcome, EsplanadeError) else made(frame, outcome)
    except EsplanadeError as error:
        return error_frame(error, frame.seq)
    except Exception:
        _log.exception("request_failed", extra={"seq": frame.seq})
        return f.Error(code="fault", message="the request failed inside the server; it is logged, and nothing you can mend", seq=frame.seq)


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


def _summed(parts: list[dict[str, int]]) -> dict[str, int]:
    out: dict[str, int] = {}
    for part in parts:
        for currency, amount in part.items():
            out[currency] = out.get(currency, 0) + amount
    return out
