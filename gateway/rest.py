"""REST `/v1`: frames by another door. A request becomes the frame that says the same, goes through the same permission and the same dispatch, and its answer comes back as JSON.

Owns paths, pages, ETags, the Idempotency-Key header and the rate of each caller; never what a request means.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Body, Header, Query, Request
from fastapi.responses import Response

from actors.messages import Currency, Money
from ar.anchor_records import MAX_RADIUS_M
from esplanade.core.clock import SystemClock
from esplanade.core.errors import EsplanadeError, Forbidden, InvalidInput, LimitExceeded, NotFound, Unauthenticated
from gateway import frames as f
from gateway.auth import Identity
from gateway.dispatch import Dispatch, Rest
from gateway.limits import LIMITS, TokenBucket
from gateway.openapi import says, wants
from gateway.permissions import Resource, outside
from gateway.session import Session
from spatial.offers import Offer

MAX_CALLERS: Final = 10_000
"""Callers whose rate is remembered; beyond, the one longest away is forgotten."""
PAGE: Final = 100
MAX_QUERY_BYTES: Final = 4 * 2**20
MAX_PAGE: Final = 500
SEQ: Final = 1
"""Of every frame made here: nothing is told apart by it, since what changes something bears a key."""

Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="Rows of a page.")]
IdempotencyKey = Annotated[
    str, Header(alias="Idempotency-Key", min_length=1, max_length=128, description="The caller's own, the same for every retry; good for 24 hours.")
]


class PaymentOrder(msgspec.Struct, forbid_unknown_fields=True):
    """A payment at the till of a unit from the caller's wallet."""

    venue: f.Id
    unit: f.Id
    amount: Money
    currency: Currency


class PaymentMade(msgspec.Struct):
    """`key`: what the payment is called in statements, base64; `balance`: what the wallet can spend after it."""

    key: str
    balance: int


class Refusal(EsplanadeError):
    """An Error frame on its way to a problem document: its code is the frame's."""

    def __init__(self, error: f.Error) -> None:
        super().__init__(error.message)
        self.code = error.code  # type: ignore[misc]
        self.retryable = error.retryable  # type: ignore[misc]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks by HTTP, as dispatch sees them."""

    identity: Identity
    origin: str
    session: Session


class Desk:
    """Frames of HTTP callers through permission, rate and dispatch. `verify`: the identity of a token, or raises Unauthenticated."""

    def __init__(self, *, dispatch: Dispatch, clock: SystemClock, verify: Callable[[str], Identity]) -> None:
        self._dispatch = dispatch
        self._clock = clock
        self._verify = verify
        self._buckets: OrderedDict[tuple[str, int], TokenBucket] = OrderedDict()

    def caller(self, request: Request, tenant: str | None = None) -> Caller:
        """Raises Unauthenticated; LimitExceeded; NotFound for a path of another tenant, which says no more than that there is nothing."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated(f"{request.url.path}: send Authorization: Bearer <token>")
        identity = self._verify(token.strip())
        self._take(identity)
        if tenant not in (None, identity.tenant):
            raise NotFound(f"{request.url.path}: there is nothing of this name")
        return self._caller(identity, request.client.host if request.client is not None else "", "rest")

    def known(self, identity: Identity, origin: str, *, client: str) -> Caller:
        """A caller who has proved otherwise than by a token who they are. Raises LimitExceeded."""
        self._take(identity)
        return self._caller(identity, origin, client)

    def _caller(self, identity: Identity, origin: str, client: str) -> Caller:
        session = Session("rest", "json", self._clock.monotonic_s())
        session.client = client
        return Caller(identity, origin, session)

    def _take(self, identity: Identity) -> None:
        key, now, limits = (identity.tenant, identity.subject), self._clock.monotonic_s(), LIMITS[identity.role]
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = TokenBucket(limits.frames_per_s, limits.burst, now)
            if len(self._buckets) > MAX_CALLERS:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(key)
        if not bucket.take(now):
            raise LimitExceeded(f"more than {limits.frames_per_s:g} requests a second: send again later")

    @staticmethod
    def check(caller: Caller, what: type[Rest] | Resource) -> None:
        """Raises Forbidden where the caller may not send such a frame, or have such a resource."""
        if not caller.identity.may(what):
            said = what if isinstance(what, str) else what.__struct_config__.tag
            raise Forbidden(f"{said} is not for role {caller.identity.role!r}: sign in with a role that may (docs/permissions.md)")

    async def ask(self, caller: Caller, frame: Rest) -> Any:
        """The answer to a frame, as plain data without `op` and `seq`. Raises Forbidden; the refusal's code as `Refusal`."""
        plain = msgspec.to_builtins(await self.reply(caller, frame))
        return {key: value for key, value in plain.items() if key not in ("op", "seq")}

    async def reply(self, caller: Caller, frame: Rest) -> f.ServerFrame:
        """The frame that answers a frame. Raises as `ask`."""
        self.check(caller, type(frame))
        scope = caller.identity.scope
        why = None if scope is None else outside(scope, frame)
        if why is not None:
            raise Forbidden(f"{frame.__struct_config__.tag}: {why}")
        reply = await self._dispatch.answer(caller, frame)
        if isinstance(reply, f.Error):
            raise Refusal(reply)
        return reply

    async def tick(self, caller: Caller, venue: str) -> int:
        """The venue's last closed tick, 0 before the first. Raises NotFound where the tenant has no venue of this id."""
        return max(0, int((await self.ask(caller, f.GetClock(seq=SEQ, venue=venue)))["tick"]))


def key_of(caller: Caller, *said: str) -> bytes:
    """The 128-bit key for what a caller says is one and the same request; nobody meets another's."""
    who = f"{caller.identity.tenant}/{caller.identity.subject}"
    return hashlib.blake2b("\0".join((who, *said)).encode(), digest_size=16).digest()


def routes(desk: Desk) -> APIRouter:
    """The paths. Every one wants a token; the tenant in a path must be the token's."""
    router = APIRouter(prefix="/v1")

    @router.get("/venues/{tenant}/{venue}/offers", tags=["offers"])
    async def offers(request: Request, tenant: str, venue: str, limit: Limit = PAGE, after: str = "") -> Response:
        """Offers that have not ended, by id, a page at a time: `next` is the `after` of the page that follows."""
        held = (await desk.ask(desk.caller(request, tenant), frame_of(f.GetOffers, venue=venue)))["offers"]
        rows = sorted((offer for offer in held if offer["id"] > after), key=lambda offer: offer["id"])
        page = rows[:limit]
        return tagged(request, {"offers": page, "next": page[-1]["id"] if len(rows) > limit else None})

    @router.post("/venues/{tenant}/{venue}/offers", status_code=201, tags=["offers"], openapi_extra=wants(Offer), responses=says(Offer, status=201))
    async def create_offer(request: Request, tenant: str, venue: str, key: IdempotencyKey, offer: Annotated[dict[str, Any], Body()]) -> Response:
        """An offer, as the frame `create_offer` has it; it holds from the next tick."""
        caller = desk.caller(request, tenant)
        made = converted(offer, Offer)
        await desk.ask(caller, frame_of(f.CreateOffer, venue=venue, offer=made, key=key_of(caller, "create_offer", venue, key)))
        return answer(msgspec.to_builtins(made), 201, {"Location": f"/v1/venues/{tenant}/{venue}/offers/{made.id}"})

    @router.delete("/venues/{tenant}/{venue}/offers/{offer}", status_code=204, tags=["offers"])
    async def end_offer(request: Request, tenant: str, venue: str, offer: str) -> Response:
        """End an offer now; one that has ended stays so."""
        caller = desk.caller(request, tenant)
        desk.check(caller, f.EndOffer)
        tick = await desk.tick(caller, venue)
        await desk.ask(caller, frame_of(f.EndOffer, venue=venue, offer=offer, tick=tick, key=key_of(caller, "end_offer", venue, offer, str(tick))))
        return Response(status_code=204)

    @router.get("/venues/{tenant}/{venue}/zones/{zone}", tags=["zones"])
    async def zone(request: Request, tenant: str, venue: str, zone: str) -> Response:
        """Who is in a unit or zone, and who was."""
        return tagged(request, await desk.ask(desk.caller(request, tenant), frame_of(f.GetZone, venue=venue, zone=zone)))

    @router.get("/venues/{tenant}/{venue}/anchors", tags=["anchors"])
    async def anchors(
        request: Request,
        tenant: str,
        venue: str,
        level: Annotated[int, Query(ge=0, le=254)],
        x: float,
        y: float,
        radius_m: Annotated[float, Query(gt=0, le=MAX_RADIUS_M)] = 20.0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 20,
        tag: Annotated[list[str] | None, Query(max_length=16)] = None,
    ) -> Response:
        """Anchors near a point of a level that the caller may see, nearest first."""
        wanted = frame_of(f.AnchorsNear, venue=venue, level=level, x=x, y=y, radius_m=radius_m, k=limit, tags=tuple(tag or ()))
        return tagged(request, await desk.ask(desk.caller(request, tenant), wanted))

    @router.get("/venues/{tenant}/{venue}/anchors/{anchor}", tags=["anchors"])
    async def anchor(request: Request, tenant: str, venue: str, anchor: str) -> Response:
        """One anchor, by its id of 32 hexadecimal digits."""
        caller = desk.caller(request, tenant)
        held = (await desk.ask(caller, frame_of(f.ResolveAnchors, venue=venue, ids=_anchor_id(anchor))))["anchors"]
        if not held:
            raise NotFound(f"anchor {anchor}: none here that you may see")
        return tagged(request, held[0])

    @router.delete("/venues/{tenant}/{venue}/anchors/{anchor}", status_code=204, tags=["anchors"])
    async def remove_anchor(request: Request, tenant: str, venue: str, anchor: str) -> Response:
        """Remove an anchor of one's own, or, for operators, any; one that is gone stays so."""
        await desk.ask(desk.caller(request, tenant), frame_of(f.RemoveAnchors, venue=venue, ids=_anchor_id(anchor)))
        return Response(status_code=204)

    @router.get("/wallet", tags=["wallets"])
    async def wallet(request: Request) -> Response:
        """The caller's own: what can be spent, and what is held beside it, by currency, in minor units."""
        return tagged(request, await desk.ask(desk.caller(request), frame_of(f.GetBalance)))

    @router.get("/wallet/statement", tags=["wallets"])
    async def statement(request: Request, currency: str, limit: Limit = PAGE, after: str | None = None, subject: int | None = None) -> Response:
        """Movements, oldest first, a page at a time; `next` is the `after` of the page that follows. `subject`: of another's wallet, for operators."""
        place = None if after is None else place_of_statement(after)
        caller = desk.caller(request)
        page = await desk.ask(caller, frame_of(f.GetStatement, currency=currency, limit=limit, after=place, subject=subject))
        return tagged(request, page | {"next": told_place(page.get("next"))})

    @router.post("/payments", status_code=201, tags=["payments"], openapi_extra=wants(PaymentOrder), responses=says(PaymentMade, status=201))
    async def pay(request: Request, key: IdempotencyKey, order: Annotated[dict[str, Any], Body()]) -> Response:
        """Pay `amount` minor units of `currency` at the till of `unit` of `venue` from the caller's wallet."""
        caller, wanted = desk.caller(request), converted(order, PaymentOrder)
        fields = msgspec.structs.asdict(wanted)
        return answer(await desk.ask(caller, frame_of(f.Pay, **fields, key=key_of(caller, "pay", key))), 201)

    @router.get("/books", tags=["books"])
    async def books(request: Request) -> Response:
        """The tenant's books, by currency."""
        return tagged(request, await desk.ask(desk.caller(request), frame_of(f.GetBooks)))

    @router.post("/venues/{tenant}/{venue}/localise", tags=["ar"])
    async def localise(
        request: Request, tenant: str, venue: str, level: int = 0, rows: int = 0, columns: int = 0, fx: float = 0, fy: float = 0, cx: float = 0, cy: float = 0,
        x: float | None = None, y: float | None = None, z: float | None = None, within_m: float = 2.0,
    ) -> Response:  # fmt: skip
        """Where a camera is: the body is a depth image, (rows, columns) u2 millimetres, or with `rows` 0 points, (n, 3) i2 millimetres. `x`, `y`, `z`: it is near there."""
        caller = desk.caller(request, tenant)
        desk.check(caller, f.Localise)
        body = await body_of(request, MAX_QUERY_BYTES)
        near = None if x is None or y is None or z is None else (x, y, z)
        seen: dict[str, Any] = {"depth": body, "rows": rows, "columns": columns, "camera": (fx, fy, cx, cy)} if rows else {"points": body}
        return answer(await desk.ask(caller, frame_of(f.Localise, venue=venue, level=level, near=near, within_m=within_m, **seen)), 200)

    return router


async def body_of(request: Request, most: int) -> bytes:
    """The request's body. Raises LimitExceeded as soon as it is larger than `most` bytes."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise LimitExceeded(f"{request.url.path}: body of more than {most} bytes; send less")
        parts.append(part)
    return b"".join(parts)


def converted(value: Any, kind: type[Any]) -> Any:
    """`value` as the type that the wire has. Raises InvalidInput naming the field."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{kind.__name__}: {error}; see /v1/openapi.json") from error


def frame_of(kind: type[Any], **fields: Any) -> Any:
    """A frame, checked as one that came over the socket is. Raises InvalidInput."""
    given = {name: value for name, value in fields.items() if value is not None}
    return converted({"op": kind.__struct_config__.tag, "seq": SEQ, **msgspec.to_builtins(given, builtin_types=(bytes,))}, kind)


def answer(body: Any, status: int, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers=headers, media_type="application/json")


def tagged(request: Request, body: Any) -> Response:
    """The answer with its ETag, or 304 where the caller holds the same."""
    text = json.dumps(msgspec.to_builtins(body), sort_keys=True).encode()
    etag = f'"{hashlib.blake2b(text, digest_size=16).hexdigest()}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(text, media_type="application/json", headers=headers)


def _anchor_id(text: str) -> bytes:
    """Raises InvalidInput."""
    try:
        held = bytes.fromhex(text)
    except ValueError:
        held = b""
    if len(held) != 16 or len(text) != 32:
        raise InvalidInput(f"anchor {text[:60]!r}: must be 32 hexadecimal digits")
    return held


def told_place(held: dict[str, int] | None) -> str | None:
    """Where a page of a statement ended, as one word."""
    return None if held is None else ".".join(str(held[part]) for part in f.StatementPlace.__struct_fields__)


def place_of_statement(after: str) -> f.StatementPlace:
    """Raises InvalidInput."""
    parts = after.split(".")
    names = f.StatementPlace.__struct_fields__
    if len(parts) != len(names) or not all(part.lstrip("-").isdigit() and len(part) < 20 for part in parts):
        raise InvalidInput(f"after {after[:100]!r}: give the `next` of the page before")
    place: f.StatementPlace = converted({name: int(part) for name, part in zip(names, parts, strict=True)}, f.StatementPlace)
    return place
