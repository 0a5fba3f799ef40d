"""The WebSocket server: sockets, and nothing that could be decided without one.

A thin shell around `Session` (rules), `Hub` (publications) and `Dispatch` (requests). Writes never wait: frames of one loop turn leave as one message,
made once for all connections that get the same, and a reader whose unsent bytes pass its role's limit is disconnected.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import logging
import math
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, assert_never, cast
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode as WsClose
from websockets.protocol import State

from actors.localiser import Localiser
from actors.system import System
from esplanade.core.clock import SystemClock
from esplanade.core.errors import EsplanadeError, Forbidden, LimitExceeded, NotFound, SecondFactorNeeded, Unauthenticated, Unavailable
from esplanade.storage.audit import NO_TENANT, AuditLog
from esplanade.storage.broker import Broker
from esplanade.storage.catalogue import Catalogue
from esplanade.storage.journal import Journal
from gateway import frames as f
from gateway.acts import who_is
from gateway.admission import PER_ADDRESS_MIN, AddressMeter, Allowance, PersonMeters, Returns, TenantMeters
from gateway.answers import Answers
from gateway.audit_trail import AuditTrail
from gateway.auth import Identity, Issuer, Verifier
from gateway.batching import Tee
from gateway.codec import FORMATS, Codec
from gateway.codes import CloseCode
from gateway.credentials import Credentials
from gateway.dispatch import Dispatch, error_frame
from gateway.door import SOCKET_SLACK, DirectConnection, Door
from gateway.handshake import Asked, Refusal
from gateway.hub import Hub
from gateway.hub import Peer as HubPeer
from gateway.limits import TokenBucket
from gateway.metrics import METRICS_PREFIX, METRICS_TTL_S, GatewayMetrics, GaugeName
from gateway.outbound import Wire, wire_of
from gateway.permissions import outside
from gateway.session import Action, Authenticate, Close, Join, Looked, Part, Probe, Request, Requests, Send, Session, Verify
from gateway.tls import Certificate
from gateway.venues import VenueCache

_log = logging.getLogger("esplanade.gateway.server")

POLL_S: Final = 1.0
STALL_S: Final = 0.1
"""A look at the deadlines that comes so much late says that nobody was listened to meanwhile."""
MAX_JOINING: Final = 256
"""Hellos that wait for their answer at once. Beyond, nobody is let in: with a journal that answers slowly all would be late, and come again."""
JOINS_PER_S: Final = 250.0
"""How many of those who must come again are told to come within a second: a part of what a core can take (docs/performance.md)."""
LOCAL_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
PATHS: Final = frozenset({"/", "/v1/ws"})
REFUSALS: Final = frozenset({Forbidden.code, SecondFactorNeeded.code})
PEOPLE: Final = frozenset({"guest", "shopper"})
"""Roles of one person with a few devices: their connections share a rate."""


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """process: this process's name in metrics and logs. allowed_origins: beyond the server's own host (scheme://host[:port]).

    drain_spread_s: clients are told to come back at moments spread over this time. per_address_min: attempts a minute, from one address, of people who are not known.
    """

    process: str = "gateway"
    max_connections: int = 10_000
    guests: bool = True
    guests_per_s: float = 200.0
    per_address_min: int = PER_ADDRESS_MIN
    guest_ttl_s: float = 24 * 3600.0
    allowed_origins: tuple[str, ...] = ()
    open_timeout_s: float = 10.0
    close_timeout_s: float = 2.0
    drain_spread_s: float = 5.0
    known_tenants_s: float = 30.0


class Connection:
    """A WebSocket with its session; the `Peer` of hub and dispatch."""

    __slots__ = ("_abandoned_seen", "_resent_seen", "_server", "_ws", "allowance", "queued", "queued_bytes", "session", "vain")

    def __init__(self, server: GatewayServer, ws: DirectConnection, session: Session) -> None:
        self.session = session
        self.allowance: Allowance | None = None
        self.vain = True
        """Whether this attempt counts against its address: nobody was known, and no answer is owed."""
        self.queued: list[bytes] = []
        self.queued_bytes = 0
        self._server = server
        self._ws = ws
        ws.take, ws.gone = self._take, self._gone
        self._abandoned_seen = 0
        self._resent_seen = 0

    @property
    def identity(self) -> Identity:
        assert self.session.identity is not None
        return self.session.identity

    @property
    def origin(self) -> str:
        """The address that the socket's other end has."""
        return self._ws.address

    # --- out ---

    def send(self, frame: f.ServerFrame) -> None:
        if isinstance(frame, f.Error):
            self._server.metrics.count("esplanade_gateway_errors_total", label=frame.code)
            if frame.code in REFUSALS and self.session.identity is not None:
                self._server.note_refusal(self.identity.tenant, who_is(self.identity), "frame", self.origin, frame.code, frame.message)
        self.write(self.session.codec.encode(frame))

    def write(self, encoded: bytes) -> None:
        if not self.queued:
            self._server.wake(self)
        self.queued.append(encoded)
        self.queued_bytes += len(encoded)

    def backlog(self) -> int:
        return self._ws.transport.get_write_buffer_size() + self.queued_bytes

    def flush(self) -> None:
        """Write what is queued, frames joined; disconnect a reader that is too far behind."""
        frames = self.queued
        if not frames:
            return
        self.queued, self.queued_bytes = [], 0
        wire = wire_of(frames, self.session.codec) if len(frames) == 1 else self._server.joined(frames, self.session.codec)
        if self.transmit(wire.data):
            self._server.count_out(wire)

    def transmit(self, data: bytes) -> bool:
        """Whether whole messages went out, or into the transport's buffer behind what is there. A reader that is too far behind is disconnected.

        Past the library, whose own way costs more than the system call: under its conditions, an open connection and no message half sent (no message is sent by the library
        here, so none is). A transport that is not paused holds less than any role's limit.
        """
        ws = self._ws
        protocol = ws.protocol
        if (ws.paused and self.is_behind()) or protocol.state is not State.OPEN or protocol.eof_sent:
            return False
        ws.transport.write(data)
        return True

    def is_behind(self) -> bool:
        """Whether more bytes are unsent than its role may have; the session is ended then."""
        behind = self._ws.transport.get_write_buffer_size()
        limit = self.session.limits.high_bytes
        if behind <= limit or self.session.state == "closed":
            return False
        message = f"{behind} bytes unsent, at most {limit}: read faster, or ask for lower rates"
        self.perform(self.session.end(CloseCode.SLOW, message, code="limit"))
        return True

    # --- what the session says ---

    def perform(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Request():
                    self._server.dispatch.handle(self, action.frame)
                case Requests():
                    self._server.dispatch.handle_all(self, action.frames)
                case Send():
                    self.send(action.frame)
                case Join():
                    self._server.spawn(self._join(action))
                case Part():
                    self._server.hub.part(self, action.topic)
                    self.send(f.Done(seq=action.seq))
                case Looked():
                    self._server.hub.saw(self, action.topic, action.number)
                case Verify():
                    self._server.spawn(self._renew(action))
                case Probe():
                    self._server.spawn(self._probe())
                case Close():
                    self.flush()
                    self._server.hub.drop(self)
                    self._server.spawn(self._close(action))
                case Authenticate():
                    self._server.join(self, action.hello)
                case _:
                    assert_never(action)

    async def _join(self, action: Join) -> None:
        tenant = self.identity.tenant
        try:
            if action.name.venue is not None:
                facts = await self._server.venues.get(tenant, action.name.venue)
                if action.name.level is not None:
                    facts.check_level(action.name.level)
            joined = await self._server.hub.join(
                self,
                tenant=tenant,
                topic=action.topic,
                name=action.name,
                rate_hz=action.rate_hz,
                view=action.view,
                bytes_per_s=action.bytes_per_s,
                resume=action.resume,
                where=action.where,
                policy=action.policy,
            )
        except EsplanadeError as error:
            self.session.topics.pop(action.topic, None)
            self.send(error_frame(error, action.seq))
            return
        if self.session.state == "closed":
            self._server.hub.drop(self)
        elif action.topic not in self.session.topics:  # unsubscribed meanwhile
            self._server.hub.part(self, action.topic)
            self.send(f.Subscribed(seq=action.seq, topic=action.topic))
        else:
            # No await since the hub took it in: what was missed goes out before anything that is published from now on.
            self.send(
                f.Subscribed(
                    seq=action.seq,
                    topic=action.topic,
                    place=joined.place if joined.missed is None else action.resume,
                    resumed=joined.missed is not None,
                )
            )
            for frame in joined.missed or ():
                self.send(frame)
            if joined.missed is None:
                self._server.hub.latest(self, action.topic)

    async def _renew(self, action: Verify) -> None:
        try:
            identity = await self._server.credentials.identify(action.token)
        except EsplanadeError as error:
            if isinstance(error, Unauthenticated):
                self._server.note_refusal(self.identity.tenant, who_is(self.identity), "renew", self.origin, error.code, error.message)
            self.send(error_frame(error, action.seq))
        else:
            self.perform(self.session.renew(identity, action.seq))
        self.session.answered()

    async def _probe(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            await (await self._ws.ping())
            self.session.heard(self._server.clock.monotonic_s())

    async def _close(self, action: Close) -> None:
        self._server.metrics.count("esplanade_gateway_disconnects_total", label=str(int(action.code)))
        reason = action.reason.encode()[:120].decode("utf-8", "ignore")
        await self._ws.close(int(action.code), reason)

    # --- in ---

    def _gone(self) -> None:
        """The socket is closed."""
        server, session = self._server, self.session
        if self.vain:
            server.addresses.charge(self.origin, server.clock.monotonic_s())
        if session.state != "closed":
            server.metrics.count("esplanade_gateway_disconnects_total", label=str(self._ws.close_code or 1006))
        session.lost()
        server.hub.drop(self)
        if self.allowance is not None:
            self.allowance.connections -= 1
            self.allowance = None
        server.left(self)

    def _take(self, data: bytes, text: bool) -> None:
        if self.session.state == "closed":
            return
        server = self._server
        server.messages_in.n += 1
        server.bytes_in.n += len(data)
        try:
            message = data.decode() if text else data
        except UnicodeDecodeError:  # as RFC 6455 has it, section 8.1
            server.metrics.count("esplanade_gateway_disconnects_total", label=str(int(WsClose.INVALID_DATA)))
            self.session.lost()
            server.spawn(self._ws.close(WsClose.INVALID_DATA, "text that is not UTF-8"))
            return
        try:
            self.perform(self.session.receive(message, server.clock.monotonic_s()))
        except Exception:
            _log.exception("message_failed")
            self.perform(self.session.end(CloseCode.FAULT, "a message failed inside the server; it is logged", code="fault", retry_after_s=1.0))

    def poll(self, now: float, unix_s: float, stalled_s: float) -> None:
        session = self.session
        self.perform(session.poll(now, unix_s, stalled_s=stalled_s, later=self._server.returns.later))
        if session.resent != self._resent_seen:
            self._server.metrics.count("esplanade_gateway_pushes_resent_total", session.resent - self._resent_seen)
            self._resent_seen = session.resent
        if session.abandoned != self._abandoned_seen:
            self._server.metrics.count("esplanade_gateway_pushes_abandoned_total", session.abandoned - self._abandoned_seen)
            self._abandoned_seen = session.abandoned

    async def close(self, code: int) -> None:
        """Close the WebSocket; returns when the socket is."""
        with contextlib.suppress(ConnectionClosed):
            await self._ws.close(code)

    def raise_message_limit(self) -> None:
        """Before welcome a message may be as large as a guest's; afterwards as the role's."""
        self._ws.protocol.max_message_size = SOCKET_SLACK * self.session.limits.message_bytes


class GatewayServer:
    """One gateway process. `tee` gets every row that a position host took; `audit` (with `audit_run`, 8 random bytes) what operators did and who was refused."""

    def __init__(
        self,
        system: System,
        journal: Journal,
        broker: Broker,
        catalogue: Catalogue,
        verifier: Verifier,
        signer: Issuer,
        clock: SystemClock,
        settings: GatewaySettings | None = None,
        tee: Tee | None = None,
        audit: AuditLog | None = None,
        audit_run: bytes = b"",
        *,
        metrics: GatewayMetrics | None = None,
        credentials: Credentials | None = None,
        meters: TenantMeters | None = None,
        certificate: Certificate | None = None,
        localiser: Localiser | None = None,
        answers: Answers | None = None,
    ) -> None:
        self.clock = clock
        self.metrics = metrics or GatewayMetrics()
        self.credentials = credentials or Credentials(verifier, clock, self.metrics)
        self.audit = AuditTrail(audit, clock, self.metrics, run=audit_run) if audit is not None else None
        self.settings = settings or GatewaySettings()
        self.venues = VenueCache(catalogue, clock)
        self.hub = Hub(
            system=system, journal=journal, broker=broker, clock=clock, metrics=self.metrics, to_all=self._to_all, name=f"{self.settings.process}.{audit_run.hex()}"
        )  # fmt: skip
        self.dispatch = Dispatch(
            system=system,
            venues=self.venues,
            hub=self.hub,
            journal=journal,
            clock=clock,
            metrics=self.metrics,
            tee=tee,
            audit=self.audit,
            localiser=localiser,
            answers=answers,
        )
        self.messages_in = self.metrics.counter("esplanade_gateway_messages_in_total")
        self.bytes_in = self.metrics.counter("esplanade_gateway_bytes_in_total")
        self._messages_out = self.metrics.counter("esplanade_gateway_messages_out_total")
        self._bytes_out = self.metrics.counter("esplanade_gateway_bytes_out_total")
        self._frames_out = self.metrics.counter("esplanade_gateway_frames_out_total")
        self._broker = broker
        self._catalogue = catalogue
        self._signer = signer
        self._meters = meters
        self._certificate = certificate
        self._connections: set[Connection] = set()
        self._woken: list[Connection] = []
        self._joined: tuple[list[bytes], Codec, Wire] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._door: Door | None = None
        self._joining = 0
        self.returns = Returns(JOINS_PER_S)
        self._guest_returns = Returns(self.settings.guests_per_s)
        self._sessions = 0
        self._draining = False
        self._empty = asyncio.Event()
        self._empty.set()
        self._loopback = False
        self._guests = TokenBucket(self.settings.guests_per_s, self.settings.guests_per_s, clock.monotonic_s())
        self._tenants: tuple[float, frozenset[str]] = (0.0, frozenset())
        self.addresses = AddressMeter(self.settings.per_address_min)
        self._persons = PersonMeters()
        self.credentials.listeners.append(self._revoked)

    # --- life ---

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listen; returns the port (a free one, where 0 was asked). Other gateways of the same user may listen on it too, and take over what comes while this one goes."""
        self._loopback = host in LOCAL_NAMES
        await self.credentials.start()
        if self._meters is not None:
            self._meters.start()
        if self._certificate is not None:
            self._certificate.watch()
        self._door = Door(
            self,
            self.returns,
            now=self.clock.monotonic_s,
            open_timeout_s=self.settings.open_timeout_s,
            close_timeout_s=self.settings.close_timeout_s,
            context=None if self._certificate is None else self._certificate.context,
        )
        at = await self._door.start(host, port)
        await self.hub.start()
        if self.audit is not None:
            self.audit.start()
        self.spawn(self._poll(self._door))
        self.spawn(self._report())
        return at

    async def stop(self) -> None:
        """Drain, close every connection, and leave nothing running."""
        await self.drain()
        if self._door is not None:
            await self._door.stop()
        await asyncio.gather(*(connection.close(WsClose.GOING_AWAY) for connection in list(self._connections)))
        await self.dispatch.stop()
        if self.audit is not None:
            await self.audit.stop()
        await self.hub.stop()
        await self.credentials.stop()
        if self._meters is not None:
            await self._meters.stop()
        if self._certificate is not None:
            await self._certificate.stop()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def drain(self) -> None:
        """Listen no more; tell every client to come back elsewhere, at moments spread over `drain_spread_s`; wait until they are closed."""
        self._draining = True
        if self._door is not None:
            self._door.shut()
        connections = list(self._connections)
        for i, connection in enumerate(connections):
            retry = self.settings.drain_spread_s * (i + 1) / len(connections)
            connection.perform(
                connection.session.end(CloseCode.DRAINING, "this gateway is going away: reconnect", code="unavailable", retry_after_s=retry)
            )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settings.close_timeout_s + 1.0):
                await self._empty.wait()

    def _revoked(self, is_revoked: Callable[[Identity], bool]) -> None:
        """Something was revoked: end the connections that were opened with it."""
        message = "what this session was opened with was revoked: sign in again"
        for connection in list(self._connections):
            identity = connection.session.identity
            if identity is not None and is_revoked(identity):
                connection.perform(connection.session.end(CloseCode.REVOKED, message, code="unauthenticated"))

    def note_refusal(self, tenant: str, who: str, what: str, origin: str, code: str, why: str) -> None:
        if self.audit is not None:
            self.audit.refused(tenant=tenant, who=who, what=what, target=self.settings.process, origin=origin, outcome=code, why=why)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("gateway_task_failed", exc_info=task.exception())

    @property
    def connections(self) -> int:
        return len(self._connections)

    # --- out ---

    def wake(self, connection: Connection) -> None:
        """It has something to write: at the end of this turn of the loop."""
        if not self._woken:
            asyncio.get_running_loop().call_soon(self._flush_woken)
        self._woken.append(connection)

    def _flush_woken(self) -> None:
        woken, self._woken = self._woken, []
        for connection in woken:
            connection.flush()
        self._joined = None

    def joined(self, frames: list[bytes], codec: Codec) -> Wire:
        """The messages of these frames; not made again where the connection before had the same ones."""
        if self._joined is None or self._joined[1] is not codec or self._joined[0] != frames:
            self._joined = (frames, codec, wire_of(frames, codec))
        return self._joined[2]

    def _to_all(self, peers: Collection[HubPeer], frames: list[bytes], codec: Codec) -> None:
        """The hub's `ToAll`. The system call is most of the cost, so nothing else may be: what is queued for a connection goes first, with these behind it."""
        wire = wire_of(frames, codec)
        data, written = wire.data, 0
        for connection in cast("Collection[Connection]", peers):  # the hub knows no others here
            if connection.queued:
                for frame in frames:
                    connection.write(frame)
            else:
                written += connection.transmit(data)
        self.count_out(wire, written)

    def count_out(self, wire: Wire, times: int = 1) -> None:
        self._frames_out.n += wire.frames * times
        self._messages_out.n += wire.messages * times
        self._bytes_out.n += wire.payload_bytes * times

    # --- connections ---

    def check(self, asked: Asked, address: str) -> Refusal | None:
        """Refuse a handshake before it costs anything."""
        refusal = self._refusal(asked, address)
        if refusal is not None:
            self.turned_away(refusal.reason)
        return refusal

    def _refusal(self, asked: Asked, address: str) -> Refusal | None:
        if asked.path.partition("?")[0] not in PATHS:
            return Refusal(http.HTTPStatus.NOT_FOUND, "path", "no WebSocket here; connect to /v1/ws\n")
        origin = asked.origin
        if origin is not None and not self._origin_allowed(origin, asked.host):
            return Refusal(http.HTTPStatus.FORBIDDEN, "origin", f"origin {origin[:200]} is not allowed; add it to allowed_origins\n")
        now = self.clock.monotonic_s()
        if address and not self.addresses.open(address, now):
            self.metrics.count("esplanade_gateway_quota_refusals_total", label="address")
            text = f"more than {self.settings.per_address_min} attempts a minute from this address; come back later\n"
            return Refusal(http.HTTPStatus.TOO_MANY_REQUESTS, "address", text, 60)
        if self._draining:
            text = "this gateway is going away; reconnect\n"
            return Refusal(http.HTTPStatus.SERVICE_UNAVAILABLE, "draining", text, math.ceil(self.returns.later(now)))
        if len(self._connections) >= self.settings.max_connections:
            text = f"{len(self._connections)} connections, at most {self.settings.max_connections}; reconnect later\n"
            return Refusal(http.HTTPStatus.SERVICE_UNAVAILABLE, "full", text, math.ceil(self.returns.later(now)))
        return None

    def turned_away(self, reason: str) -> None:
        self.metrics.count("esplanade_gateway_refused_connections_total", label=reason)

    def has_room(self) -> bool:
        return self._joining < MAX_JOINING

    def _origin_allowed(self, origin: str, host: str) -> bool:
        """Our own host, or a configured one. On loopback only local names: a foreign name that resolves here is DNS rebinding."""
        if origin in self.settings.allowed_origins:
            return True
        name = urlsplit(origin).hostname
        if name in LOCAL_NAMES:
            return self._loopback
        return not self._loopback and name is not None and name == urlsplit(f"//{host}").hostname

    def enter(self, ws: DirectConnection) -> None:
        """A handshake is done; the session begins."""
        self._sessions += 1
        session = Session(f"{self.settings.process}-{self._sessions}", FORMATS[str(ws.subprotocol)], self.clock.monotonic_s())
        self._connections.add(Connection(self, ws, session))
        self._empty.clear()

    def left(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    def join(self, connection: Connection, hello: f.Hello) -> None:
        """Answer a hello."""
        self._joining += 1
        connection.vain = False
        self.spawn(self._join(connection, hello))

    async def _join(self, connection: Connection, hello: f.Hello) -> None:
        try:
            await self._admit(connection, hello)
        finally:
            self._joining -= 1
            if self._door is not None and self.has_room():
                self._door.open_again()

    async def _admit(self, connection: Connection, hello: f.Hello) -> None:
        """Check the hello; answer Welcome (and the pushes missed), or close."""
        session = connection.session
        token: str | None = None
        try:
            if hello.token is not None:
                identity = await self.credentials.identify(hello.token)
            elif hello.guest_of is not None:
                identity, token = await self._guest(hello.guest_of, connection.origin)
            else:
                raise Unauthenticated("hello has neither token nor guest_of: give one of them")
            why = None if identity.scope is None else outside(identity.scope, hello)
            if why is not None:
                raise Forbidden(f"hello: {why}")
            allowance = await self._allowance(identity.tenant)
            standing = await self.dispatch.consents.standing(identity)
            history = None
            if hello.venue is not None:
                await self.venues.get(identity.tenant, hello.venue)
                history = await self.hub.attach(
                    connection,
                    tenant=identity.tenant,
                    venue=hello.venue,
                    subject=identity.subject,
                    feed=identity.role == "feed",
                    source=identity.source,
                    client=hello.client,
                    resume=hello.resume,
                )
        except EsplanadeError as error:
            if isinstance(error, Unauthenticated | Forbidden):
                self.note_refusal(hello.guest_of or NO_TENANT, "unknown", "hello", connection.origin, error.code, error.message)
            returns = self.returns if hello.token is not None else self._guest_returns
            later_s = returns.later(self.clock.monotonic_s()) if error.retryable else 0.0
            if not error.retryable:
                if connection in self._connections:
                    connection.vain = True
                else:  # gone before it was told
                    self.addresses.charge(connection.origin, self.clock.monotonic_s())
            connection.perform(session.end(_close_code(error), error.message, code=error.code, retry_after_s=later_s))
            self.hub.drop(connection)
            return
        except Exception:
            _log.exception("hello_failed")
            connection.perform(session.end(CloseCode.FAULT, "hello failed inside the server; it is logged", code="fault", retry_after_s=1.0))
            self.hub.drop(connection)
            return
        # No await from attach to here: nothing published in between can be missed.
        resumed = hello.resume is not None and history is not None
        now = self.clock.monotonic_s()
        person = self._persons.of(identity.tenant, identity.subject, identity.role, now) if identity.role in PEOPLE else None
        if self.credentials.is_revoked(identity):  # while the hello was answered
            connection.perform(session.end(CloseCode.REVOKED, "this token was just revoked: sign in again", code="unauthenticated"))
            self.hub.drop(connection)
            return
        actions = session.admit(
            identity, now=now, now_ms=self.clock.unix_ms(), token=token, resumed=resumed, person=person, allowance=allowance, standing=standing
        )  # fmt: skip
        if not actions:  # closed meanwhile
            self.hub.drop(connection)
            return
        if allowance is not None:
            connection.allowance = allowance
            allowance.connections += 1
        connection.raise_message_limit()
        connection.perform(actions[:1])
        if hello.venue is not None and history:
            self.hub.replay(connection, hello.venue, history)
        connection.perform(actions[1:])

    async def _allowance(self, tenant: str) -> Allowance | None:
        """What the tenant's plan still allows; None where there is no plan. Raises LimitExceeded where it has as many connections here as it may."""
        allowance = None if self._meters is None else await self._meters.of(tenant)
        if allowance is not None and allowance.connections >= allowance.plan.connections:
            self.metrics.count("esplanade_gateway_quota_refusals_total", label="tenant")
            raise LimitExceeded(f"{allowance.connections} connections of this tenant: its plan allows {allowance.plan.connections}; come back later")
        return allowance

    async def _guest(self, tenant: str, origin: str) -> tuple[Identity, str]:
        now = self.clock.monotonic_s()
        self.addresses.charge(origin, now)
        if not self.settings.guests:
            raise Unauthenticated("guests are not allowed here: sign in and present a token")
        if self._tenants[0] < now or tenant not in self._tenants[1]:
            if not self._guests.take(now):
                raise LimitExceeded("too many guests at once: come back in a moment")
            self._tenants = (now + self.settings.known_tenants_s, frozenset(await self._catalogue.tenants()))
        elif not self._guests.take(now):
            raise LimitExceeded("too many guests at once: come back in a moment")
        if tenant not in self._tenants[1]:
            raise NotFound(f"tenant {tenant!r}: there is none of this id")
        subject = await self._catalogue.next_subject(tenant)
        now_s = self.clock.unix_ms() / 1000
        token = self._signer.issue(subject, tenant, "guest", None, self.settings.guest_ttl_s, now_s)
        return self.credentials.verify(token), token

    # --- regular work ---

    async def _poll(self, door: Door) -> None:
        """Deadlines count the time of those who must meet them: while the server did nothing but catch up, nobody was late."""
        last = self.clock.monotonic_s()
        while True:
            await asyncio.sleep(POLL_S)
            now, unix_s = self.clock.monotonic_s(), self.clock.unix_ms() / 1000
            stalled_s = now - last - POLL_S if now - last - POLL_S > STALL_S else 0.0
            last = now
            door.poll(stalled_s)
            for i, connection in enumerate(list(self._connections)):
                connection.poll(now, unix_s, stalled_s)
                if i % 1000 == 999:
                    await asyncio.sleep(0)

    async def _report(self) -> None:
        while True:
            gauges: list[tuple[GaugeName, float]] = [
                ("esplanade_gateway_connections", len(self._connections)),
                ("esplanade_gateway_subscriptions", self.hub.subscriptions()),
                ("esplanade_gateway_requests_in_flight", self.dispatch.in_flight),
                ("esplanade_gateway_held_reads", self.dispatch.held_reads),
            ]
            snapshot = self.metrics.snapshot(self.settings.process, gauges)
            with contextlib.suppress(EsplanadeError):  # the broker is away: said again in a second
                await self._broker.put(f"{METRICS_PREFIX}{self.settings.process}", snapshot, ttl_s=METRICS_TTL_S)
            await asyncio.sleep(1.0)


def _close_code(error: EsplanadeError) -> CloseCode:
    if isinstance(error, Unauthenticated):
        return CloseCode.UNAUTHENTICATED
    if isinstance(error, Unavailable):
        return CloseCode.FAULT
    if isinstance(error, LimitExceeded):
        return CloseCode.FULL
    return CloseCode.REFUSED
