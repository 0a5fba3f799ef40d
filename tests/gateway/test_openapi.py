"""The OpenAPI document against the live API: schemathesis makes requests from it, fit and unfit, and holds every answer to what the document says."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from esplanade.storage.memory import MemorySubjectKeys
from esplanade.storage.memory_webhooks import MemoryWebhooks
from esplanade.storage.sealing import Vault
from gateway.api import ApiSettings, PartnerKit, build_api, serve_api
from gateway.rest_users import SubjectKit
from gateway.token_routes import GUEST
from tests.gateway.identity_stage import Stage
from tests.gateway.mall import VENUE, running_mall

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
NOT_HERE = {
    "/v1/stream": "it has no end (test_streams.py)",
    "/metrics": "text of Prometheus",
    "/readyz": "says 503 where nothing is checked to be ready",
}


class Live:
    """The API over a running mall, in a thread with a loop of its own."""

    def __init__(self) -> None:
        self.url = ""
        self.tokens: dict[str, str] = {}
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._end: asyncio.Event
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(120)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._end = asyncio.Event()
        subject_keys = MemorySubjectKeys()

        async def export(tenant: str, subject: int) -> dict[str, Any]:
            return {"subject": subject}

        async def erase(tenant: str, subject: int) -> bool:
            return await subject_keys.erase(tenant, str(subject))

        async with running_mall() as mall:
            app = build_api(
                catalogue=mall.catalogue, broker=mall.broker, signer=mall.signer, clock=mall.clock, settings=ApiSettings(ws_url="ws://127.0.0.1:1/"), checks={},
                system=mall.system, journal=mall.journal, subjects=SubjectKit(export, erase),
                partners=PartnerKit(MemoryWebhooks(mall.store), Vault(b"m" * 32, os.urandom), os.urandom, private=True),
            )  # fmt: skip
            await app.state.background.start()
            server = await serve_api(app)
            self.url = f"http://127.0.0.1:{server.port}"
            self.tokens = {role: mall.token(5, role) for role in ("operator", "shopper")}  # type: ignore[arg-type]
            self._ready.set()
            await self._end.wait()
            await app.state.background.stop()
            await server.stop()


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    live = Live()
    live.start()
    yield live
    live.stop()


KNOWN = {
    "tenant": "demo",
    "venue": VENUE,
    "zone": "front",
    "anchor": bytes(range(16)).hex(),
    "subject": "me",
    "currency": "EUR",
    "level": 0,
    "url": "http://127.0.0.1:9999/",
}


def hold(operation: Any, token: str | None, known: dict[str, Any], answered: Counter[tuple[str, str, int]]) -> None:
    """Try an operation with what its document allows and what it does not; with `known`, of what is there."""

    @settings(max_examples=5, derandomize=True, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def tried(case: Any) -> None:
        for part in (case.path_parameters, case.query, case.body):
            if isinstance(part, dict):
                part.update({name: value for name, value in known.items() if name in part})
        response = case.call_and_validate(checks=CHECKS, headers={} if token is None else {"authorization": f"Bearer {token}"}, timeout=30)
        answered[operation.method, operation.path, response.status_code // 100] += 1

    tried()


def test_every_operation_answers_as_its_document_says(live: Live) -> None:
    operator = {"authorization": f"Bearer {live.tokens['operator']}"}
    wish = {"url": KNOWN["url"], "venue": VENUE, "types": ["offer.changed"]}
    webhook = httpx.post(f"{live.url}/v1/webhooks", json=wish, headers=operator).json()["id"]
    schema = schemathesis.openapi.from_url(f"{live.url}/v1/openapi.json")
    answered: Counter[tuple[str, str, int]] = Counter()
    operations = [result.ok() for result in schema.get_all_operations()]
    for operation in operations:
        if operation.path not in NOT_HERE:
            role = "shopper" if "wallet" in operation.path or "payments" in operation.path else "operator"
            hold(operation, live.tokens[role], KNOWN if operation.method == "delete" else KNOWN | {"webhook": webhook}, answered)
            if "{" in operation.path:
                hold(operation, live.tokens[role], {}, answered)
    tried = {(method, path) for method, path, _ in answered}
    assert len(tried) == len(operations) - len(NOT_HERE) > 30
    fine = {(method, path) for method, path, hundreds in answered if hundreds == 2}
    assert len(fine) > 20, f"an answer is held to the document only where there is one: {sorted(tried - fine)}"


SIGN_IN = {"/v1/token", "/v1/revoke", "/v1/sign-in/code", "/v1/local/token"}


async def test_sign_in_answers_as_its_document_says_and_wants_no_token() -> None:
    stage = Stage()
    await stage.start()
    server = await serve_api(stage.app)
    answered: Counter[tuple[str, str, int]] = Counter()

    def ask() -> set[str]:
        schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/v1/openapi.json")
        operations = [operation for operation in (result.ok() for result in schema.get_all_operations()) if operation.path in SIGN_IN]
        for operation in operations:
            assert operation.definition.raw["security"] == [], operation.path
            hold(operation, None, {"tenant": "demo", "address": "ann@example.org", "channel": "email", "grant_type": GUEST}, answered)
        return {operation.path for operation in operations}

    try:
        assert await asyncio.to_thread(ask) == SIGN_IN
        assert {path for _, path, hundreds in answered if hundreds == 2} >= {"/v1/token", "/v1/revoke", "/v1/sign-in/code"}
        assert {path for _, path, hundreds in answered if hundreds == 4} >= {"/v1/token", "/v1/sign-in/code"}
    finally:
        await server.stop()
        await stage.stop()


def test_the_document_says_what_every_operation_wants_and_how_it_refuses(live: Live) -> None:
    document = httpx.get(f"{live.url}/v1/openapi.json").json()
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert "application/problem+json" in operation["responses"]["4XX"]["content"], path
            assert "422" not in operation["responses"], path
            assert operation.get("description"), f"{method} {path} says nothing of itself"
    for path, method in (("/v1/webhooks", "post"), ("/v1/in/{tenant}/{source}", "post"), ("/graphql", "post"), ("/v1/payments", "post")):
        assert document["paths"][path][method]["requestBody"]["content"]["application/json"]["schema"], path
    assert document["paths"]["/v1/in/{tenant}/{source}"]["post"]["security"] == [], "signed, without a token"
