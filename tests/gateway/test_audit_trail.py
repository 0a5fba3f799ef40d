"""Acts of operators get a line in the audit trail, refusals too; nobody waits for it, and what is lost is counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest

from esplanade.core.clock import ManualClock
from esplanade.core.errors import EsplanadeError, Unavailable
from esplanade.storage.audit import AuditLine
from esplanade.storage.memory import MemoryAudit
from gateway import audit_trail
from gateway.audit_trail import MAX_WAITING, REFUSALS_PER_S, AuditTrail
from gateway.client import Client
from gateway.metrics import GatewayMetrics
from gateway.server import GatewayServer
from tests.actors.parkside import keys, u4
from tests.gateway.mall import VENUE, Mall, running_mall, until


@pytest.fixture
async def mall() -> AsyncIterator[Mall]:
    async with running_mall() as running:
        yield running


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_trail, "GATHER_S", 0.0)
    monkeypatch.setattr(audit_trail, "AGAIN_S", 0.0)


class Trail:
    def __init__(self, log: MemoryAudit | None = None) -> None:
        self.log = log or MemoryAudit()
        self.metrics = GatewayMetrics()
        self.clock = ManualClock()
        self.trail = AuditTrail(self.log, self.clock, self.metrics, run=b"r" * 8)

    def note(self, number: int = 0, tenant: str = "demo") -> None:
        self.trail.note(tenant=tenant, who="operator:7", what="offer.end", target=f"parkside/{number}", origin="::1")

    def lost(self, reason: str) -> float:
        return self.metrics.value("esplanade_gateway_audit_lost_total", reason)


async def test_lines_are_written_in_batches_in_order_and_none_twice() -> None:
    made = Trail()
    made.trail.start()
    for number in range(1_200):
        made.note(number)
    await until(lambda: made.metrics.value("esplanade_gateway_audit_lines_total") == 1_200)
    lines = await made.log.lines("demo", limit=2_000)
    assert [line.target for line in lines] == [f"parkside/{number}" for number in range(1_200)]
    await made.trail.stop()


class AwayAfterCommit(MemoryAudit):
    """Keeps the first batch and says that it did not."""

    failures = 2

    async def append(self, lines: Sequence[AuditLine]) -> None:
        await super().append(lines)
        if self.failures:
            self.failures -= 1
            raise Unavailable("as the test asked")


async def test_a_batch_of_unknown_fate_is_written_again_and_stands_once() -> None:
    made = Trail(AwayAfterCommit())
    made.trail.start()
    made.note(1)
    made.note(2)
    await until(lambda: made.metrics.value("esplanade_gateway_audit_lines_total") == 2)
    assert len(await made.log.lines("demo")) == 2
    await made.trail.stop()


async def test_at_the_limit_lines_are_lost_and_counted_and_nobody_waits() -> None:
    made = Trail()
    made.log.available = False
    made.trail.start()
    for number in range(MAX_WAITING + 5):
        made.note(number)
    assert made.lost("full") == 5
    await made.trail.stop(timeout_s=0.01)
    assert made.lost("stopped") == MAX_WAITING


async def test_refusals_which_anybody_can_cause_are_kept_to_a_rate() -> None:
    made = Trail()

    def refuse() -> None:
        made.trail.refused(tenant="demo", who="unknown", what="hello", target="gateway", origin="::1", outcome="unauthenticated", why="x\0" * 1_000)

    burst = round(5 * REFUSALS_PER_S)
    for _ in range(burst + 3):
        refuse()
    assert made.lost("rate") == 3
    made.clock.advance(1.0)
    refuse()
    assert made.lost("rate") == 3
    made.trail.start()
    await made.trail.stop()
    lines = await made.log.lines("demo")
    assert len(lines) == burst + 1
    assert len(str(lines[0].detail["why"])) == 512
    assert "\0" not in str(lines[0].detail["why"])


@pytest.mark.services
async def test_what_operators_do_and_who_is_refused_is_noted(mall: Mall) -> None:
    log = MemoryAudit()
    server = GatewayServer(
        mall.system, mall.journal, mall.broker, mall.catalogue, mall.verifier, mall.signer, mall.clock, audit=log, audit_run=b"r" * 8
    )
    url = f"ws://127.0.0.1:{await server.start()}/v1/ws"
    try:
        operator, shopper, feed = await mall.client(url, 7, "operator"), await mall.client(url, 8), await mall.client(url, 9, "feed", source="f")
        offer = {"id": "audited", "unit_id": "shop-00", "title": "Ten off", "audience": {"type": "everyone"}}
        await operator.request("create_offer", venue=VENUE, offer=offer)
        await refused(lambda: operator.request("end_offer", venue=VENUE, offer="never", tick=1), "offer_not_found")
        await operator.top_ups(tick=1, key=keys(91), subject=u4(8), amount=u4(500), currency="EUR")
        await feed.top_ups(tick=1, key=keys(92), subject=u4(8), amount=u4(500), currency="EUR")
        await refused(lambda: shopper.request("end_offer", venue=VENUE, offer="audited", tick=1), "forbidden")
        await refused(lambda: Client.connect(url, token="forged", client="x"), "unauthenticated")
        await until(lambda: server.metrics.value("esplanade_gateway_audit_lines_total") == 5)
    finally:
        await server.stop()
    lines = await log.lines("demo")
    assert [(line.who, line.what, line.target, line.outcome) for line in lines] == [
        ("operator:7", "offer.create", f"{VENUE}/audited", "done"),
        ("operator:7", "offer.end", f"{VENUE}/never", "offer_not_found"),
        ("operator:7", "wallets.top_up", "EUR", "done"),
        ("shopper:8", "frame", "gateway", "forbidden"),
    ]
    assert {line.origin for line in lines} == {"127.0.0.1"}
    assert lines[2].detail == {"rows": 1, "amount": 500}
    assert [(line.who, line.what, line.outcome) for line in await log.lines("-")] == [("unknown", "hello", "unauthenticated")]


async def refused(call: Callable[[], Awaitable[object]], code: str) -> None:
    with pytest.raises(EsplanadeError) as error:
        await asyncio.wait_for(call(), 20)  # type: ignore[arg-type]
    assert error.value.code == code
