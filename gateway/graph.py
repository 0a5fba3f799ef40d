"""GraphQL for reads: `POST /graphql`. "This mall, its second floor, stores with coffee and their current offers" in one request.

What is read comes from the same frames, through the same permissions, as everywhere; the tenant is the token's. However many stores a query looks at, the offers of a venue are asked for once. Costs are
checked before anything is done (`gateway.query_cost`). Owns the schema and the parsed documents of MAX_VENUES venues.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
import strawberry
from fastapi import APIRouter, Request
from fastapi.responses import Response
from graphql import DocumentNode, GraphQLError, parse, validate
from strawberry.dataloader import DataLoader
from strawberry.types import Info

from esplanade.core.errors import EsplanadeError, InvalidInput, NotFound
from gateway import frames as f
from gateway.openapi import body_of, says, wants
from gateway.query_cost import MAX_PAGE, MAX_QUERY_CHARS, PAGE, check_cost
from gateway.rest import SEQ, Caller, Desk, answer, frame_of, place_of_statement, told_place
from gateway.venues import VenueCache, VenueFacts
from spatial.venue import Venue as Document
from spatial.venue_files import parse_venue

_log = logging.getLogger("esplanade.gateway.graph")

MAX_VENUES: Final = 16
MAX_WORDS: Final = 100
"""Stores that answer to words, at most."""


class Query(msgspec.Struct, forbid_unknown_fields=True):
    query: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_QUERY_CHARS)]
    variables: dict[str, Any] | None = None
    operation: str | None = msgspec.field(default=None, name="operationName")
    extensions: dict[str, Any] | None = None


class Answered(msgspec.Struct, omit_defaults=True):
    """`errors` where not everything could be had: each with `message`, `path` and `extensions.code`, the code that a problem document would have."""

    data: dict[str, Any] | None
    errors: list[dict[str, Any]] | None = None


class Shelf:
    """Documents of venues, parsed, by digest."""

    def __init__(self, venues: VenueCache) -> None:
        self._venues = venues
        self._held: OrderedDict[str, Document] = OrderedDict()

    async def get(self, tenant: str, venue: str) -> tuple[VenueFacts, Document]:
        """Raises NotFound, InvalidInput, Unavailable."""
        facts = await self._venues.get(tenant, venue)
        held = self._held.get(facts.digest)
        if held is None:
            text = await self._venues.document(facts)
            held = self._held[facts.digest] = await asyncio.to_thread(parse_venue, text, f"venue {venue}")
            if len(self._held) > MAX_VENUES:
                self._held.popitem(last=False)
        self._held.move_to_end(facts.digest)
        return facts, held


@dataclass
class Context:
    """Of one request. `offers`: of venues, each asked for once."""

    caller: Caller
    desk: Desk
    shelf: Shelf
    offers: DataLoader[str, dict[str, list[Offer]]]
    list_venues: Callable[[str], Any]
    scenarios: Callable[[], Sequence[dict[str, Any]]]


@strawberry.type(description="An offer that has not ended; ticks are tenths of a second of the venue's time.")
class Offer:
    id: strawberry.ID
    unit: strawberry.ID
    title: str
    text: str
    starts_tick: float
    ends_tick: float
    flash: bool
    cap: int


@strawberry.type(description="A shop and where it is.")
class Store:
    id: strawberry.ID
    name: str
    category: str
    tags: list[str]
    level: int
    has_till: bool
    venue: strawberry.Private[str]

    @strawberry.field(description="Those running and to come.")
    async def offers(self, info: Info[Context, None]) -> list[Offer]:
        return (await info.context.offers.load(self.venue)).get(str(self.id), [])


@strawberry.type
class Level:
    index: int
    id: strawberry.ID
    name: str
    ordinal: int
    venue: strawberry.Private[Venue]

    @strawberry.field(description="Stores of this level; `category` exactly, `word` in name, tags or category with typos forgiven.")
    async def stores(
        self, info: Info[Context, None], category: str | None = None, word: str | None = None, first: int = PAGE, after: str | None = None
    ) -> list[Store]:
        return await self.venue.found(info.context, category, word, first, after, self.index)


@strawberry.type
class Venue:
    id: strawberry.ID
    name: str
    kind: str
    timezone: str
    document: strawberry.Private[Document]
    facts: strawberry.Private[VenueFacts]

    @strawberry.field(description="All levels, the lowest first; `ordinal`: that one.")
    def levels(self, ordinal: int | None = None) -> list[Level]:
        made = [
            Level(index=i, id=strawberry.ID(one.id), name=one.name, ordinal=one.ordinal, venue=self) for i, one in enumerate(self.document.levels)
        ]
        return sorted((one for one in made if ordinal is None or one.ordinal == ordinal), key=lambda one: one.ordinal)

    @strawberry.field(description="Stores of all levels; as of a level.")
    async def stores(
        self, info: Info[Context, None], category: str | None = None, word: str | None = None, first: int = PAGE, after: str | None = None
    ) -> list[Store]:
        return await self.found(info.context, category, word, first, after, None)

    @strawberry.field(description="Offers that have not ended.")
    async def offers(self, info: Info[Context, None]) -> list[Offer]:
        by_unit = await info.context.offers.load(str(self.id))
        return sorted((offer for offers in by_unit.values() for offer in offers), key=lambda offer: str(offer.id))

    async def found(self, context: Context, category: str | None, word: str | None, first: int, after: str | None, level: int | None) -> list[Store]:
        """A page of stores: by id, or, with a word, the best first (then `after` counts from the one that answers best)."""
        if not 1 <= first <= MAX_PAGE:
            raise InvalidInput(f"first {first}: must be 1 to {MAX_PAGE}")
        units = {unit.id: unit for unit in self.document.units}
        level_of = {one.id: i for i, one in enumerate(self.document.levels)}
        stores = {
            one.unit_id: Store(
                id=strawberry.ID(one.unit_id), name=one.name, category=one.category, tags=list(one.tags), level=level_of[units[one.unit_id].level_id],
                has_till=units[one.unit_id].till, venue=str(self.id),
            )
            for one in self.document.occupants
        }  # fmt: skip
        if word is None:
            ordered = [stores[unit] for unit in sorted(stores)]
        else:
            told = await context.desk.ask(context.caller, frame_of(f.Search, venue=str(self.id), text=word, k=MAX_WORDS))
            ordered = [stores[one["unit_id"]] for one in told["stores"] if one["unit_id"] in stores]
        fit = [one for one in ordered if (category is None or one.category == category) and (level is None or one.level == level)]
        if after is not None:
            place = next((i for i, one in enumerate(fit) if str(one.id) == after), None)
            if place is None:
                raise InvalidInput(f"after {after[:100]!r}: none of the stores found has this id; give the id of the last one of the page before")
            fit = fit[place + 1 :]
        return fit[:first]


@strawberry.type(description="Minor units of a currency.")
class Amount:
    currency: str
    amount: float


@strawberry.type(description="A movement of my wallet.")
class Line:
    what: str
    amount: float
    balance: float
    other: str
    number: float


@strawberry.type(description="A page of movements, oldest first; `next` is the `after` of the page that follows.")
class Statement:
    currency: str
    opening: float
    closing: float
    lines: list[Line]
    next: str | None


@strawberry.type
class Wallet:
    balances: list[Amount]
    held: list[Amount]

    @strawberry.field
    async def statement(self, info: Info[Context, None], currency: str, first: int = PAGE, after: str | None = None) -> Statement:
        context = info.context
        place = None if after is None else place_of_statement(after)
        page = await context.desk.ask(context.caller, frame_of(f.GetStatement, currency=currency, limit=first, after=place))
        lines = [Line(**{name: line[name] for name in ("what", "amount", "balance", "other", "number")}) for line in page["lines"]]
        return Statement(currency=currency, opening=page["opening"], closing=page["closing"], lines=lines, next=told_place(page.get("next")))


@strawberry.type
class Me:
    subject: float
    tenant: str
    role: str

    @strawberry.field(description="Mine alone.")
    async def wallet(self, info: Info[Context, None]) -> Wallet:
        told = await info.context.desk.ask(info.context.caller, frame_of(f.GetBalance))
        return Wallet(balances=_amounts(told["balances"]), held=_amounts(told.get("held", {})))


@strawberry.type(description="A rehearsal that this service can run.")
class Scenario:
    name: str
    title: str
    venue: str


@strawberry.type
class Root:
    @strawberry.field(description="The tenant's venues.")
    async def venues(self, info: Info[Context, None]) -> list[Venue]:
        context = info.context
        context.desk.check(context.caller, "GET /v1/venues")
        names = await context.list_venues(context.caller.identity.tenant)
        return [await _venue(context, name) for name in names[:MAX_VENUES]]

    @strawberry.field(description="A venue of the tenant.")
    async def venue(self, info: Info[Context, None], id: strawberry.ID) -> Venue | None:
        context = info.context
        context.desk.check(context.caller, "GET /v1/venues/{tenant}/{venue}")
        try:
            return await _venue(context, str(id))
        except NotFound:
            return None

    @strawberry.field(description="Whom the token names.")
    def me(self, info: Info[Context, None]) -> Me:
        identity = info.context.caller.identity
        return Me(subject=identity.subject, tenant=identity.tenant, role=identity.role)

    @strawberry.field(description="For operators and engineers.")
    def scenarios(self, info: Info[Context, None]) -> list[Scenario]:
        info.context.desk.check(info.context.caller, "GET /v1/scenarios")
        return [Scenario(name=one["name"], title=one["title"], venue=one["venue"]) for one in info.context.scenarios()]


class _Schema(strawberry.Schema):
    def process_errors(self, errors: list[GraphQLError], execution_context: Any = None) -> None:
        """What is ours and unexpected is logged; refusals are the asker's to read."""
        for error in errors:
            if error.original_error is not None and not isinstance(error.original_error, EsplanadeError):
                _log.error("query_failed", exc_info=error.original_error)


SCHEMA: Final = _Schema(query=Root)


async def _venue(context: Context, name: str) -> Venue:
    facts, document = await context.shelf.get(context.caller.identity.tenant, name)
    return Venue(
        id=strawberry.ID(document.id), name=document.name, kind=document.kind, timezone=document.timezone, document=document, facts=facts
    )  # fmt: skip


def _amounts(by_currency: dict[str, int]) -> list[Amount]:
    return [Amount(currency=currency, amount=amount) for currency, amount in sorted(by_currency.items())]


def _loader(desk: Desk, caller: Caller) -> DataLoader[str, dict[str, list[Offer]]]:
    async def load(venues: list[str]) -> list[dict[str, list[Offer]]]:
        return await asyncio.gather(*(one(venue) for venue in venues))

    async def one(venue: str) -> dict[str, list[Offer]]:
        by_unit: dict[str, list[Offer]] = defaultdict(list)
        for offer in (await desk.ask(caller, f.GetOffers(seq=SEQ, venue=venue)))["offers"]:
            by_unit[offer["unit_id"]].append(
                Offer(
                    id=strawberry.ID(offer["id"]), unit=strawberry.ID(offer["unit_id"]), title=offer["title"], text=offer["text"],
                    starts_tick=offer["starts_tick"], ends_tick=offer["ends_tick"], flash=offer["flash"], cap=offer["cap"],
                )
            )  # fmt: skip
        return by_unit

    return DataLoader(load_fn=load)


def _parsed(query: str) -> DocumentNode:
    """Raises InvalidInput for what is no query of the schema."""
    try:
        document = parse(query, max_tokens=2_000)
    except (GraphQLError, RecursionError) as error:
        raise InvalidInput(f"query: {getattr(error, 'message', 'nested too deeply')}") from error
    return document


def graph_routes(
    *, desk: Desk, venues: VenueCache, list_venues: Callable[[str], Any], scenarios: Callable[[], Sequence[dict[str, Any]]]
) -> APIRouter:
    router = APIRouter(tags=["graphql"])
    shelf = Shelf(venues)

    @router.post("/graphql", openapi_extra=wants(Query), responses=says(Answered))
    async def graphql(request: Request) -> Response:
        """Reads of several things at once. A query that is none, too deep or too dear is refused as a whole, with a problem document; a part that cannot be had stands among `errors`."""
        caller = desk.caller(request)
        asked = await body_of(request, Query)
        document = _parsed(asked.query)
        variables = asked.variables or {}
        check_cost(document, asked.operation, variables)
        wrong = validate(SCHEMA._schema, document, max_errors=5)
        if wrong:
            raise InvalidInput("query: " + "; ".join(error.message for error in wrong))
        context = Context(caller, desk, shelf, _loader(desk, caller), list_venues, scenarios)
        done = await SCHEMA.execute(asked.query, variable_values=variables, context_value=context, operation_name=asked.operation)
        errors = [_error(error) for error in done.errors or ()]
        return answer(Answered(done.data, errors or None), 200)

    return router


def _error(error: GraphQLError) -> dict[str, Any]:
    cause = error.original_error
    path = list(error.path or ())
    if isinstance(cause, EsplanadeError):
        return {"message": cause.message, "path": path, "extensions": {"code": cause.code, "retryable": cause.retryable}}
    if cause is not None and not isinstance(cause, GraphQLError):
        return {"message": "this failed inside the server; it is logged, and nothing you can mend", "path": path, "extensions": {"code": "fault"}}
    return {"message": error.message, "path": path, "extensions": {"code": "invalid"}}
