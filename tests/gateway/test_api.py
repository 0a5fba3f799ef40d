"""The HTTP side, asked in process."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from actors.messages import GetBooks
from actors.profile import ShardProfile
from esplanade.core.clock import ManualClock
from esplanade.core.ids import Address
from esplanade.storage.memory import MemoryAudit, MemoryBroker, MemoryCatalogue, MemoryHub
from gateway.api import LOCAL_SUBJECT, ApiSettings, Check, build_api, gateways_check, serve_api
from gateway.audit_trail import AuditTrail
from gateway.auth import Signer, Verifier
from gateway.metrics import METRICS_PREFIX, GatewayMetrics
from gateway.permissions import ROLES
from tests.actors.parkside import document
from tests.actors.stage import stage

SIGNER = Signer(b"k" * 32)


async def fine() -> str | None:
    return None


class Api:
    def __init__(self, **settings: Any) -> None:
        self.clock = ManualClock()
        self.catalogue = MemoryCatalogue(self.clock)
        self.broker = MemoryBroker(MemoryHub(self.clock))
        self.checks: dict[str, Check] = {"postgres": fine, "redis": fine}
        self.profiles: list[dict[str, object]] = []
        self.settings = ApiSettings(ws_url="ws://127.0.0.1:7001/v1/ws", **settings)

    async def client(self) -> httpx.AsyncClient:
        await self.catalogue.add_tenant("demo", "Demo")
        await self.catalogue.put_venue("demo", document())

        async def profile() -> list[dict[str, object]]:
            return self.profiles

        app = build_api(
            catalogue=self.catalogue, broker=self.broker, signer=SIGNER, clock=self.clock, settings=self.settings, checks=self.checks, profile=profile
        )
        return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:7000")


@pytest.fixture
async def api() -> AsyncIterator[tuple[Api, httpx.AsyncClient]]:
    made = Api(local_sign_in=True, public_venues=True)
    async with await made.client() as client:
        yield made, client


Both = tuple[Api, httpx.AsyncClient]


async def test_it_answers_that_it_lives(api: Both) -> None:
    assert (await api[1].get("/healthz")).json() == {"status": "ok"}


async def test_readiness_names_what_is_not_ready(api: Both) -> None:
    made, client = api
    assert (await client.get("/readyz")).json() == {"ready": True, "checks": {"postgres": "ok", "redis": "ok"}}

    async def broken() -> str | None:
        raise OSError("connection refused")

    async def lame() -> str | None:
        return "1 of 2 answers"

    made.checks.update(redis=broken, shards=lame)
    async with await made.client() as again:
        reply = await again.get("/readyz")
    assert reply.status_code == 503
    assert reply.json() == {"ready": False, "checks": {"postgres": "ok", "redis": "OSError: connection refused", "shards": "1 of 2 answers"}}


async def test_readiness_of_gateways_is_their_reporting(api: Both) -> None:
    made, _ = api
    check, both = gateways_check(made.broker, 1), gateways_check(made.broker, 2)
    assert await check() == "0 of 1 report (none)"
    for name in ("gateway-1", "api"):
        await made.broker.put(f"{METRICS_PREFIX}{name}", GatewayMetrics().snapshot(name), ttl_s=10)
    assert await check() is None
    assert await both() == "1 of 2 report (gateway-1)"
    made.clock.advance(11)
    assert await check() is not None


async def test_venues_are_listed_and_their_documents_served_once(api: Both) -> None:
    _, client = api
    assert (await client.get("/v1/venues")).json() == [{"tenant": "demo", "id": "parkside", "name": "Parkside", "kind": "mall"}]
    reply = await client.get("/v1/venues/demo/parkside", headers={"accept-encoding": "identity"})
    assert reply.content == document()
    etag = reply.headers["etag"]
    assert etag == f'"{hashlib.sha256(document()).hexdigest()}"'
    again = await client.get("/v1/venues/demo/parkside", headers={"if-none-match": etag})
    assert (again.status_code, again.content) == (304, b"")
    async with client.stream("GET", "/v1/venues/demo/parkside", headers={"accept-encoding": "gzip"}) as packed:
        assert packed.headers["content-encoding"] == "gzip"
        assert gzip.decompress(b"".join([part async for part in packed.aiter_raw()])) == document()


async def test_without_the_setting_venues_are_for_tokens_of_their_tenant() -> None:
    """A stranger could list every tenant's venues, and read their documents."""
    made = Api()
    async with await made.client() as client:
        await made.catalogue.add_tenant("other", "Other")
        await made.catalogue.put_venue("other", document(venue_id="elsewhere"))
        for path in ("/v1/venues", "/v1/venues/demo/parkside", "/v1/venues/demo/nowhere"):
            reply = await client.get(path)
            assert (reply.status_code, reply.json()["code"], reply.headers["www-authenticate"]) == (401, "unauthenticated", "Bearer")
        assert (await client.get("/v1/console")).json()["venues"] == []
        for role in ROLES:
            token = SIGNER.issue(1, "demo", role, None, 60, made.clock.unix_ms() / 1000)
            headers = {"authorization": f"Bearer {token}"}
            assert [line["id"] for line in (await client.get("/v1/venues", headers=headers)).json()] == ["parkside"]
            assert (await client.get("/v1/venues/demo/parkside", headers=headers)).status_code == 200
            theirs, none = [await client.get(f"/v1/venues/other/{venue}", headers=headers) for venue in ("elsewhere", "nowhere")]
            assert theirs.status_code == none.status_code == 404
            assert theirs.json()["detail"].replace("elsewhere", "nowhere") == none.json()["detail"], "not even that it exists there"
        assert (await client.get("/v1/venues", headers={"authorization": "Bearer nonsense"})).status_code == 401


@pytest.mark.parametrize("path", ["/v1/venues/demo/nowhere", "/v1/venues/other/parkside", "/v1/nothing", "/v1/venues/demo/../../x"])
async def test_what_is_not_there_is_a_problem_with_a_code(api: Both, path: str) -> None:
    reply = await api[1].get(path)
    assert reply.status_code == 404
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json()["code"] == "not_found"


async def test_the_console_hears_where_to_connect(api: Both) -> None:
    config = (await api[1].get("/v1/console")).json()
    assert (config["ws_url"], config["local_sign_in"], len(config["venues"])) == ("ws://127.0.0.1:7001/v1/ws", True, 1)


async def test_tokens_issued_and_refused_are_in_the_audit_trail() -> None:
    made, log, metrics = Api(local_sign_in=True), MemoryAudit(), GatewayMetrics()
    trail = AuditTrail(log, made.clock, metrics, run=b"r" * 8)
    trail.start()
    await made.catalogue.add_tenant("demo", "Demo")
    app = build_api(
        catalogue=made.catalogue,
        broker=made.broker,
        signer=SIGNER,
        clock=made.clock,
        settings=made.settings,
        checks={},
        audit=trail,
        own_metrics=metrics,
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:7000") as client:
        assert (await client.post("/v1/local/token", json={"role": "operator", "tenant": "demo"})).status_code == 200
        refused = await client.post("/v1/local/token", json={"role": "operator", "tenant": "demo"}, headers={"origin": "http://evil.example"})
        assert refused.status_code == 403
        await trail.stop()
        assert 'esplanade_gateway_audit_lines_total{process="api"} 2.0' in (await client.get("/metrics")).text
    lines = await log.lines("demo")
    assert [(line.what, line.target, line.outcome) for line in lines] == [
        ("token.issue", f"operator:{LOCAL_SUBJECT}", "done"), ("token.issue", "operator", "forbidden"),
    ]  # fmt: skip


async def test_metrics_of_every_process_are_one_page(api: Both) -> None:
    made, client = api
    metrics = GatewayMetrics()
    metrics.count("esplanade_gateway_frames_in_total", 3, label="ping")
    metrics.observe(0.0015)
    metrics.observe(99.0)
    for process in ("g1", "g2"):
        await made.broker.put(f"{METRICS_PREFIX}{process}", metrics.snapshot(process, [("esplanade_gateway_connections", 7)]), ttl_s=10)
    made.profiles = [{"shard": "shard-0", "turns": 12, "node": "x"}]
    text = (await client.get("/metrics")).text
    for line in (
        'esplanade_up{process="g1"} 1.0',
        'esplanade_gateway_frames_in_total{op="ping",process="g2"} 3.0',
        'esplanade_gateway_connections{process="g1"} 7.0',
        'esplanade_gateway_request_seconds_bucket{le="0.001",process="g1"} 0.0',
        'esplanade_gateway_request_seconds_bucket{le="0.002",process="g1"} 1.0',
        'esplanade_gateway_request_seconds_bucket{le="+Inf",process="g1"} 2.0',
        'esplanade_gateway_request_seconds_count{process="g1"} 2.0',
        'esplanade_shard{counter="turns",shard="shard-0"} 12.0',
    ):
        assert line in text, line
    made.clock.advance(11)
    assert "g1" not in (await client.get("/metrics")).text


# --- local sign-in ----------------------------------------------------------------------------------------------------

HOME = {"origin": "http://127.0.0.1:7000", "sec-fetch-site": "same-origin"}


async def test_the_local_operator_gets_a_token_that_verifies(api: Both) -> None:
    made, client = api
    reply = (await client.post("/v1/local/token", json={"role": "operator", "tenant": "demo"}, headers=HOME)).json()
    identity = Verifier(SIGNER.public_key).verify(reply["token"], made.clock.unix_ms() / 1000)
    assert (identity.subject, identity.role, identity.tenant, identity.source) == (LOCAL_SUBJECT, "operator", "demo", None)
    one, two = [(await client.post("/v1/local/token", json={"role": "shopper", "tenant": "demo"})).json()["subject"] for _ in range(2)]
    assert two == one + 1


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        ({"role": "operator", "tenant": "demo"}, {"host": "rebound.example:7000"}, 403),
        ({"role": "operator", "tenant": "demo"}, {"host": "127.0.0.1.evil.example"}, 403),
        ({"role": "operator", "tenant": "demo"}, {"origin": "http://evil.example"}, 403),
        ({"role": "operator", "tenant": "demo"}, {"origin": "null"}, 403),
        ({"role": "operator", "tenant": "demo"}, {"origin": "http://127.0.0.1:9999"}, 403),
        ({"role": "operator", "tenant": "demo"}, {"sec-fetch-site": "cross-site"}, 403),
        ({"role": "operator", "tenant": "nobody"}, {}, 404),
        ({"role": "feed", "tenant": "demo"}, {}, 422),
        ({"role": "operator"}, {}, 422),
        ({"role": "operator", "tenant": "demo", "source": "x"}, {}, 422),
    ],
)
async def test_a_stranger_gets_no_token(api: Both, body: dict[str, str], headers: dict[str, str], status: int) -> None:
    reply = await api[1].post("/v1/local/token", json=body, headers=headers)
    assert reply.status_code == status
    assert "token" not in reply.json()


async def test_local_sign_in_is_off_unless_switched_on() -> None:
    async with await Api().client() as client:
        assert (await client.post("/v1/local/token", json={"role": "operator", "tenant": "demo"})).status_code == 403
        assert (await client.get("/v1/console")).json()["local_sign_in"] is False


# --- the console's files ----------------------------------------------------------------------------------------------


async def test_a_missing_console_is_said_plainly() -> None:
    async with await Api(console_missing="npm could not be reached <offline>").client() as client:
        reply = await client.get("/")
        assert reply.status_code == 200
        assert "npm could not be reached &lt;offline&gt;" in reply.text
        assert (await client.get("/assets/app.js")).status_code == 404


async def test_the_console_is_served_and_nothing_beside_it(tmp_path: Path) -> None:
    dist = tmp_path / "dist"
    (dist / "assets").mkdir(parents=True)
    (dist / "index.html").write_text("<title>console</title>")
    (dist / "assets" / "app-B4cd3F9a.js").write_text("1")
    (tmp_path / "secret.txt").write_text("secret")
    (dist / "link.txt").symlink_to(tmp_path / "secret.txt")
    async with await Api(console=dist).client() as client:
        page = await client.get("/")
        assert page.text == "<title>console</title>"
        assert page.headers["cache-control"] == "no-cache"
        script = await client.get("/assets/app-B4cd3F9a.js")
        assert "immutable" in script.headers["cache-control"]
        for path in ("/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "/link.txt", "/assets/", "/assets/nothing.js"):
            reply = await client.get(path)
            assert reply.status_code == 404, path
            assert "secret" not in reply.text.replace("secret.txt", "")


async def test_every_answer_carries_security_headers(api: Both) -> None:
    for path in ("/", "/healthz", "/v1/nothing", "/metrics"):
        headers = (await api[1].get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "connect-src 'self' ws://127.0.0.1:7001" in headers["content-security-policy"]
        assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.services
async def test_it_is_served_on_a_free_port_and_stops() -> None:
    made = Api()
    await made.client()
    app = build_api(catalogue=made.catalogue, broker=made.broker, signer=SIGNER, clock=made.clock, settings=made.settings, checks={})
    server = await serve_api(app)
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"http://127.0.0.1:{server.port}/readyz")).json() == {"ready": True, "checks": {}}
    with pytest.raises(OSError):
        await serve_api(app, port=server.port)
    await server.stop()
    async with httpx.AsyncClient() as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(f"http://127.0.0.1:{server.port}/healthz")


async def _profiles() -> list[dict[str, object]]:
    """Of a real shard that did something, each request of it sampled."""
    async with stage() as at:
        [shard] = at.system.shards
        for tenant in ("demo", "other"):
            shard._meter.timed("ledger", f"ledger/{tenant}/0", 0.001, 100, 256)
        await at.system.ask(Address("ledger", "demo", "0"), GetBooks())
        return await at.system.profile()


async def test_the_profile_is_for_this_machine_and_for_operators_of_their_tenant(api: Both) -> None:
    made, client = api
    made.profiles = await _profiles()

    def hot(reply: httpx.Response) -> list[str]:
        [shard] = msgspec.json.decode(reply.content, type=list[ShardProfile])
        return [actor.address for actor in shard.hot]

    assert hot(await client.get("/v1/profile")) == ["ledger/demo/0", "ledger/other/0"]
    now_s = made.clock.unix_ms() / 1000
    for role, status in (("operator", 200), ("engineer", 200), ("shopper", 403), ("feed", 403)):
        token = SIGNER.issue(1, "other", role, None, 60, now_s)
        reply = await client.get("/v1/profile", headers={"authorization": f"Bearer {token}"})
        assert reply.status_code == status
        if status == 200:
            assert hot(reply) == ["ledger/other/0"]
    assert (await client.get("/v1/profile", headers={"origin": "http://evil.example"})).status_code == 403
    assert (await client.get("/v1/profile", headers={"authorization": "Bearer nonsense"})).status_code == 401


async def test_the_profile_wants_a_token_where_local_sign_in_is_off() -> None:
    async with await Api().client() as client:
        assert (await client.get("/v1/profile")).status_code == 401


async def test_metrics_tell_histograms_kinds_and_ranks_and_no_addresses(api: Both) -> None:
    made, client = api
    made.profiles = await _profiles()
    text = (await client.get("/metrics")).text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert [s.value for s in families["esplanade_shard_requests"].samples if s.labels == {"shard": "shard-0", "kind": "ledger"}] == [512.0]
    turns = families["esplanade_shard_turn_seconds"].samples
    assert next(s.value for s in turns if s.name.endswith("_bucket") and s.labels["le"] == "0.001") == 2
    assert next(s.value for s in families["esplanade_shard_answer_seconds"].samples if s.name.endswith("_count")) == 1
    assert [s.labels["rank"] for s in families["esplanade_shard_hot_requests"].samples] == ["1", "2"]
    assert "ledger/demo" not in text
