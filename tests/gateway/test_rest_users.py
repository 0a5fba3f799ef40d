"""People over HTTP: oneself, what is held, erasure; and scenarios."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from actors.messages import TopUps
from actors.subject_export import held_about
from esplanade.core.ids import Address
from esplanade.storage.memory import MemorySubjectKeys
from esplanade.storage.sealing import Keyring
from gateway.api import ApiSettings, build_api
from gateway.permissions import ROLES, Role
from gateway.rest_users import SubjectKit
from tests.actors.parkside import keys, u4
from tests.gateway.mall import Mall, patiently, running_mall


class House:
    def __init__(self, mall: Mall, client: httpx.AsyncClient, subject_keys: MemorySubjectKeys) -> None:
        self.mall = mall
        self.client = client
        self.keys = subject_keys

    async def ask(
        self, method: str, path: str, role: Role = "shopper", *, subject: int = 5, tenant: str = "demo", body: Any = None
    ) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.mall.token(subject, role, tenant=tenant)}"}
        return await self.client.request(method, path, json=body, headers=headers)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with running_mall() as mall:
        held = MemorySubjectKeys()
        keyring = Keyring(held, b"m" * 32, os.urandom)

        async def export(tenant: str, subject: int) -> dict[str, Any]:
            return await held_about(mall.journal, mall.catalogue, keyring, tenant, subject)

        async def erase(tenant: str, subject: int) -> bool:
            return await held.erase(tenant, str(subject))

        app = build_api(
            catalogue=mall.catalogue, broker=mall.broker, signer=mall.signer, clock=mall.clock, settings=ApiSettings(ws_url="ws://127.0.0.1:1/"), checks={},
            system=mall.system, journal=mall.journal, subjects=SubjectKit(export, erase), scenarios=lambda: [{"name": "a", "title": "A", "venue": "v"}],
        )  # fmt: skip
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:7000") as client:
            yield House(mall, client, held)


async def test_one_reads_ones_profile_and_all_that_is_held_about_oneself(house: House) -> None:
    me = await house.ask("GET", "/v1/users/me")
    assert (me.json()["subject"], me.json()["tenant"], me.json()["role"]) == (5, "demo", "shopper")
    top_up = TopUps(tick=1, key=keys(1), subject=u4(5), amount=u4(700), currency="EUR")
    await patiently(lambda: house.mall.system.ask(Address("ledger", "demo", "5"), top_up))
    for path in ("/v1/users/me/export", "/v1/users/5/export"):
        held = await house.ask("GET", path)
        assert (held.status_code, held.json()["subject"], held.json()["wallet"]["EUR"]["balance"]) == (200, 5, 700)
    by_operator = await house.ask("GET", "/v1/users/5/export", "operator", subject=9)
    assert by_operator.json() == held.json()
    assert (await house.ask("GET", "/v1/users/5/export", "operator", subject=9, tenant="other")).json()["wallet"] == {}, "another tenant's 5"


async def test_one_is_erased_by_oneself_or_an_operator_who_names_them_twice(house: House) -> None:
    await house.keys.key("demo", "5", b"wrapped")
    slip = await house.ask("POST", "/v1/users/5/erasure", body={"subject": 6})
    assert (slip.status_code, await house.keys.erased("demo", "5")) == (422, False)
    done = await house.ask("POST", "/v1/users/me/erasure", body={"subject": 5})
    assert (done.json(), await house.keys.erased("demo", "5")) == ({"subject": 5, "held": True}, True)
    again = await house.ask("POST", "/v1/users/5/erasure", "operator", subject=9, body={"subject": 5})
    assert again.json() == {"subject": 5, "held": False}


async def test_nobody_reads_or_erases_another_but_an_operator(house: House) -> None:
    for role in ROLES:
        for method, path, body in (("GET", "/v1/users/6/export", None), ("POST", "/v1/users/6/erasure", {"subject": 6})):
            reply = await house.ask(method, path, role, body=body)
            assert (reply.status_code == 200) == (role == "operator"), (role, path, reply.text)
        listed = await house.ask("GET", "/v1/scenarios", role)
        assert (listed.status_code == 200) == (role in ("operator", "engineer"))
    for path in ("/v1/users/me", "/v1/users/6/export", "/v1/scenarios"):
        assert (await house.client.get(path)).status_code == 401
    for path in ("/v1/users/-1/export", "/v1/users/x/export", "/v1/users/4294967296/export"):
        assert (await house.ask("GET", path, "operator")).status_code == 422


async def test_scenarios_are_listed_with_an_etag(house: House) -> None:
    listed = await house.ask("GET", "/v1/scenarios", "engineer")
    assert listed.json() == {"scenarios": [{"name": "a", "title": "A", "venue": "v"}]}
    assert listed.headers["etag"]
