"""The HTTP side, a process of its own: health, metrics, venue documents, local sign-in, and the console's files.

Who may have what is asked of `gateway.permissions`, like every frame; the tenant is the token's.

Holds no state of the service and no socket of a client. Every dependency is passed in as an async check or a store.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import html
import re
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import msgspec
import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import CollectorRegistry
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from actors.localiser import Localiser
from actors.system import System
from esplanade.core.clock import SystemClock
from esplanade.core.errors import EsplanadeError, Forbidden, LimitExceeded, NotFound, Unauthenticated
from esplanade.storage.audit import NO_TENANT
from esplanade.storage.blobs import Blobs
from esplanade.storage.broker import Broker
from esplanade.storage.catalogue import Catalogue
from esplanade.storage.journal import Journal
from esplanade.storage.sealing import Random, Vault
from esplanade.storage.webhooks import WebhookStore
from gateway.admission import PER_ADDRESS_MIN, AddressMeter, TenantMeters
from gateway.assets import asset_routes
from gateway.audit_trail import AuditTrail
from gateway.auth import Identity, Issuer, Signer, Verifier
from gateway.credentials import Credentials
from gateway.dispatch import Dispatch
from gateway.graph import graph_routes
from gateway.hub import Hub
from gateway.metrics import METRICS_PREFIX, GatewayMetrics, Scrape, Snapshot
from gateway.openapi import complete
from gateway.outward import Outward
from gateway.packs import pack_routes
from gateway.partner_routes import Partners, partner_routes
from gateway.permissions import ROLES, Resource, permits
from gateway.rehearsals import Rehearsing, rehearsal_routes
from gateway.rest import Desk, Refusal, routes, tagged
from gateway.rest_users import SubjectKit, user_routes
from gateway.rest_ways import way_routes
from gateway.scene_routes import scene_routes
from gateway.streams import Streams, stream_routes
from gateway.tls import Certificate
from gateway.token_routes import STRANGERS, Doors, token_routes
from gateway.venues import VenueCache
from gateway.webhooks import WebhookCourier

Check = Callable[[], Awaitable[str | None]]
"""None when ready, else what is not ready and why."""

CHECK_S: Final = 2.0
"""A readiness check that takes longer counts as failed."""
LOCAL_TOKEN_TTL_S: Final = 12 * 3600.0
LOCAL_SUBJECT: Final = 2**29
"""Subject of the local operator; shoppers get fresh ones from the catalogue."""
MAX_CACHED_DOCUMENTS: Final = 32
GUARDED: Final = ("/v1/", "/.well-known/")
"""Where strangers are counts: not the console's files, nor what says that we live."""
LOCAL_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
STATUS: Final[dict[str, int]] = {
    "invalid": 422, "not_found": 404, "forbidden": 403, "second_factor": 403, "consent_needed": 403, "unauthenticated": 401, "conflict": 409, "limit": 429, "unavailable": 503, "fenced": 503,
}  # fmt: skip
_HASHED: Final = re.compile(r"-[A-Za-z0-9_-]{8,}\.[a-z0-9]+$")


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """ws_url: the gateway's address as browsers reach it. local_sign_in: only when embedded and on loopback. public_venues: all tenants' venues may be listed and
    read without a token. console: the built console, if there is one;
    console_missing: why not, for people. allowed_hosts: names the local sign-in accepts beside localhost."""

    ws_url: str
    local_sign_in: bool = False
    public_venues: bool = False
    console: Path | None = None
    console_missing: str = "it was not built"
    allowed_hosts: tuple[str, ...] = ()
    per_address_min: int = PER_ADDRESS_MIN


@dataclass(frozen=True, slots=True)
class PartnerKit:
    """private: webhooks may go to private addresses, and without TLS. random: the source of secrets and ids."""

    store: WebhookStore
    box: Vault
    random: Random
    private: bool = False


class LocalToken(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: Literal["operator", "shopper"]
    tenant: str = Field(min_length=1, max_length=128)


def build_api(
    *,
    catalogue: Catalogue,
    broker: Broker,
    signer: Signer | Issuer,
    clock: SystemClock,
    settings: ApiSettings,
    checks: Mapping[str, Check],
    profile: Callable[[], Awaitable[Sequence[dict[str, object]]]] | None = None,
    audit: AuditTrail | None = None,
    own_metrics: GatewayMetrics | None = None,
    system: System | None = None,
    journal: Journal | None = None,
    doors: Doors | None = None,
    meters: TenantMeters | None = None,
    partners: PartnerKit | None = None,
    scenarios: Callable[[], Sequence[dict[str, Any]]] = list,
    rehearsing: Rehearsing | None = None,
    subjects: SubjectKit | None = None,
    localiser: Localiser | None = None,
    blobs: Blobs | None = None,
) -> FastAPI:
    """The application. `checks`: by the name that /readyz says (postgres, redis, shards, gateways). `profile`: `System.profile`, for /metrics.

    `audit`: tokens issued and refused, and what operators do, are noted there; it counts in `own_metrics`, told at /metrics as process `api`.
    `doors`: sign-in and tokens (`gateway.token_routes`), and credentials other than tokens of `signer`; without them there are these alone. `meters`: what tenants' plans allow.
    `system` and `journal`, together: REST for what frames can do (`gateway.rest`); without them there is none. `partners`: webhooks too. `blobs`: assets, likewise. `scenarios`: name, title
    and venue of those that can be run; `rehearsing`: where they are run from here.
    `app.state.background` (`Background`) is what works beside the requests: start it in the loop that serves, stop it when that ends.
    """
    app = FastAPI(title="Esplanade", docs_url=None, redoc_url=None, openapi_url="/v1/openapi.json")
    documents = _Documents(catalogue)
    counts = own_metrics or GatewayMetrics()
    if doors is not None:
        credentials = doors.credentials
        app.include_router(token_routes(doors))
    elif isinstance(signer, Signer):
        credentials = Credentials(Verifier(signer.public_key), clock, counts)
    else:
        raise TypeError("keys that rotate come with doors")
    addresses = AddressMeter(settings.per_address_min)

    @app.middleware("http")
    async def secure(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        refused = await turned_away(request) if request.url.path.startswith(GUARDED) else None
        response = refused or await call_next(request)
        for name, value in _security_headers(settings.ws_url).items():
            response.headers.setdefault(name, value)
        if request.url.scheme == "https":
            response.headers.setdefault("Strict-Transport-Security", "max-age=31536000")
        return response

    async def turned_away(request: Request) -> Response | None:
        """The refusal of a request that is not looked at: by who is not known, too often from one address; with a credential that does not verify; above the tenant's plan.

        After it, `credentials.verify` answers for this request's token without asking anybody.
        """
        address, now = request.client.host if request.client is not None else "", clock.monotonic_s()
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if not addresses.open(address, now):
            counts.count("esplanade_gateway_quota_refusals_total", label="address")
            answer = problem(429, "limit", f"more than {settings.per_address_min} attempts a minute from this address: come back later")
            answer.headers["Retry-After"] = "60"
            return answer
        if scheme.lower() != "bearer":
            addresses.charge(address, now)
            return None
        try:
            identity = await credentials.identify(token.strip())
        except EsplanadeError as error:
            addresses.charge(address, now)
            if audit is not None and isinstance(error, Unauthenticated):
                what = f"{request.method} {request.url.path}"
                audit.refused(tenant=NO_TENANT, who="unknown", what="bearer", target=what, origin=address, outcome=error.code, why=error.message)
            return await ours(request, error)
        allowance = None if meters is None else await meters.of(identity.tenant)
        if allowance is not None and not allowance.take():
            return await ours(request, LimitExceeded("this tenant's plan allows no more at the moment: ask again in a second"))
        return None

    @app.exception_handler(EsplanadeError)
    async def ours(_: Request, error: EsplanadeError) -> JSONResponse:
        refused = isinstance(error, Refusal) and error.code not in STATUS and error.code != "fault"
        answer = problem(
            409 if refused else STATUS.get(error.code, 500), error.code, error.message
        )  # a rule of the service's own: as things stand, no
        if isinstance(error, LimitExceeded):
            answer.headers["Retry-After"] = "1"
        if isinstance(error, Unauthenticated):
            answer.headers["WWW-Authenticate"] = "Bearer"  # RFC 9110, section 11.6.1
        return answer

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        code = {404: "not_found", 405: "invalid"}.get(error.status_code, "invalid")
        return problem(error.status_code, code, f"{request.method} {request.url.path}: {error.detail}")

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        said = "; ".join(f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors())
        return problem(422, "invalid", said)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """This process answers."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        """All that the service needs answers too; names what does not."""
        names = list(checks)
        results = await asyncio.gather(*(_checked(checks[name]) for name in names))
        failed = {name: why for name, why in zip(names, results, strict=True) if why is not None}
        return JSONResponse({"ready": not failed, "checks": {name: failed.get(name, "ok") for name in names}}, 503 if failed else 200)

    @app.get("/metrics")
    async def metrics() -> Response:
        """For Prometheus: docs/metrics.md."""
        snapshots: list[Snapshot] = []
        for key in await broker.keys(METRICS_PREFIX):
            value = await broker.get(key)
            if value is not None:
                snapshots.append(msgspec.msgpack.decode(value, type=Snapshot))
        if own_metrics is not None:
            snapshots.append(msgspec.msgpack.decode(own_metrics.snapshot("api"), type=Snapshot))
        profiles = list(await profile()) if profile is not None else []
        registry = CollectorRegistry(auto_describe=False)
        registry.register(Scrape(snapshots, profiles))
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/profile")
    async def shard_profile(request: Request) -> Response:
        """`System.profile` as JSON. With a token of an operator or engineer: hot actors of their tenant alone; without one, for whoever sits at this machine: all."""
        tenant = _profile_reader(request)
        profiles = [dict(one) for one in await profile()] if profile is not None else []
        for one in profiles:
            hot = one.get("hot")
            if tenant is not None and isinstance(hot, list):
                one["hot"] = [actor for actor in hot if actor["address"].split("/")[1] == tenant]
        return Response(msgspec.json.encode(profiles), media_type="application/json")

    def _profile_reader(request: Request) -> str | None:
        """The tenant whose actors may be told; None: all."""
        identity = asking(request, "GET /v1/profile")
        if identity is not None:
            return identity.tenant
        if not settings.local_sign_in:
            raise Unauthenticated(
                "the profile needs a token here (local sign-in is off): send Authorization: Bearer <token> of an operator or engineer"
            )
        _check_local(request, settings.allowed_hosts)
        return None

    def asking(request: Request, resource: Resource) -> Identity | None:
        """Whose token the request bears, where that may have the resource; None without one: the resource says whether a stranger may. Raises Unauthenticated, Forbidden."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        identity = credentials.verify(token.strip())
        if not identity.may(resource):
            may = " or ".join(role for role in ROLES if permits(role, resource))
            raise Forbidden(f"{resource} is not for role {identity.role!r}: sign in as {may} (docs/permissions.md)")
        return identity

    async def readable_venues(request: Request, resource: Resource) -> str | None:
        """The tenant whose venues the request may read; None: all. Raises Unauthenticated."""
        if settings.public_venues:
            return None
        identity = asking(request, resource)
        if identity is None:
            raise Unauthenticated("venues are not public here (public_venues is off): send Authorization: Bearer <token> of their tenant")
        return identity.tenant

    @app.get("/v1/venues")
    async def venues(request: Request) -> list[dict[str, str]]:
        """The venues that the request may read: tenant, id, name, kind."""
        return await _lines(catalogue, await readable_venues(request, "GET /v1/venues"))

    @app.get("/v1/venues/{tenant}/{venue}")
    async def venue(tenant: str, venue: str, request: Request) -> Response:
        """The venue document as imported; ETag is its SHA-256."""
        readable = await readable_venues(request, "GET /v1/venues/{tenant}/{venue}")
        if readable not in (None, tenant):
            raise no_venue(tenant, venue)  # not even that it exists there
        digest, plain, packed = await documents.get(tenant, venue)
        headers = {"ETag": f'"{digest}"', "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
        if f'"{digest}"' in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(packed, media_type="application/json", headers={**headers, "Content-Encoding": "gzip"})
        return Response(plain, media_type="application/json", headers=headers)

    @app.get("/v1/console")
    async def console() -> dict[str, Any]:
        """What the console needs to begin."""
        lines = await _lines(catalogue, None) if settings.public_venues else []
        return {"ws_url": settings.ws_url, "local_sign_in": settings.local_sign_in, "venues": lines}

    @app.post("/v1/local/token", openapi_extra=STRANGERS)
    async def local_token(wanted: LocalToken, request: Request) -> dict[str, Any]:
        """A token without an account, for whoever sits at this machine."""
        origin = request.client.host if request.client is not None else ""
        try:
            await may_sign_in(wanted, request)
        except (Forbidden, NotFound) as error:
            if audit is not None:
                audit.refused(
                    tenant=wanted.tenant, who="local", what="token.issue", target=wanted.role, origin=origin, outcome=error.code, why=error.message
                )  # fmt: skip
            raise
        subject = LOCAL_SUBJECT if wanted.role == "operator" else await catalogue.next_subject(wanted.tenant)
        token = signer.issue(subject, wanted.tenant, wanted.role, None, LOCAL_TOKEN_TTL_S, clock.unix_ms() / 1000)
        if audit is not None:
            audit.note(tenant=wanted.tenant, who="local", what="token.issue", target=f"{wanted.role}:{subject}", origin=origin)
        return {"token": token, "subject": subject, "role": wanted.role, "tenant": wanted.tenant, "expires_in_s": LOCAL_TOKEN_TTL_S}

    async def may_sign_in(wanted: LocalToken, request: Request) -> None:
        if not settings.local_sign_in:
            raise Forbidden("local sign-in is off here (it is on when everything is embedded and on loopback); present a token of your own")
        _check_local(request, settings.allowed_hosts)
        if wanted.tenant not in await catalogue.tenants():
            raise NotFound(f"tenant {wanted.tenant!r}: there is none of this id")

    async def venue_ids(tenant: str) -> list[str]:
        return [entry.venue for entry in await catalogue.venues(tenant)]

    desk: Desk | None = None
    if system is not None and journal is not None:
        known = VenueCache(catalogue, clock)
        hub = Hub(system=system, journal=journal, broker=broker, clock=clock, metrics=counts, name="api")
        dispatch = Dispatch(
            system=system, venues=known, hub=hub, journal=journal, clock=clock, metrics=counts, tee=None, audit=audit, localiser=localiser
        )
        desk = Desk(dispatch=dispatch, clock=clock, verify=credentials.verify)
        app.include_router(routes(desk))
        app.include_router(way_routes(desk))
        app.include_router(user_routes(desk, subjects, audit))
        streams = Streams(desk=desk, hub=hub, venues=known, clock=clock, metrics=counts)
        app.include_router(stream_routes(streams, desk))

        @app.get("/v1/scenarios", tags=["scenarios"])
        async def listed(request: Request) -> Response:
            """Rehearsals that this service has, for `esplanade run`."""
            desk.check(desk.caller(request), "GET /v1/scenarios")
            return tagged(request, {"scenarios": list(scenarios())})

        if rehearsing is not None:
            app.include_router(rehearsal_routes(desk, rehearsing, audit))
        app.include_router(graph_routes(desk=desk, venues=known, list_venues=venue_ids, scenarios=scenarios))
        courier: WebhookCourier | None = None
        outward: Outward | None = None
        if partners is not None:
            outward = Outward(private=partners.private)
            courier = WebhookCourier(store=partners.store, journal=journal, outward=outward, box=partners.box, clock=clock, metrics=counts)
            kit = Partners(
                desk=desk, store=partners.store, courier=courier, outward=outward, journal=journal, box=partners.box, clock=clock, metrics=counts,
                random=partners.random, audit=audit,
            )  # fmt: skip
            app.include_router(partner_routes(kit))
        app.state.background = Background(hub, streams, courier, outward)

    complete(app)

    if blobs is not None:
        app.include_router(asset_routes(blobs, asking))
        if desk is not None:
            app.include_router(pack_routes(desk, blobs))
    if desk is not None:
        app.include_router(scene_routes(desk))

    @app.get("/{path:path}", include_in_schema=False)
    async def files(path: str) -> Response:
        if path.startswith("v1/"):
            raise NotFound(f"/{path}: no such resource; see /v1/openapi.json")
        root = settings.console
        if root is None or not (root / "index.html").is_file():
            if path in ("", "index.html"):
                return HTMLResponse(_missing(settings.console_missing), 200)
            raise NotFound(f"/{path}: there is no console here: {settings.console_missing}")
        file = (root / (path or "index.html")).resolve()
        if not file.is_relative_to(root.resolve()) or not file.is_file():
            raise NotFound(f"/{path}: no such file of the console")
        cache = "public, max-age=31536000, immutable" if _HASHED.search(file.name) else "no-cache"
        return FileResponse(file, headers={"Cache-Control": cache})

    return app


class Background:
    """What works beside the requests: publications for event streams, deliveries to partners."""

    def __init__(self, hub: Hub, streams: Streams, courier: WebhookCourier | None, outward: Outward | None) -> None:
        self._hub = hub
        self._streams = streams
        self._courier = courier
        self._outward = outward

    async def start(self) -> None:
        await self._hub.start()
        if self._courier is not None:
            self._courier.start()

    async def stop(self) -> None:
        await self._streams.stop()
        if self._courier is not None:
            await self._courier.stop()
        await self._hub.stop()
        if self._outward is not None:
            await self._outward.close()


def gateways_check(broker: Broker, expected: int) -> Check:
    """A readiness check: at least `expected` gateway processes reported within the last ten seconds."""

    async def check() -> str | None:
        names = [key.removeprefix(METRICS_PREFIX) for key in await broker.keys(f"{METRICS_PREFIX}gateway")]
        return None if len(names) >= expected else f"{len(names)} of {expected} report ({', '.join(names) or 'none'})"

    return check


def problem(status: int, code: str, detail: str) -> JSONResponse:
    """Problem details (RFC 9457) with our code."""
    title = code.replace("_", " ")
    return JSONResponse(
        {"type": "about:blank", "title": title, "status": status, "detail": detail, "code": code}, status, media_type="application/problem+json"
    )


async def _checked(check: Check) -> str | None:
    try:
        async with asyncio.timeout(CHECK_S):
            return await check()
    except TimeoutError:
        return f"no answer within {CHECK_S:g} s"
    except Exception as error:  # whatever a check raises is its answer
        return f"{type(error).__name__}: {error}"


async def _lines(catalogue: Catalogue, tenant: str | None) -> list[dict[str, str]]:
    return [{"tenant": entry.tenant, "id": entry.venue, "name": entry.name, "kind": entry.kind} for entry in await catalogue.venues(tenant)]


def no_venue(tenant: str, venue: str) -> NotFound:
    return NotFound(f"venue {tenant}/{venue}: there is none of this id; /v1/venues lists them")


class _Documents:
    """Venue documents, plain and zipped, by digest."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._cache: OrderedDict[tuple[str, str], tuple[str, bytes, bytes]] = OrderedDict()

    async def get(self, tenant: str, venue: str) -> tuple[str, bytes, bytes]:
        """(digest, document, gzip of it). Raises NotFound."""
        digest = next((entry.digest for entry in await self._catalogue.venues(tenant) if entry.venue == venue), None)
        if digest is None:
            raise no_venue(tenant, venue)
        held = self._cache.get((tenant, venue))
        if held is None or held[0] != digest:
            plain = await self._catalogue.venue(tenant, venue)
            held = self._cache[tenant, venue] = (digest, plain, await asyncio.to_thread(gzip.compress, plain, 6, mtime=0))
            if len(self._cache) > MAX_CACHED_DOCUMENTS:
                self._cache.popitem(last=False)
        self._cache.move_to_end((tenant, venue))
        return held


def _check_local(request: Request, allowed: tuple[str, ...]) -> None:
    """The page that asks must be ours: a foreign name that resolves to this machine (DNS rebinding) has its own Host, another page its own Origin."""
    host = request.headers.get("host", "")
    name = urlsplit(f"//{host}").hostname or ""
    if name not in LOCAL_NAMES and name not in allowed:
        raise Forbidden(f"host {host[:200]!r}: local sign-in answers to localhost and 127.0.0.1 only")
    origin = request.headers.get("origin")
    if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
        raise Forbidden(f"origin {origin[:200]!r}: local sign-in answers to its own pages only")
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Forbidden("local sign-in answers to its own pages only")


def _security_headers(ws_url: str) -> dict[str, str]:
    parts = urlsplit(ws_url)
    ws = f"{parts.scheme}://{parts.netloc}" if parts.netloc else ""
    local = (
        " ".join(f"{parts.scheme}://{name}:{parts.port}" for name in ("localhost", "127.0.0.1"))
        if parts.hostname in LOCAL_NAMES and parts.port
        else ""
    )
    policy = (
        f"default-src 'self'; connect-src 'self' {ws} {local}; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
        "script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
    )
    return {
        "Content-Security-Policy": re.sub(r" +", " ", policy).replace(" ;", ";"),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(self), geolocation=(self), microphone=()",
    }


def _missing(why: str) -> str:
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Esplanade</title>"
        f"<h1>Esplanade is running, its console is missing</h1><p>The web console is not here: {html.escape(why)}.</p>"
        "<p>All else works: see <a href=/readyz>/readyz</a>, <a href=/metrics>/metrics</a>, <a href=/v1/venues>/v1/venues</a>.</p></html>"
    )


class ApiServer:
    """A running API; `stop` ends it cleanly."""

    def __init__(self, server: uvicorn.Server, task: asyncio.Task[None], port: int) -> None:
        self._server = server
        self._task = task
        self.port = port

    async def stop(self) -> None:
        self._server.should_exit = True
        await self._task


async def serve_api(app: FastAPI, host: str = "127.0.0.1", port: int = 0, certificate: Certificate | None = None) -> ApiServer:
    """Serve until `stop`, over TLS with a certificate; returns when it listens. Port 0 takes a free one. Leaves signals to the caller."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=2, server_header=False)
    if certificate is not None:
        config.load()
        config.ssl = certificate.context
    server = _QuietServer(config)
    task = asyncio.ensure_future(server.serve(sockets=[sock]))
    started = asyncio.ensure_future(server.listening.wait())
    await asyncio.wait({task, started}, return_when=asyncio.FIRST_COMPLETED)
    started.cancel()
    if task.done():
        sock.close()
        await task
    return ApiServer(server, task, int(sock.getsockname()[1]))


class _QuietServer(uvicorn.Server):
    """uvicorn without its own signal handlers, and with an event for "listening"."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
