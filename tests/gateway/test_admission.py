"""Shared limits: of an address, of a person over all connections, of a tenant over all gateways."""

from __future__ import annotations

import asyncio
import gc

import pytest

from esplanade.core.clock import ManualClock, RealClock
from esplanade.storage.quota import MemoryQuota
from gateway import admission
from gateway.admission import AddressMeter, Allowance, PersonMeters, Plan, Plans, Returns, TenantMeters, network_of
from gateway.metrics import GatewayMetrics
from tests.gateway.mall import until


def test_an_address_has_its_attempts_a_minute() -> None:
    meter = AddressMeter(60)
    assert sum(meter.take("192.0.2.1", 0.0) for _ in range(100)) == 60
    assert meter.open("192.0.2.2", 0.0)
    assert not meter.open("192.0.2.1", 0.9)
    assert meter.open("192.0.2.1", 1.0)
    assert sum(meter.take("192.0.2.1", 3600.0) for _ in range(100)) == 60, "no more is saved up"


def test_attempts_that_prove_vain_afterwards_run_into_debt_of_a_minute_at_most() -> None:
    meter = AddressMeter(60)
    for _ in range(1000):
        meter.charge("192.0.2.1", 0.0)
    assert not meter.open("192.0.2.1", 60.5)
    assert meter.open("192.0.2.1", 61.5)


def test_one_customer_has_many_ipv6_addresses_and_one_limit() -> None:
    assert network_of("2001:db8:1:2::1") == network_of("2001:db8:1:2:ffff::2")
    assert network_of("2001:db8:1:2::1") != network_of("2001:db8:1:3::1")
    assert network_of("::ffff:192.0.2.1") == "192.0.2.1"
    assert network_of("fe80::1%eth0") == network_of("fe80::2")
    assert network_of("no:address") == "no:address"


def test_those_who_must_come_again_come_one_after_another_within_bounds() -> None:
    returns = Returns(10.0)
    moments = [returns.later(100.0) for _ in range(1000)]
    assert moments[:3] == pytest.approx([0.5, 0.6, 0.7])
    assert (min(moments), max(moments)) == (pytest.approx(0.5), pytest.approx(30.0, abs=0.11))
    seconds = [sum(s <= moment < s + 1 for moment in moments) for s in range(1, 29)]
    assert max(seconds) <= 44, "a thousand within half a minute, as evenly as may be"
    assert returns.later(200.0) == pytest.approx(0.5), "nobody comes any more"


def test_addresses_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_ADDRESSES", 10)
    meter = AddressMeter(1)
    for i in range(100):
        meter.charge(f"192.0.2.{i}", 0.0)
    assert len(meter._held) == 10
    assert not meter.open("192.0.2.99", 0.0)


def test_devices_of_a_person_share_a_bucket_for_as_long_as_one_is_connected() -> None:
    meters = PersonMeters()
    phone, tablet = meters.of("demo", 7, "shopper", 0.0), meters.of("demo", 7, "shopper", 0.0)
    assert phone is tablet
    assert meters.of("other", 7, "shopper", 0.0) is not phone
    taken = sum(phone.take(0.0) for _ in range(1000))
    assert taken == 180, "three times the burst of a shopper"
    del phone, tablet
    gc.collect()
    assert len(meters._held) == 0


def meters(quota: MemoryQuota, clock: ManualClock | RealClock, limit: int = 1000, metrics: GatewayMetrics | None = None) -> TenantMeters:
    return TenantMeters(quota, clock, metrics or GatewayMetrics(), Plans({"small": Plan(requests_per_s=limit)}, {"demo": "small"}))


async def test_without_a_plan_there_is_no_limit() -> None:
    clock = ManualClock()
    assert await meters(MemoryQuota(clock), clock).of("other") is None


async def test_gateways_together_keep_a_tenants_limit() -> None:
    clock = ManualClock()  # one second stands still: all that follows is within one window
    quota = MemoryQuota(clock)
    gateways = [meters(quota, clock) for _ in range(4)]
    allowances = [await one.of("demo") for one in gateways]
    taken = 0
    for _ in range(50):
        for one, allowance in zip(gateways, allowances, strict=True):
            assert allowance is not None
            taken += sum(allowance.take() for _ in range(200))
            await one._lease("demo", allowance, 0.25)
    assert taken == 1000
    clock.advance(1.0)
    for one, allowance in zip(gateways, allowances, strict=True):
        assert allowance is not None
        await one._lease("demo", allowance, 0.25)
    assert sum(allowance.left for allowance in allowances if allowance is not None) <= 1000
    assert any(allowance.take() for allowance in allowances if allowance is not None)


async def test_an_idle_gateway_leaves_the_tenants_share_to_a_busy_one() -> None:
    clock = ManualClock()
    quota = MemoryQuota(clock)
    idle, busy = meters(quota, clock), meters(quota, clock)
    resting, working = await idle.of("demo"), await busy.of("demo")
    assert isinstance(resting, Allowance)
    assert isinstance(working, Allowance)
    taken = 0
    for _ in range(20):
        taken += sum(working.take() for _ in range(200))
        await busy._lease("demo", working, 0.25)
    assert taken + resting.left == 1000
    assert resting.left <= 1000 / admission.SHARE


async def test_while_the_store_is_away_each_gateway_goes_by_the_rate_alone() -> None:
    clock = ManualClock()
    quota = MemoryQuota(clock)
    one = meters(quota, clock)
    allowance = await one.of("demo")
    assert allowance is not None
    quota.available = False
    for _ in range(10):
        while allowance.take():
            pass
        await one._lease("demo", allowance, 0.25)
        assert one.away
        assert 0 < allowance.left <= 250
    quota.available = True
    clock.advance(1.0)
    while allowance.take():
        pass
    await one._lease("demo", allowance, 0.25)
    assert not one.away


async def test_who_runs_out_gets_more_within_moments_and_refusals_are_counted() -> None:
    clock, metrics = RealClock(), GatewayMetrics()
    one = meters(MemoryQuota(clock), clock, limit=100_000, metrics=metrics)
    one.start()
    allowance = await one.of("demo")
    assert allowance is not None
    while allowance.take():
        pass
    await until(lambda: allowance.left > 0)
    assert metrics.value("esplanade_gateway_quota_refusals_total", "tenant") >= 1
    await one.stop()


async def test_a_take_is_cheap() -> None:
    """A frame must not pay for its tenant's limit: no await, no clock, no lock; the figure is in docs/security.md."""
    clock = ManualClock()
    allowance = await meters(MemoryQuota(clock), clock, limit=10_000_000).of("demo")
    assert allowance is not None
    assert not asyncio.iscoroutinefunction(allowance.take)
    before = allowance.left
    assert allowance.take()
    assert allowance.left == before - 1
