"""REST `/v1` over a running mall, asked in process: the same rules as by frame."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from actors.messages import LEDGERS, TopUps
from esplanade.core.ids import Address
from gateway import frames as f
from gateway.api import ApiSettings, build_api
from gateway.limits import LIMITS
from gateway.permissions import ROLES, Role, permits
from tests.actors.parkside import keys, rows, u4
from tests.gateway.mall import TILL, VENUE, Mall, patiently, running_mall

OFFERS = f"/v1/venues/demo/{VENUE}/offers"
OFFER: dict[str, Any] = {"id": "books", "unit_id": TILL, "title": "Books", "audience": {"type": "within", "radius_m": 5.0}}
ANCHOR = bytes(range(16)).hex()
ORDER = {"venue": VENUE, "unit": TILL, "amount": 250, "currency": "EUR"}
EVERY: list[tuple[str, str, type, dict[str, Any] | None]] = [
    ("GET", OFFERS, f.GetOffers, None),
    ("POST", OFFERS, f.CreateOffer, OFFER),
    ("DELETE", f"{OFFERS}/books", f.EndOffer, None),
    ("GET", f"/v1/venues/demo/{VENUE}/zones/front", f.GetZone, None),
    ("POST", f"/v1/venues/demo/{VENUE}/distances", f.GetDistances, {"sources": [{"place": TILL}], "targets": [{"place": TILL}]}),
    ("GET", f"/v1/venues/demo/{VENUE}/anchors?level=0&x=1&y=2", f.AnchorsNear, None),
    ("GET", f"/v1/venues/demo/{VENUE}/anchors/{ANCHOR}", f.ResolveAnchors, None),
    ("DELETE", f"/v1/venues/demo/{VENUE}/anchors/{ANCHOR}", f.RemoveAnchors, None),
    ("GET", "/v1/wallet", f.GetBalance, None),
    ("GET", "/v1/wallet/statement?currency=EUR", f.GetStatement, None),
    ("POST", "/v1/payments", f.Pay, ORDER),
    ("GET", "/v1/books", f.GetBooks, None),
    ("POST", f"/v1/venues/demo/{VENUE}/localise", f.Localise, None),
]
"""Every path, the frame that says the same, a body."""


@dataclass
class House:
    mall: Mall
    client: httpx.AsyncClient

    async def ask(
        self,
        method: str,
        path: str,
        role: Role = "operator",
        *,
        subject: int = 5,
        tenant: str = "demo",
        key: str = "k",
        body: Any = None,
        **headers: str,
    ) -> httpx.Response:
        bearer = {"authorization": f"Bearer {self.mall.token(subject, role, tenant=tenant)}", "idempotency-key": key}
        return await self.client.request(method, path, json=body, headers=bearer | headers)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with running_mall() as mall:
        app = build_api(
            catalogue=mall.catalogue, broker=mall.broker, signer=mall.signer, clock=mall.clock, settings=ApiSettings(ws_url="ws://127.0.0.1:1/"), checks={},
            system=mall.system, journal=mall.journal,
        )  # fmt: skip
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:7000") as client:
            yield House(mall, client)


async def test_an_offer_is_made_once_found_by_page_and_ended(house: House) -> None:
    for i in range(3):
        made = await house.ask("POST", OFFERS, key=f"k{i}", body=OFFER | {"id": f"o{i}"})
        assert (made.status_code, made.headers["location"], made.json()["cap"]) == (201, f"{OFFERS}/o{i}", 1)
    again = await house.ask("POST", OFFERS, key="k0", body=OFFER | {"id": "o0"})
    assert again.status_code == 201
    other = await house.ask("POST", OFFERS, key="k0", body=OFFER | {"id": "o9"})
    assert (other.status_code, other.json()["code"]) == (409, "conflict")
    first = (await house.ask("GET", f"{OFFERS}?limit=2", "guest")).json()
    assert ([offer["id"] for offer in first["offers"]], first["next"]) == (["o0", "o1"], "o1")
    second = await house.ask("GET", f"{OFFERS}?limit=2&after=o1", "guest")
    assert ([offer["id"] for offer in second.json()["offers"]], second.json()["next"]) == (["o2"], None)
    held = await house.ask("GET", f"{OFFERS}?limit=2&after=o1", "guest", **{"if-none-match": second.headers["etag"]})
    assert (held.status_code, held.content) == (304, b"")
    system = house.mall.system
    await patiently(lambda: system.take("demo", VENUE, rows((1, 0, 7.0, 19.5)), source=None, tick=None))
    async with asyncio.timeout(60):
        while (await patiently(lambda: system.clock("demo", VENUE))).tick < 1:  # with somebody there, it runs
            await asyncio.sleep(0.05)
    for _ in range(2):
        assert (await house.ask("DELETE", f"{OFFERS}/o2")).status_code == 204
    assert [offer["id"] for offer in (await house.ask("GET", OFFERS)).json()["offers"]] == ["o0", "o1"]
    missing = await house.ask("DELETE", f"{OFFERS}/nothing")
    assert (missing.status_code, missing.json()["code"]) == (409, "offer_not_found")


async def test_a_payment_with_one_key_is_made_once_and_stands_in_the_statement(house: House) -> None:
    top_up = TopUps(tick=1, key=keys(1), subject=u4(5), amount=u4(1000), currency="EUR")
    await patiently(lambda: house.mall.system.ask(Address("ledger", "demo", str(5 % LEDGERS)), top_up))
    balances = [(await house.ask("POST", "/v1/payments", "shopper", key=key, body=ORDER)).json()["balance"] for key in ("a", "a", "b")]
    assert balances == [750, 750, 500]
    assert (await house.ask("GET", "/v1/wallet", "shopper")).json()["balances"] == {"EUR": 500}
    page = (await house.ask("GET", "/v1/wallet/statement?currency=EUR&limit=2", "shopper")).json()
    assert [(line["what"], line["balance"]) for line in page["lines"]] == [("top_up", 1000), ("payment", 750)]
    rest = (await house.ask("GET", f"/v1/wallet/statement?currency=EUR&limit=2&after={page['next']}", "shopper")).json()
    assert [(line["what"], line["balance"]) for line in rest["lines"]] == [("payment", 500)]
    too_much = await house.ask("POST", "/v1/payments", "shopper", key="c", body=ORDER | {"amount": 501})
    assert (too_much.status_code, too_much.json()["code"]) == (409, "exceeds_balance")
    assert too_much.headers["content-type"] == "application/problem+json"
    assert (await house.ask("POST", "/v1/payments", "shopper", subject=6, key="a", body=ORDER)).json()["code"] == "wallet_not_found", (
        "a key is one's own"
    )


@pytest.mark.parametrize("role", ROLES)
async def test_every_path_asks_what_its_frame_asks_and_no_more_than_ones_tenant(house: House, role: Role) -> None:
    for method, path, frame, body in EVERY:
        reply = await house.ask(method, path, role, body=body)
        assert (reply.status_code == 403) == (not permits(role, frame)), (method, path, reply.text)
        assert reply.status_code < 500, reply.text
        if "/demo/" in path:
            theirs = await house.ask(method, path.replace("/demo/", "/other/").replace(VENUE, "elsewhere"), role, body=body)
            assert theirs.status_code == 404, (method, path)
            mine = await house.ask(method, path, role, tenant="other", subject=7, body=body)
            assert mine.status_code == 404, "the path's tenant is not the token's"
        elif method == "GET":
            assert "demo" not in (await house.ask(method, path, role, tenant="other", subject=7)).text


async def test_a_stranger_gets_nowhere(house: House) -> None:
    for method, path, _, body in EVERY:
        for headers in ({}, {"authorization": "Bearer nonsense"}, {"authorization": "Basic eDp5"}):
            reply = await house.client.request(method, path, json=body, headers={"idempotency-key": "k", **headers})
            assert (reply.status_code, reply.json()["code"]) == (401, "unauthenticated"), (method, path)


async def test_bad_input_is_a_problem_that_names_it(house: House) -> None:
    for path, body, what in (
        (OFFERS, OFFER | {"cap": "many"}, "cap"),
        (OFFERS, {"id": "x"}, "unit_id"),
        (OFFERS, OFFER | {"unit_id": "nowhere"}, "nowhere"),
        ("/v1/payments", ORDER | {"amount": -5}, "amount"),
        ("/v1/payments", ORDER | {"subject": 9}, "subject"),
        ("/v1/payments", ORDER | {"currency": "euros"}, "currency"),
    ):
        reply = await house.ask("POST", path, "operator" if path == OFFERS else "shopper", body=body)
        assert reply.status_code in (404, 422), reply.text
        assert what in reply.json()["detail"], reply.text
    no_key = await house.client.post("/v1/payments", json=ORDER, headers={"authorization": f"Bearer {house.mall.token(5)}"})
    assert (no_key.status_code, "Idempotency-Key" in no_key.json()["detail"]) == (422, True)
    for path in (
        f"{OFFERS}?limit=0",
        f"{OFFERS}?limit=501",
        "/v1/wallet/statement?currency=EUR&after=1.2",
        "/v1/wallet/statement?currency=EUR&after=a.b.c.d",
    ):
        assert (await house.ask("GET", path, "shopper")).status_code == 422, path


async def test_a_caller_asks_no_faster_than_their_role_sends(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LIMITS, "guest", replace(LIMITS["guest"], frames_per_s=0.01))  # so that a busy machine does not decide
    replies = [await house.ask("GET", OFFERS, "guest", subject=77) for _ in range(LIMITS["guest"].burst + 60)]
    refused = [reply for reply in replies if reply.status_code == 429]
    assert refused
    assert (refused[0].json()["code"], refused[0].headers["retry-after"]) == ("limit", "1")
    assert (await house.ask("GET", OFFERS, "guest", subject=78)).status_code == 200, "a neighbour is served"


async def test_every_path_is_listed_here_in_the_document_and_in_openapi(house: House) -> None:
    listed = {(method, path.partition("?")[0].replace("demo", "{tenant}").replace(VENUE, "{venue}").replace("zones/front", "zones/{zone}").replace("offers/books", "offers/{offer}").replace(ANCHOR, "{anchor}"))
              for method, path, _, _ in EVERY}  # fmt: skip
    elsewhere = {
        "/v1/stream",
        "/v1/users/me",
        "/v1/scenarios",
        "/v1/venues",
        "/v1/venues/{tenant}/{venue}",
        "/v1/venues/{tenant}/{venue}/scenes/{scene}.gltf",  # tests/gateway/test_packs.py
        "/v1/profile",
        "/v1/console",
        "/v1/local/token",
    }
    page = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
    for method, path in listed:
        assert f"| `{method} {path}` |" in page
    described = (await house.client.get("/v1/openapi.json")).json()["paths"]
    ours = {path: methods for path, methods in described.items() if path.startswith("/v1/") and path not in elsewhere}
    assert {(method.upper(), path) for path, methods in ours.items() for method in methods} == listed


async def test_distances_come_as_rows_with_null_where_there_is_no_way(house: House) -> None:
    body = {
        "sources": [{"place": TILL}],
        "targets": [{"place": TILL}, {"level": 0, "x": -900.0, "y": -900.0}, {"place": "shop-01"}],
        "by": "shortest",
    }
    told = await house.ask("POST", f"/v1/venues/demo/{VENUE}/distances", "guest", body=body)
    [[same, nowhere, other]] = told.json()["cost"]
    assert (told.status_code, same, nowhere) == (200, 0.0, None)
    assert other > 1.0
    wrong = await house.ask("POST", f"/v1/venues/demo/{VENUE}/distances", body=body | {"targets": []})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid")
