"""Webhooks over HTTP: partners subscribe, look at what was delivered, and have dead letters sent again; and they tell us of payments and sensors.

Owns the paths. Deliveries and signatures are `gateway.webhooks`'; what a message that comes in means is its frame's, through the same dispatch as from a connection.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
from collections.abc import Awaitable
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response

from actors.messages import BayChange, Currency, GateCount
from esplanade.core.clock import SystemClock
from esplanade.core.errors import Conflict, EsplanadeError, InvalidInput, NotFound, Unauthenticated
from esplanade.core.ids import check_name
from esplanade.storage.journal import Journal
from esplanade.storage.sealing import Random, Vault
from esplanade.storage.webhooks import DeadLetter, Source, SourceKind, Webhook, WebhookStore
from gateway import frames as f
from gateway.acts import who_is
from gateway.audit_trail import AuditTrail
from gateway.auth import Identity
from gateway.filters import Test, Where
from gateway.metrics import GatewayMetrics
from gateway.openapi import body_of, raw_body, says, wants
from gateway.outward import Outward
from gateway.rest import Caller, Desk, Limit, Refusal, answer, frame_of, key_of, tagged
from gateway.webhooks import (
    FORMER_S,
    SECRET_BYTES,
    TYPES,
    WebhookCourier,
    check_signature,
    check_webhook_where,
    new_secret,
    parsed_where,
    place_of_secret,
    told_secret,
    topic_of,
)

ID_BYTES: Final = 12
PROVIDER: Final = 2**29 + 1
"""Subject of partners that tell: a feed of ours, as far as dispatch knows."""

Type = Literal["offer.changed", "parking.changed", "anchors.changed"]
assert set(TYPES) == set(Type.__args__)  # type: ignore[attr-defined]

R = TypeVar("R")
Letters = Annotated[str, Query(max_length=300, description="`next` of the page before.")]


Once = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key", min_length=1, max_length=128, description="The same for every retry: what it made is told again, secret and all."
    ),
]


class WebhookWish(msgspec.Struct, forbid_unknown_fields=True):
    """Tell `url` of these types of events of a venue, from now on. `where`: only those that pass the tests (as in `subscribe`)."""

    url: Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]
    venue: f.Id
    types: Annotated[tuple[Type, ...], msgspec.Meta(min_length=1, max_length=len(TYPES))]
    where: Where | None = None


class WebhookChange(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What is left out stays."""

    url: Annotated[str, msgspec.Meta(min_length=1, max_length=2000)] | None = None
    enabled: bool | None = None


class WebhookIs(msgspec.Struct, omit_defaults=True):
    """`secret`: told when it is made, and never again."""

    id: str
    url: str
    venue: str
    types: tuple[str, ...]
    enabled: bool
    created_ms: int
    where: tuple[Test, ...] | None = None
    secret: str | None = None


class WebhookList(msgspec.Struct):
    webhooks: list[WebhookIs]


class AttemptIs(msgspec.Struct):
    message: str
    topic: str
    place: f.Place
    type: str
    at_ms: int
    attempt: int
    status: int
    outcome: str
    error: str


class AttemptList(msgspec.Struct):
    deliveries: list[AttemptIs]


class DeadIs(msgspec.Struct):
    message: str
    type: str
    at_ms: int
    attempts: int
    error: str
    body: msgspec.Raw


class DeadList(msgspec.Struct):
    dead: list[DeadIs]
    next: str | None


class Replayed(msgspec.Struct):
    message: str
    outcome: str
    status: int
    error: str


class SourceWish(msgspec.Struct, forbid_unknown_fields=True):
    """A partner who will tell of payments (top-ups), or of sensors (bays, gates), of a venue."""

    kind: SourceKind
    venue: f.Id


class SourceIs(msgspec.Struct, omit_defaults=True):
    """`path`: where to send what is signed with `secret`, which is told when it is made, and never again."""

    id: str
    kind: str
    venue: str
    path: str
    created_ms: int
    secret: str | None = None


class SourceList(msgspec.Struct):
    sources: list[SourceIs]


class TopUp(msgspec.Struct, tag_field="type", tag="top_up", forbid_unknown_fields=True):
    """The provider has taken `amount` minor units from `subject`: they are in the wallet once the answer is there."""

    subject: f.Subject
    amount: Annotated[int, msgspec.Meta(ge=1, lt=2**32)]
    currency: Currency


class Bays(msgspec.Struct, tag_field="type", tag="bays", forbid_unknown_fields=True):
    bays: Annotated[tuple[BayChange, ...], msgspec.Meta(min_length=1, max_length=10_000)]


class Gates(msgspec.Struct, tag_field="type", tag="gates", forbid_unknown_fields=True):
    counts: Annotated[tuple[GateCount, ...], msgspec.Meta(min_length=1, max_length=1_000)]


Told = TopUp | Bays | Gates


class Partners:
    """What the routes need. `random`: the source of secrets and ids."""

    def __init__(
        self,
        *,
        desk: Desk,
        store: WebhookStore,
        courier: WebhookCourier,
        outward: Outward,
        journal: Journal,
        box: Vault,
        clock: SystemClock,
        metrics: GatewayMetrics,
        random: Random,
        audit: AuditTrail | None,
    ) -> None:
        self.desk = desk
        self.store = store
        self.courier = courier
        self.outward = outward
        self.journal = journal
        self.box = box
        self.clock = clock
        self.metrics = metrics
        self.random = random
        self.audit = audit

    def caller(self, request: Request) -> Caller:
        """Raises Unauthenticated, Forbidden, LimitExceeded."""
        caller = self.desk.caller(request)
        self.desk.check(caller, "/v1/webhooks")
        return caller

    def new_id(self, prefix: str, caller: Caller, key: str | None) -> str:
        """Of what is made now; the same for a caller who says, by the key, that it is the same."""
        drawn = self.random(ID_BYTES) if key is None else key_of(caller, prefix, key)[:ID_BYTES]
        return f"{prefix}_{drawn.hex()}"

    def note(self, caller: Caller, what: str, target: str) -> None:
        if self.audit is not None:
            self.audit.note(tenant=caller.identity.tenant, who=who_is(caller.identity), what=what, target=target, origin=caller.origin)


def partner_routes(partners: Partners) -> APIRouter:
    router = APIRouter(prefix="/v1")
    out, sources = _webhooks(partners), _sources(partners)
    router.include_router(out)
    router.include_router(sources)
    return router


def _webhooks(partners: Partners) -> APIRouter:
    router = APIRouter(tags=["webhooks"])
    store, clock = partners.store, partners.clock

    @router.post("/webhooks", status_code=201, openapi_extra=wants(WebhookWish), responses=says(WebhookIs, status=201))
    async def subscribe(request: Request, key: Once = None) -> Response:
        """Tell an address of ours what happens in a venue. The secret in the answer signs every message (Standard Webhooks); keep it, it is not told again."""
        caller = partners.caller(request)
        wish = await body_of(request, WebhookWish)
        tenant = caller.identity.tenant
        await partners.desk.tick(caller, wish.venue)  # it is a venue of theirs
        if wish.where is not None:
            check_webhook_where(wish.where, wish.types)
        await partners.outward.check(wish.url)
        secret = new_secret(partners.random)
        webhook_id = partners.new_id("wh", caller, key)
        made = Webhook(
            tenant=tenant, id=webhook_id, url=wish.url, venue=wish.venue, types=tuple(dict.fromkeys(wish.types)),
            where="" if wish.where is None else msgspec.json.encode(wish.where).decode(),
            secret=partners.box.seal(place_of_secret(tenant, webhook_id), secret), created_unix_ms=clock.unix_ms(),
        )  # fmt: skip
        held = None if key is None else await _if_there(store.webhook(tenant, webhook_id))
        if held is not None:
            if (held.url, held.venue, held.types, held.where) != (made.url, made.venue, made.types, made.where):
                raise Conflict(f"Idempotency-Key {key!r}: webhook {webhook_id} was made with it, of other parameters; take another key")
            return answer(
                _told(held, partners.box.open(place_of_secret(tenant, webhook_id), held.secret)), 201, {"Location": f"/v1/webhooks/{webhook_id}"}
            )
        topics = [topic_of(kind, wish.venue) for kind in made.types]
        places = await asyncio.gather(*(partners.journal.place(tenant, topic) for topic in topics))
        await store.add(made, dict(zip(topics, places, strict=True)))
        partners.note(caller, "webhook.create", f"{webhook_id} {wish.url}")
        return answer(_told(made, secret), 201, {"Location": f"/v1/webhooks/{webhook_id}"})

    @router.get("/webhooks", responses=says(WebhookList))
    async def listed(request: Request) -> Response:
        """The tenant's webhooks."""
        caller = partners.caller(request)
        return tagged(request, WebhookList([_told(one) for one in await store.webhooks(caller.identity.tenant)]))

    @router.get("/webhooks/{webhook}", responses=says(WebhookIs))
    async def one(request: Request, webhook: str) -> Response:
        """One of them."""
        caller = partners.caller(request)
        return tagged(request, _told(await store.webhook(caller.identity.tenant, webhook)))

    @router.patch("/webhooks/{webhook}", openapi_extra=wants(WebhookChange), responses=says(WebhookIs))
    async def change(request: Request, webhook: str) -> Response:
        """Another address, or off and on again. What was published while it was off is delivered then, as far as it is kept."""
        caller = partners.caller(request)
        wish = await body_of(request, WebhookChange)
        held = await store.webhook(caller.identity.tenant, webhook)
        if wish.url is not None:
            await partners.outward.check(wish.url)
        changed = msgspec.structs.replace(
            held, url=held.url if wish.url is None else wish.url, enabled=held.enabled if wish.enabled is None else wish.enabled
        )
        await store.change(changed)
        partners.note(caller, "webhook.change", webhook)
        return answer(_told(changed), 200)

    @router.post("/webhooks/{webhook}/secret", responses=says(WebhookIs))
    async def rotate(request: Request, webhook: str) -> Response:
        """A new secret. For a day messages are signed with the former one too."""
        caller = partners.caller(request)
        tenant = caller.identity.tenant
        held = await store.webhook(tenant, webhook)
        secret = new_secret(partners.random)
        changed = msgspec.structs.replace(
            held, secret=partners.box.seal(place_of_secret(tenant, webhook), secret), former=held.secret,
            former_until_unix_ms=clock.unix_ms() + round(FORMER_S * 1000),
        )  # fmt: skip
        await store.change(changed)
        partners.note(caller, "webhook.rotate", webhook)
        return answer(_told(changed, secret), 200)

    @router.delete("/webhooks/{webhook}", status_code=204)
    async def remove(request: Request, webhook: str) -> Response:
        """Tell it nothing more; its log and dead letters go with it."""
        caller = partners.caller(request)
        await store.remove(caller.identity.tenant, webhook)
        partners.note(caller, "webhook.remove", webhook)
        return Response(status_code=204)

    @router.get("/webhooks/{webhook}/deliveries", responses=says(AttemptList))
    async def deliveries(request: Request, webhook: str, limit: Limit = 100) -> Response:
        """What was tried, the newest first; of each webhook the last 1,000 are kept."""
        tenant = partners.caller(request).identity.tenant
        await store.webhook(tenant, webhook)
        found = [
            AttemptIs(
                one.message, one.topic, f.Place(one.epoch, one.offset), one.type, one.at_unix_ms, one.attempt, one.status, one.outcome, one.error
            )
            for one in await store.attempts(tenant, webhook, limit=limit)
        ]
        return tagged(request, AttemptList(found))

    @router.get("/webhooks/{webhook}/dead", responses=says(DeadList))
    async def dead(request: Request, webhook: str, limit: Limit = 100, after: Letters = "") -> Response:
        """What was given up."""
        tenant = partners.caller(request).identity.tenant
        await store.webhook(tenant, webhook)
        found = await store.dead(tenant, webhook, after=after, limit=limit + 1)
        page = [_letter(one) for one in found[:limit]]
        return answer(DeadList(page, page[-1].message if len(found) > limit else None), 200)

    @router.post("/webhooks/{webhook}/dead/{message}/replay", responses=says(Replayed))
    async def replay(request: Request, webhook: str, message: str) -> Response:
        """Send a dead letter again, now; taken, it is one no more."""
        caller = partners.caller(request)
        held = await store.webhook(caller.identity.tenant, webhook)
        tried = await partners.courier.replay(held, await store.dead_letter(caller.identity.tenant, webhook, message))
        partners.note(caller, "webhook.replay", f"{webhook} {message}")
        return answer(Replayed(tried.message, tried.outcome, tried.status, tried.error), 200)

    return router


def _sources(partners: Partners) -> APIRouter:
    router = APIRouter(tags=["sources"])
    store, clock = partners.store, partners.clock

    @router.post("/sources", status_code=201, openapi_extra=wants(SourceWish), responses=says(SourceIs, status=201))
    async def admit(request: Request, key: Once = None) -> Response:
        """Let a partner tell us. The secret in the answer is theirs to sign with; it is not told again."""
        caller = partners.caller(request)
        wish = await body_of(request, SourceWish)
        tenant = caller.identity.tenant
        await partners.desk.tick(caller, wish.venue)
        secret, source = new_secret(partners.random), partners.new_id("src", caller, key)
        held = None if key is None else await _if_there(store.source(tenant, source))
        if held is not None:
            if (held.kind, held.venue) != (wish.kind, wish.venue):
                raise Conflict(f"Idempotency-Key {key!r}: source {source} was made with it, of other parameters; take another key")
            return answer(
                _source_told(held, partners.box.open(_place_of_source(tenant, source), held.secret)), 201, {"Location": f"/v1/sources/{source}"}
            )
        sealed = partners.box.seal(_place_of_source(tenant, source), secret)
        made = Source(tenant=tenant, id=source, kind=wish.kind, venue=wish.venue, secret=sealed, created_unix_ms=clock.unix_ms())
        await store.add_source(made)
        partners.note(caller, "source.create", f"{source} {wish.kind}")
        return answer(_source_told(made, secret), 201, {"Location": f"/v1/sources/{source}"})

    @router.get("/sources", responses=says(SourceList))
    async def listed(request: Request) -> Response:
        """The tenant's partners who may tell."""
        caller = partners.caller(request)
        return tagged(request, SourceList([_source_told(one) for one in await store.sources(caller.identity.tenant)]))

    @router.delete("/sources/{source}", status_code=204)
    async def remove(request: Request, source: str) -> Response:
        """Believe it no more."""
        caller = partners.caller(request)
        await store.remove_source(caller.identity.tenant, source)
        partners.note(caller, "source.remove", source)
        return Response(status_code=204)

    @router.post(
        "/in/{tenant}/{source}",
        openapi_extra={**wants(Told), "security": []},
        responses=says(dict[str, Any], what="It is done, durably; sent again, it is not done again."),
    )
    async def told(request: Request, tenant: str, source: str) -> Response:
        """What a partner tells, signed as Standard Webhooks says: `webhook-id` names it (the same for every retry), `webhook-timestamp` is within five minutes of now."""
        outcome = "fault"
        try:
            reply = await _take(partners, request, tenant, source)
            outcome = "done"
            return answer(reply, 200)
        except EsplanadeError as error:
            outcome = error.code
            raise
        finally:
            partners.metrics.count("esplanade_gateway_webhooks_in_total", label=outcome)

    return router


async def _take(partners: Partners, request: Request, tenant: str, source_id: str) -> Any:
    """Do what a partner says. Raises Unauthenticated where it cannot be who it says, without telling whether there is such a source."""
    origin = request.client.host if request.client is not None else ""
    raw = await raw_body(request)
    source: Source | None = None
    secret = partners.random(SECRET_BYTES)  # nobody's: whether there is such a source is told by no answer
    with contextlib.suppress(NotFound, InvalidInput):
        source = await partners.store.source(check_name(tenant, "tenant"), check_name(source_id, "source"))
        secret = partners.box.open(_place_of_source(source.tenant, source.id), source.secret)
    try:
        message = check_signature(secret, request.headers, raw, partners.clock.unix_ms() // 1000)
    except InvalidInput as error:
        if partners.audit is not None:
            partners.audit.refused(
                tenant=tenant, who=f"source:{source_id}", what="webhook.in", target=source_id, origin=origin, outcome="unauthenticated", why=error.message
            )  # fmt: skip
        raise Unauthenticated(error.message) from error
    assert source is not None, "nobody can sign with a secret drawn just now"
    try:
        body = msgspec.json.decode(raw, type=Told)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"body: {error}; see /v1/openapi.json") from error
    caller = partners.desk.known(Identity(PROVIDER, tenant, "feed", None, float("inf")), origin, client=source.id)
    key = hashlib.blake2b(f"{tenant}/{source.id}/{message}".encode(), digest_size=16).digest()
    if (source.kind == "payments") is not isinstance(body, TopUp):
        raise InvalidInput(f"source {source.id} tells of {source.kind}: {body.__struct_config__.tag} is not among that")
    match body:
        case TopUp():
            columns = {"subject": body.subject.to_bytes(4, "little"), "amount": body.amount.to_bytes(4, "little")}
            tick = await partners.desk.tick(caller, source.venue)
            settled = await partners.desk.ask(caller, frame_of(f.TopUps, tick=tick, key=key, currency=body.currency, **columns))
            result = base64.b64decode(settled["result"])[0]
            if result:
                code = settled["codes"][result - 1]
                raise Refusal(
                    f.Error(code=code, message=f"top-up of {body.amount} {body.currency} to {body.subject} refused: {code} (docs/money.md)")
                )
            return {"settled": True}
        case Bays():
            return await partners.desk.ask(caller, frame_of(f.SetBays, venue=source.venue, bays=body.bays, key=key))
        case Gates():
            return await partners.desk.ask(caller, frame_of(f.CountGates, venue=source.venue, counts=body.counts, key=key))


async def _if_there(asked: Awaitable[R]) -> R | None:
    try:
        return await asked
    except NotFound:
        return None


def _place_of_source(tenant: str, source: str) -> str:
    return f"source/{tenant}/{source}"


def _told(webhook: Webhook, secret: bytes | None = None) -> WebhookIs:
    return WebhookIs(
        id=webhook.id, url=webhook.url, venue=webhook.venue, types=webhook.types, enabled=webhook.enabled, created_ms=webhook.created_unix_ms,
        where=parsed_where(webhook.where), secret=None if secret is None else told_secret(secret),
    )  # fmt: skip


def _source_told(source: Source, secret: bytes | None = None) -> SourceIs:
    return SourceIs(
        id=source.id, kind=source.kind, venue=source.venue, path=f"/v1/in/{source.tenant}/{source.id}", created_ms=source.created_unix_ms,
        secret=None if secret is None else told_secret(secret),
    )  # fmt: skip


def _letter(letter: DeadLetter) -> DeadIs:
    return DeadIs(letter.message, letter.type, letter.at_unix_ms, letter.attempts, letter.error, msgspec.Raw(letter.body))
