"""Sockets and who holds them: revoked ones close, keys are confined, strangers are limited, certificates change under open connections."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from cryptography import x509
from fastapi import FastAPI
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from esplanade.core.errors import Forbidden, InvalidInput, SecondFactorNeeded
from esplanade.storage.identity import ApiKey, Revocation
from esplanade.storage.memory_identity import IdentityShelf, MemoryIdentity
from esplanade.storage.quota import MemoryQuota
from esplanade.storage.sealing import Vault
from gateway.admission import Plan, Plans, TenantMeters
from gateway.api import serve_api
from gateway.auth import Verifier
from gateway.client import Client
from gateway.codes import CloseCode
from gateway.credentials import Credentials
from gateway.metrics import GatewayMetrics
from gateway.server import GatewayServer, GatewaySettings
from gateway.signing_keys import SigningKeys
from gateway.tls import Certificate
from tests.actors.parkside import keys, u4
from tests.gateway.certificates import certify
from tests.gateway.mall import TILL, VENUE, Mall, running_mall, until


class Doors:
    """A mall whose gateways know of identities."""

    def __init__(self, mall: Mall) -> None:
        self.mall = mall
        self.shelf = IdentityShelf()
        self.store = MemoryIdentity(self.shelf)
        self.vault = Vault(b"m" * 32, os.urandom)
        self.servers: list[GatewayServer] = []

    async def gateway(self, **more: Any) -> tuple[GatewayServer, str]:
        mall, metrics = self.mall, GatewayMetrics()
        store = MemoryIdentity(self.shelf)
        self.keys = SigningKeys(store, self.vault, mall.clock)
        credentials = Credentials(Verifier({}), mall.clock, metrics, store=store, catalogue=mall.catalogue, vault=self.vault, keys=self.keys)
        settings = GatewaySettings(**{name: more.pop(name) for name in list(more) if name in GatewaySettings.__dataclass_fields__})
        server = GatewayServer(
            mall.system,
            mall.journal,
            mall.broker,
            mall.catalogue,
            Verifier({}),
            self.keys,
            mall.clock,
            settings,
            metrics=metrics,
            credentials=credentials,
            **more,
        )
        port = await server.start()
        self.servers.append(server)
        return server, f"{'ws' if server._certificate is None else 'wss'}://127.0.0.1:{port}/v1/ws"

    def token(self, subject: int, role: Any = "shopper", **more: Any) -> str:
        return self.keys.issue(subject, "demo", role, None, 600, self.mall.clock.unix_ms() / 1000, **more)

    async def key(self, secret: str, **more: Any) -> None:
        made = ApiKey("k1", "demo", "till", "operator", None, None, None, None, 9, self.mall.clock.unix_ms())
        await self.store.add_key(msgspec.structs.replace(made, **more), hashlib.sha256(secret.encode()).digest())

    async def revoke(self, kind: Any, what: str) -> None:
        now_ms = self.mall.clock.unix_ms()
        assert await self.store.revoke(Revocation("demo", kind, what, now_ms, now_ms + 86_400_000))


@pytest.fixture
async def doors() -> AsyncIterator[Doors]:
    async with running_mall() as mall:
        made = Doors(mall)
        yield made
        for server in made.servers:
            await server.stop()


async def said_hello(url: str, token: str, **more: Any) -> Any:
    ws = await connect(url, subprotocols=["esplanade.v1.json"], proxy=None, **more)  # type: ignore[list-item]
    await ws.send(msgspec.json.encode({"op": "hello", "client": "phone", "token": token}).decode())
    return ws


async def closed(ws: Any) -> int:
    async with asyncio.timeout(30):
        with contextlib.suppress(ConnectionClosed):
            while True:
                await ws.recv()
    return int(ws.close_code)


async def test_what_is_revoked_is_closed_on_every_gateway_and_does_not_come_back(doors: Doors) -> None:
    urls = [(await doors.gateway())[1] for _ in range(2)]
    await doors.key("esk_k1_a")
    held = [await said_hello(url, token) for url in urls for token in (doors.token(7), "esk_k1_a")]
    stays = [await said_hello(url, doors.token(8)) for url in urls]
    for ws in (*held, *stays):
        assert b'"welcome"' in (await ws.recv()).encode()
    await doors.revoke("subject", "7")
    await doors.revoke("key", "k1")
    assert {await closed(ws) for ws in held} == {CloseCode.REVOKED}
    for ws in stays:
        await ws.send('{"op":"ping","seq":1}')
        assert "pong" in await ws.recv()
        await ws.close()
    for token in ("esk_k1_a",):
        assert await closed(await said_hello(urls[1], token)) == CloseCode.UNAUTHENTICATED


async def test_a_tills_key_reaches_its_till_and_nothing_else(doors: Doors) -> None:
    _, url = await doors.gateway()
    await doors.key("esk_k1_a", permissions=("wallets.read", "venue.read"), venue=VENUE, unit=TILL)
    client = await Client.connect(url, token="esk_k1_a", client="till", venue=VENUE)
    assert (await client.request("get_till", venue=VENUE, unit=TILL))["op"] == "till_is"
    for op, fields in [
        ("get_till", {"venue": VENUE, "unit": "shop-01"}),
        ("get_till", {"venue": "field", "unit": TILL}),
        ("get_offers", {"venue": "field"}),
        ("get_books", {}),
        ("end_offer", {"venue": VENUE, "offer": "x", "tick": 1}),
    ]:
        with pytest.raises(Forbidden):
            await client.request(op, **fields)
    with pytest.raises(Forbidden):
        await client.subscribe("venue/field/stats")
    await client.close()
    with pytest.raises(Forbidden, match="confined"):
        await Client.connect(url, token="esk_k1_a", client="till", venue="field")


async def test_a_grave_act_waits_for_a_second_factor_which_renew_brings(doors: Doors) -> None:
    _, url = await doors.gateway()
    client = await Client.connect(url, token=doors.token(3, "operator"), client="desk")
    top_up = {"tick": 1, "key": keys(1), "subject": u4(5), "amount": u4(100_001), "currency": "EUR"}
    with pytest.raises(SecondFactorNeeded, match="second factor"):
        await client.request("top_ups", **top_up)
    assert (await client.request("top_ups", **top_up | {"key": keys(2), "amount": u4(1000)}))["op"] == "settled"
    strong = doors.token(3, "operator", strong_unix_s=doors.mall.clock.unix_ms() / 1000)
    await client.request("renew", token=strong)
    assert (await client.request("top_ups", **top_up))["op"] == "settled"
    with pytest.raises(Forbidden):
        await client.request("renew", token=doors.token(4, "operator"))
    await client.close()


async def test_strangers_from_one_address_are_limited_and_people_with_tokens_are_not(doors: Doors) -> None:
    server, url = await doors.gateway(per_address_min=5)
    for _ in range(20):
        client = await Client.connect(url, token=doors.token(7), client="phone")
        await client.close()
    for _ in range(5):
        assert await closed(await said_hello(url, "a.b.c")) == CloseCode.UNAUTHENTICATED
    await until(lambda: not server.addresses.open("127.0.0.1", server.clock.monotonic_s()))
    with pytest.raises(InvalidStatus) as refused:
        await said_hello(url, "a.b.c")
    assert refused.value.response.status_code == 429
    assert server.metrics.value("esplanade_gateway_refused_connections_total", "address") == 1


async def test_strangers_who_do_not_wait_for_their_refusal_are_limited_too(doors: Doors) -> None:
    server, url = await doors.gateway(per_address_min=5)
    for _ in range(5):
        ws = await said_hello(url, "a.b.c")
        ws.transport.abort()
    await until(lambda: not server.addresses.open("127.0.0.1", server.clock.monotonic_s()))


async def test_devices_of_one_person_share_a_rate(doors: Doors) -> None:
    _, url = await doors.gateway()
    sockets = [await said_hello(url, doors.token(7)) for _ in range(4)]
    for ws in sockets:
        await ws.recv()
        await ws.send(msgspec.json.encode([{"op": "ping", "seq": n} for n in range(1, 61)]).decode())
    answers: list[str] = []
    async with asyncio.timeout(30):
        for ws in sockets:
            while sum(text.count('"seq"') for text in answers) < 60 * (sockets.index(ws) + 1):
                answers.append(await ws.recv())
        for ws in sockets:
            await ws.close()
    text = "".join(answers)
    assert 180 <= text.count('"pong"') < 240
    assert text.count('"limit"') >= 1


async def test_a_tenant_has_as_many_connections_and_requests_as_its_plan_allows(doors: Doors) -> None:
    clock, metrics = doors.mall.clock, GatewayMetrics()
    plans = Plans({"small": Plan(requests_per_s=100, connections=2)}, {"demo": "small"})
    meters = TenantMeters(MemoryQuota(clock), clock, metrics, plans)
    _, url = await doors.gateway(meters=meters)
    held = [await said_hello(url, doors.token(subject, "operator")) for subject in (7, 8)]
    for ws in held:
        assert "welcome" in await ws.recv()
    assert await closed(await said_hello(url, doors.token(9, "operator"))) == CloseCode.FULL
    await held[1].close()
    allowance = await meters.of("demo")
    assert allowance is not None
    await until(lambda: allowance.connections == 1)
    again = await said_hello(url, doors.token(9, "operator"))
    assert "welcome" in await again.recv()
    await again.send(msgspec.json.encode([{"op": "ping", "seq": n} for n in range(1, 201)]).decode())
    text = ""
    async with asyncio.timeout(30):
        while text.count('"seq"') < 200:
            text += await again.recv()
    assert 1 <= text.count('"pong"') < 200
    assert "plan allows no more" in text
    for ws in (held[0], again):
        await ws.close()


# --- TLS ----------------------------------------------------------------------------------------------------------------


def trusting(**limits: Any) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for name, value in limits.items():
        setattr(context, name, value)
    return context


def serial_of(ws: Any) -> int:
    return x509.load_der_x509_certificate(ws.transport.get_extra_info("ssl_object").getpeercert(binary_form=True)).serial_number


async def test_a_certificate_changes_under_open_connections(doors: Doors, tmp_path: Path) -> None:
    certificate = Certificate(*certify(tmp_path, "one", 1))
    _, url = await doors.gateway(certificate=certificate)
    first = await said_hello(url, doors.token(7), ssl=trusting())
    assert "welcome" in await first.recv()
    assert serial_of(first) == 1
    certify(tmp_path, "two", 2)
    await until(lambda: certificate.loads == 2)  # the watch takes it by itself
    second = await said_hello(url, doors.token(8), ssl=trusting())
    assert serial_of(second) == 2
    await first.send('{"op":"ping","seq":1}')
    assert "pong" in await first.recv()
    for ws in (first, second):
        await ws.close()


async def test_a_certificate_that_does_not_fit_leaves_the_one_in_force(tmp_path: Path) -> None:
    chain, key = certify(tmp_path, "one", 1)
    certificate = Certificate(chain, key)
    assert not certificate.reload_if_changed()
    half = certify(tmp_path, "two", 2)[0].read_bytes()
    certify(tmp_path, "three", 3)
    chain.write_bytes(half)  # its key is another's
    assert not certificate.reload_if_changed()
    chain.write_text("nonsense")
    assert not certificate.reload_if_changed()
    certify(tmp_path, "four", 4)
    assert certificate.reload_if_changed()
    with pytest.raises(InvalidInput, match="tls_certificate"):
        Certificate(tmp_path / "nowhere.pem", key)


async def test_old_protocols_are_refused_and_http_has_tls_too(doors: Doors, tmp_path: Path) -> None:
    certificate = Certificate(*certify(tmp_path, "one", 1))
    _, url = await doors.gateway(certificate=certificate)
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old = trusting(minimum_version=ssl.TLSVersion.TLSv1, maximum_version=ssl.TLSVersion.TLSv1_1)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await said_hello(url, doors.token(7), ssl=old)
    ws = await said_hello(url, doors.token(7), ssl=trusting(maximum_version=ssl.TLSVersion.TLSv1_2))
    name, protocol, _ = ws.transport.get_extra_info("ssl_object").cipher()
    assert (name.split("-")[0], protocol) == ("ECDHE", "TLSv1.2")
    await ws.close()
    app = FastAPI()
    app.get("/x")(lambda: "x")
    server = await serve_api(app, certificate=Certificate(*certify(tmp_path, "two", 2)))
    async with httpx.AsyncClient(verify=trusting()) as client:
        assert (await client.get(f"https://127.0.0.1:{server.port}/x")).json() == "x"
    await server.stop()
