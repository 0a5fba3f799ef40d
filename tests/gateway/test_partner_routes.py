"""Partners over HTTP and a running mall: subscribe and be told, and tell of payments and sensors."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from standardwebhooks.webhooks import Webhook as Verifier

from esplanade.storage.memory_webhooks import MemoryWebhooks
from esplanade.storage.sealing import Vault
from gateway.api import ApiSettings, PartnerKit, build_api
from gateway.permissions import ROLES, Role
from gateway.webhooks import signature
from tests.gateway.mall import TILL, VENUE, Mall, running_mall, until
from tests.gateway.receiver import Receiver, receiving

OFFERS = f"/v1/venues/demo/{VENUE}/offers"
OFFER: dict[str, Any] = {"id": "books", "unit_id": TILL, "title": "Books", "audience": {"type": "within", "radius_m": 5.0}}


@dataclass
class House:
    mall: Mall
    client: httpx.AsyncClient
    receiver: Receiver
    app: FastAPI

    async def ask(self, method: str, path: str, role: Role = "operator", *, tenant: str = "demo", key: str = "k", body: Any = None) -> httpx.Response:
        bearer = {"authorization": f"Bearer {self.mall.token(5, role, tenant=tenant)}", "idempotency-key": key}
        return await self.client.request(method, path, json=body, headers=bearer)

    async def tell(self, path: str, secret: str, body: Any, *, message: str = "m1", at_s: int | None = None, sign: Any = None) -> httpx.Response:
        """As the source would: `sign` is what is signed, where that is not what is sent."""
        stamp = self.mall.clock.unix_ms() // 1000 if at_s is None else at_s
        raw = json.dumps(body).encode()
        made = Verifier(secret)._whsecret
        headers = {
            "webhook-id": message,
            "webhook-timestamp": str(stamp),
            "webhook-signature": signature(made, message, stamp, raw if sign is None else json.dumps(sign).encode()),
        }
        return await self.client.post(path, content=raw, headers=headers)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with running_mall() as mall, receiving() as receiver:
        app = build_api(
            catalogue=mall.catalogue, broker=mall.broker, signer=mall.signer, clock=mall.clock, settings=ApiSettings(ws_url="ws://127.0.0.1:1/"), checks={},
            system=mall.system, journal=mall.journal,
            partners=PartnerKit(MemoryWebhooks(mall.store), Vault(b"m" * 32, os.urandom), os.urandom, private=True),
        )  # fmt: skip
        await app.state.background.start()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:7000") as client:
            yield House(mall, client, receiver, app)
        await app.state.background.stop()


async def test_a_partner_subscribes_is_told_looks_it_up_and_leaves(house: House) -> None:
    wish = {"url": house.receiver.url, "venue": VENUE, "types": ["offer.changed", "parking.changed"]}
    made = await house.ask("POST", "/v1/webhooks", body=wish)
    assert made.status_code == 201, made.text
    webhook, secret = made.json()["id"], made.json()["secret"]
    assert made.headers["location"] == f"/v1/webhooks/{webhook}"
    listed = (await house.ask("GET", "/v1/webhooks")).json()["webhooks"]
    assert [one["id"] for one in listed] == [webhook]
    assert "secret" not in listed[0], "told once"
    await house.ask("POST", OFFERS, body=OFFER)
    await until(lambda: len(house.receiver.got) == 1)
    headers, body = house.receiver.got[0]
    told = Verifier(secret).verify(body, headers)
    assert (told["type"], told["data"]["offer"]["id"]) == ("offer.changed", "books")

    async def log() -> list[dict[str, Any]]:
        return list((await house.ask("GET", f"/v1/webhooks/{webhook}/deliveries")).json()["deliveries"])

    async with asyncio.timeout(20):
        while not await log():
            await asyncio.sleep(0.02)
    assert [(one["outcome"], one["status"], one["attempt"]) for one in await log()] == [("delivered", 204, 1)]
    off = await house.ask("PATCH", f"/v1/webhooks/{webhook}", body={"enabled": False})
    assert (off.status_code, off.json()["enabled"]) == (200, False)
    await house.ask("POST", OFFERS, key="k2", body=OFFER | {"id": "shoes"})
    house.receiver.status = 410
    await house.ask("PATCH", f"/v1/webhooks/{webhook}", body={"enabled": True})
    await until(lambda: len(house.receiver.got) == 2)
    async with asyncio.timeout(20):
        while not (dead := (await house.ask("GET", f"/v1/webhooks/{webhook}/dead")).json())["dead"]:
            await asyncio.sleep(0.02)
    assert (dead["dead"][0]["body"]["data"]["offer"]["id"], dead["next"]) == ("shoes", None)
    house.receiver.status = 200
    fresh = (await house.ask("POST", f"/v1/webhooks/{webhook}/secret")).json()["secret"]
    again = await house.ask("POST", f"/v1/webhooks/{webhook}/dead/{dead['dead'][0]['message']}/replay")
    assert (again.status_code, again.json()["outcome"]) == (200, "replayed")
    Verifier(fresh).verify(house.receiver.got[-1][1], house.receiver.got[-1][0])
    assert (await house.ask("GET", f"/v1/webhooks/{webhook}/dead")).json()["dead"] == []
    assert (await house.ask("DELETE", f"/v1/webhooks/{webhook}")).status_code == 204
    assert (await house.ask("GET", f"/v1/webhooks/{webhook}")).status_code == 404


async def test_what_is_asked_for_twice_under_one_key_is_made_once(house: House) -> None:
    """A key of one's own; `House.ask` sends `k` unless told otherwise."""
    wish = {"url": "http://127.0.0.1:9999/", "venue": VENUE, "types": ["offer.changed"]}
    made = [(await house.ask("POST", "/v1/webhooks", key=key, body=wish)).json() for key in ("a", "a", "b")]
    assert made[0] == made[1]
    assert made[0]["id"] != made[2]["id"]
    other = await house.ask("POST", "/v1/webhooks", key="a", body=wish | {"types": ["parking.changed"]})
    assert (other.status_code, other.json()["code"]) == (409, "conflict")
    sources = [(await house.ask("POST", "/v1/sources", key="a", body={"kind": "sensors", "venue": VENUE})).json() for _ in range(2)]
    assert sources[0] == sources[1]
    assert (await house.ask("POST", "/v1/sources", key="a", body={"kind": "payments", "venue": VENUE})).status_code == 409


EVERY = [
    ("POST", "/v1/webhooks", {"url": "http://127.0.0.1:9999/", "venue": VENUE, "types": ["offer.changed"]}),
    ("GET", "/v1/webhooks", None),
    ("GET", "/v1/webhooks/{id}", None),
    ("PATCH", "/v1/webhooks/{id}", {}),
    ("POST", "/v1/webhooks/{id}/secret", None),
    ("GET", "/v1/webhooks/{id}/deliveries", None),
    ("GET", "/v1/webhooks/{id}/dead", None),
    ("POST", "/v1/webhooks/{id}/dead/m/replay", None),
    ("POST", "/v1/sources", {"kind": "sensors", "venue": VENUE}),
    ("GET", "/v1/sources", None),
    ("DELETE", "/v1/sources/{source}", None),
    ("DELETE", "/v1/webhooks/{id}", None),
]


async def test_only_operators_manage_partners_and_of_their_own_tenant_alone(house: House) -> None:
    webhook = (await house.ask("POST", "/v1/webhooks", body=EVERY[0][2])).json()["id"]
    source = (await house.ask("POST", "/v1/sources", body=EVERY[8][2])).json()["id"]
    for method, path, body in EVERY:
        path = path.replace("{id}", webhook).replace("{source}", source)
        for role in ROLES:
            if role != "operator":
                refused = await house.ask(method, path, role, body=body)
                assert (refused.status_code, refused.json()["code"]) == (403, "forbidden"), (method, path, role)
        stranger = await house.client.request(method, path, json=body)
        assert stranger.status_code == 401, (method, path)
        other = await house.ask(method, path, tenant="other", body=body)
        assert other.status_code == 404 or other.json() in ({"webhooks": []}, {"sources": []}), (method, path, other.text)
    for method, path, body in EVERY:
        mine = await house.ask(method, path.replace("{id}", webhook).replace("{source}", source), body=body)
        assert mine.status_code < 300 or path.endswith("/replay"), (method, path, mine.text)


UNFIT = [
    ({"url": "ftp://x.example/", "venue": VENUE, "types": ["offer.changed"]}, "https://"),
    ({"url": "http://127.0.0.1:9999/", "venue": "nowhere", "types": ["offer.changed"]}, "nowhere"),
    ({"url": "http://127.0.0.1:9999/", "venue": VENUE, "types": ["pushes.made"]}, "pushes.made"),
    ({"url": "http://127.0.0.1:9999/", "venue": VENUE, "types": []}, "types"),
    (
        {"url": "http://127.0.0.1:9999/", "venue": VENUE, "types": ["parking.changed"], "where": [{"field": "offer.id", "equals": "a"}]},
        "offer.id",
    ),
    ({"url": "http://127.0.0.1:9999/", "venue": VENUE, "types": ["offer.changed"], "secret": "mine"}, "secret"),
]


async def test_a_subscription_that_cannot_be_is_refused_by_name(house: House) -> None:
    for body, named in UNFIT:
        refused = await house.ask("POST", "/v1/webhooks", body=body)
        assert refused.status_code in (404, 422), refused.text
        assert named in refused.json()["detail"]


async def test_a_payment_provider_tops_up_once_however_often_it_says_so(house: House) -> None:
    source = (await house.ask("POST", "/v1/sources", body={"kind": "payments", "venue": VENUE})).json()
    path, secret = source["path"], source["secret"]
    body = {"type": "top_up", "subject": 5, "amount": 1000, "currency": "EUR"}
    for _ in range(3):
        told = await house.tell(path, secret, body)
        assert (told.status_code, told.json()) == (200, {"settled": True}), told.text
    assert (await house.ask("GET", "/v1/wallet", "shopper")).json()["balances"] == {"EUR": 1000}
    other = await house.tell(path, secret, body | {"amount": 2000})
    assert (other.status_code, other.json()["code"]) == (409, "exists_with_different_amount"), "one id, two messages"
    assert (await house.tell(path, secret, body, message="m2")).status_code == 200
    assert (await house.ask("GET", "/v1/wallet", "shopper")).json()["balances"] == {"EUR": 2000}
    now_s = house.mall.clock.unix_ms() // 1000
    for what in ({"at_s": now_s - 3600}, {"at_s": now_s + 3600}, {"sign": body | {"amount": 1}}):
        refused = await house.tell(path, secret, body, message="m3", **what)
        assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated"), what
    wrong = await house.tell(path, "whsec_" + "AAAA" * 8, body, message="m3")
    nowhere = await house.tell(path + "x", secret, body, message="m3")
    elsewhere = await house.tell(path.replace("/demo/", "/other/"), secret, body, message="m3")
    assert {reply.json()["detail"] for reply in (wrong, nowhere, elsewhere)} == {wrong.json()["detail"]}, "not even that there is such a source"
    sensors = await house.tell(path, secret, {"type": "gates", "counts": [{"gate": "n", "sequence": 1, "entered": 1, "left": 0}]}, message="m4")
    assert (sensors.status_code, "payments" in sensors.json()["detail"]) == (422, True)
    assert (await house.ask("DELETE", f"/v1/sources/{source['id']}")).status_code == 204
    assert (await house.tell(path, secret, body, message="m5")).status_code == 401
    assert (await house.ask("GET", "/v1/wallet", "shopper")).json()["balances"] == {"EUR": 2000}


async def test_sensors_count_gates_once_and_set_bays(house: House) -> None:
    source = (await house.ask("POST", "/v1/sources", body={"kind": "sensors", "venue": VENUE})).json()
    path, secret = source["path"], source["secret"]
    counts = {"type": "gates", "counts": [{"gate": "north", "sequence": 1, "entered": 7, "left": 2}]}
    first = await house.tell(path, secret, counts)
    assert (first.status_code, first.json()["inside"]) == (200, 5), first.text
    assert (await house.tell(path, secret, counts)).json() == first.json()
    later = {"type": "gates", "counts": [{"gate": "north", "sequence": 2, "entered": 9, "left": 2}]}
    assert (await house.tell(path, secret, later, message="m2")).json()["inside"] == 7
    bays = await house.tell(path, secret, {"type": "bays", "bays": [{"unit_id": "nowhere", "occupied": True}]}, message="m3")
    assert (bays.status_code, bays.json()["code"]) == (409, "bay_not_found")
    money = await house.tell(path, secret, {"type": "top_up", "subject": 5, "amount": 1, "currency": "EUR"}, message="m4")
    assert money.status_code == 422
    for body in ({"type": "nothing"}, [], {"type": "bays", "bays": []}, {"type": "gates", "counts": counts["counts"], "more": 1}):
        assert (await house.tell(path, secret, body, message="m5")).status_code == 422, body
