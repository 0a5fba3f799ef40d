"""GraphQL over a running mall: what one asks for in one request, what it costs the service, and what it may not cost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
from graphql import parse

from actors.messages import CreateOffer, TopUps
from esplanade.core.errors import EsplanadeError, InvalidInput, LimitExceeded
from esplanade.core.ids import Address
from gateway.api import ApiSettings, build_api
from gateway.metrics import GatewayMetrics, Snapshot
from gateway.permissions import ROLES, Role
from gateway.query_cost import MAX_COST, MAX_FIELDS, check_cost
from spatial.offers import Everyone, Offer
from tests.actors.parkside import keys, u4, venue
from tests.gateway.mall import TILL, VENUE, Mall, patiently, running_mall


class House:
    def __init__(self, mall: Mall, client: httpx.AsyncClient, metrics: GatewayMetrics) -> None:
        self.mall = mall
        self.client = client
        self.metrics = metrics

    async def post(self, query: str, role: Role = "guest", *, tenant: str = "demo", subject: int = 5, **body: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.mall.token(subject, role, tenant=tenant)}"}
        return await self.client.post("/graphql", json={"query": query} | body, headers=headers)

    async def ask(self, query: str, role: Role = "guest", **more: Any) -> Any:
        reply = await self.post(query, role, **more)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def frames(self, op: str) -> float:
        counters = msgspec.msgpack.decode(self.metrics.snapshot("p", []), type=Snapshot).counters
        return sum(value for name, label, value in counters if (name, label) == ("esplanade_gateway_frames_in_total", op))


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with running_mall() as mall:
        metrics = GatewayMetrics()
        app = build_api(
            catalogue=mall.catalogue, broker=mall.broker, signer=mall.signer, clock=mall.clock, settings=ApiSettings(ws_url="ws://127.0.0.1:1/"), checks={},
            system=mall.system, journal=mall.journal, own_metrics=metrics,
            scenarios=lambda: [{"name": "black_friday", "title": "Black Friday", "venue": "parkside"}],
        )  # fmt: skip
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:7000") as client:
            yield House(mall, client, metrics)


STORES = """
query Stores($venue: ID!, $ordinal: Int, $category: String) {
  venue(id: $venue) { name kind
    levels(ordinal: $ordinal) { index name
      stores(category: $category) { id name category level hasTill offers { id title flash } } } } }
"""


async def test_stores_of_a_level_with_their_offers_in_one_request_and_one_look_at_the_offers(house: House) -> None:
    for i, unit in enumerate((TILL, TILL, "shop-01")):
        offer = Offer(id=f"o{i}", unit_id=unit, title=f"Offer {i}", audience=Everyone(), flash=i == 2)
        await patiently(lambda offer=offer: house.mall.system.ask(Address("mall", "demo", VENUE), CreateOffer(offer=offer)))  # type: ignore[misc]
    plan = venue()
    told = (await house.ask(STORES, variables={"venue": VENUE}))["data"]["venue"]
    assert (told["name"], [level["index"] for level in told["levels"]]) == (plan.name, [0, 1])
    stores = {store["id"]: store for level in told["levels"] for store in level["stores"]}
    assert set(stores) == {one.unit_id for one in plan.occupants}
    assert [offer["id"] for offer in stores[TILL]["offers"]] == ["o0", "o1"]
    assert stores["shop-01"]["offers"] == [{"id": "o2", "title": "Offer 2", "flash": True}]
    assert house.frames("get_offers") == 1, "however many stores"
    levels = {unit.id: unit.level_id for unit in plan.units}
    assert all(levels[store["id"]] == plan.levels[store["level"]].id for store in stores.values())
    upper = (await house.ask(STORES, variables={"venue": VENUE, "ordinal": plan.levels[1].ordinal}))["data"]["venue"]["levels"]
    assert [level["index"] for level in upper] == [1]


async def test_stores_by_category_word_and_page(house: House) -> None:
    plan = venue()
    first = plan.occupants[0]
    category = (await house.ask(STORES, variables={"venue": VENUE, "category": first.category}))["data"]["venue"]
    found = {store["id"] for level in category["levels"] for store in level["stores"]}
    assert found == {one.unit_id for one in plan.occupants if one.category == first.category}
    words = await house.ask(f'{{ venue(id: "{VENUE}") {{ stores(word: "{first.name}", first: 1) {{ id name }} }} }}')
    assert words["data"]["venue"]["stores"] == [{"id": first.unit_id, "name": first.name}]
    pages: list[str] = []
    after = "null"
    while True:
        page = (await house.ask(f'{{ venue(id: "{VENUE}") {{ stores(first: 3, after: {after}) {{ id }} }} }}'))["data"]["venue"]["stores"]
        pages += [store["id"] for store in page]
        if len(page) < 3:
            break
        after = f'"{page[-1]["id"]}"'
    assert pages == sorted(one.unit_id for one in plan.occupants)


async def test_my_wallet_is_mine_and_what_a_role_may_not_is_an_error_with_its_code(house: House) -> None:
    top_up = TopUps(tick=1, key=keys(1), subject=u4(5), amount=u4(1000), currency="EUR")
    await patiently(lambda: house.mall.system.ask(Address("ledger", "demo", "5"), top_up))
    mine = '{ me { subject tenant role wallet { balances { currency amount } statement(currency: "EUR") { closing lines { what amount } next } } } }'
    told = (await house.ask(mine, "shopper"))["data"]["me"]
    assert (told["subject"], told["tenant"], told["wallet"]["balances"]) == (5, "demo", [{"currency": "EUR", "amount": 1000}])
    assert told["wallet"]["statement"]["lines"] == [{"what": "top_up", "amount": 1000}]
    assert (await house.ask(mine, "shopper", subject=6))["data"]["me"]["wallet"]["balances"] == []
    for role in ROLES:
        reply = await house.ask(mine, role, subject=7)
        assert ("errors" in reply) == (role not in ("guest", "shopper")), role
        if "errors" in reply:
            assert (reply["errors"][0]["extensions"]["code"], reply["errors"][0]["path"]) == ("forbidden", ["me", "wallet"])
        scenarios = await house.ask("{ scenarios { name title } }", role)
        if role in ("operator", "engineer"):
            assert scenarios["data"]["scenarios"] == [{"name": "black_friday", "title": "Black Friday"}]
        else:
            assert scenarios["errors"][0]["extensions"]["code"] == "forbidden"


async def test_a_tenant_sees_its_own_venues_alone(house: House) -> None:
    assert [one["id"] for one in (await house.ask("{ venues { id } }"))["data"]["venues"]] == ["field", VENUE]
    assert [one["id"] for one in (await house.ask("{ venues { id } }", tenant="other"))["data"]["venues"]] == ["elsewhere"]
    assert (await house.ask(f'{{ venue(id: "{VENUE}") {{ id }} }}', tenant="other"))["data"]["venue"] is None


async def test_what_is_no_query_or_too_much_is_a_problem(house: House) -> None:
    deep = "{ venue(id: 1) { stores { offers " + "{ id " * 9 + "}" * 9 + "} } }"
    for query, code, named in (
        ("{", "invalid", "Syntax"),
        ("{ nothing }", "invalid", "nothing"),
        ('mutation { venue(id: "v") { id } }', "invalid", "mutation"),
        ("query A { me { role } } query B { me { role } }", "invalid", "operationName"),
        ("{ venues { levels { stores(first: 200) { offers { id } } } } }", "limit", "costs more"),
        (deep, "limit", "deep"),
        ("{ " + " ".join(f"a{i}: me {{ role }}" for i in range(300)) + " }", "limit", "fields"),
        ("{ me { role } }" + " " * 10_001, "invalid", "query"),
    ):
        reply = await house.post(query)
        assert (reply.json()["code"], named in reply.json()["detail"]) == (code, True), reply.text
        assert reply.headers["content-type"] == "application/problem+json"
    assert (await house.client.post("/graphql", json={"query": "{ me { role } }"})).status_code == 401
    bad_page = await house.ask(f'{{ venue(id: "{VENUE}") {{ stores(first: 0) {{ id }} }} }}')
    assert bad_page["errors"][0]["extensions"]["code"] == "invalid"
    schema = await house.ask("{ __schema { types { name fields { name type { name ofType { name ofType { name } } } } } } }")
    assert "Venue" in {one["name"] for one in schema["data"]["__schema"]["types"]}


# --- counting ---------------------------------------------------------------------------------------------------------


def test_a_list_counts_as_often_as_it_may_have_items() -> None:
    assert check_cost(parse("{ me { role } }"), None, {}) == 2
    assert check_cost(parse("{ venue(id: 1) { stores(first: 7) { id name } } }"), None, {}) == 1 + 1 + 7 * 2
    assert check_cost(parse("query($n: Int) { venue(id: 1) { stores(first: $n) { id } } }"), None, {"n": 3}) == 1 + 1 + 3
    assert check_cost(parse("{ venue(id: 1) { ...S } } fragment S on Venue { stores(first: 2) { id } }"), None, {}) == 1 + 1 + 2


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("{ ...A } fragment A on Root { ...A }", LimitExceeded),
        ("{ ...A } fragment A on Root { ...B ...B } fragment B on Root { ...A ...A }", LimitExceeded),
        ("{ ...F0 } " + " ".join(f"fragment F{i} on Root {{ ...F{i + 1} ...F{i + 1} }}" for i in range(60)) + " fragment F60 on Root { me { role } }", LimitExceeded),
        ("{ venue(id: 1) { stores(first: 99999999999999999999) { offers { id } } } }", None),
        ("subscription { me { role } }", InvalidInput),
        ("fragment A on Root { me { role } }", InvalidInput),
    ],
)  # fmt: skip
def test_a_small_document_cannot_grow(query: str, error: type[EsplanadeError] | None) -> None:
    if error is None:
        assert check_cost(parse(query), None, {}) < MAX_COST
    else:
        with pytest.raises(error):
            check_cost(parse(query), None, {})
    assert MAX_FIELDS < 1_000
