"""Limits that several connections share: of an address before anybody is known there, of a person, and of a tenant by its plan over all gateways.

Per frame this costs a subtraction: what a tenant may do is leased from the quota store in shares, ahead of need. While that store is away each gateway goes by the plan's
rate alone. Pure but for `TenantMeters`, which asks the store; time is an argument or a clock.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final
from weakref import WeakValueDictionary

import msgspec

from esplanade.core.clock import SystemClock
from esplanade.core.errors import EsplanadeError
from esplanade.storage.quota import Quota
from gateway.limits import LIMITS, TokenBucket
from gateway.metrics import GatewayMetrics
from gateway.permissions import Permission, Role

PER_ADDRESS_MIN: Final = 1_000
"""Attempts a minute from one address of people who are not known yet. Who presents a credential that verifies costs nothing: a mall's Wi-Fi is one address."""
MAX_ADDRESSES: Final = 50_000
"""Addresses remembered; beyond, the one longest unseen is forgotten."""
PERSON_FACTOR: Final = 3.0
"""What all connections of one person to a gateway may do, in rates of their role: three devices at full speed."""
SOONEST_S: Final = 0.5
LONGEST_S: Final = 30.0
"""Bounds of the time after which somebody is told to come again."""
LEASE_S: Final = 0.25
"""Between two leases of a tenant that does not run out meanwhile."""
LEASE_SOONEST_S: Final = 0.01
WINDOW_S: Final = 1.0
SHARE: Final = 16
"""A lease is at least this fraction of a tenant's second."""

_log = logging.getLogger("esplanade.gateway.admission")


class AddressMeter:
    """`per_min` attempts a minute and address, as many saved up. Attempts that are only known to have been in vain afterwards may run into debt, a minute's at most."""

    def __init__(self, per_min: int = PER_ADDRESS_MIN) -> None:
        self._rate = per_min / 60.0
        self._burst = float(per_min)
        self._held: OrderedDict[str, tuple[float, float]] = OrderedDict()  # left, as of

    def open(self, address: str, now: float) -> bool:
        """Whether an attempt from there may be looked at."""
        return self._left(network_of(address), now) >= 1.0

    def charge(self, address: str, now: float) -> None:
        """There was one from somebody who is not known."""
        network = network_of(address)
        self._held[network] = (max(-self._burst, self._left(network, now) - 1.0), now)
        self._held.move_to_end(network)
        if len(self._held) > MAX_ADDRESSES:
            self._held.popitem(last=False)

    def take(self, address: str, now: float) -> bool:
        """`open`, then `charge`."""
        may = self.open(address, now)
        if may:
            self.charge(address, now)
        return may

    def _left(self, network: str, now: float) -> float:
        left, at = self._held.get(network, (self._burst, now))
        return min(self._burst, left + (now - at) * self._rate)


class Returns:
    """When those come back who cannot be served now: `per_s` of them within a second, from SOONEST_S to LONGEST_S from now; beyond, the same moments are given out again."""

    def __init__(self, per_s: float) -> None:
        self._apart_s = 1.0 / per_s
        self._last = 0.0

    def later(self, now: float) -> float:
        """Seconds from now for one more."""
        soonest = now + SOONEST_S
        self._last = max(self._last + self._apart_s, soonest)
        if self._last > now + LONGEST_S:
            self._last = soonest
        return self._last - now


def network_of(address: str) -> str:
    """What one customer of a network has: an IPv4 address, the /64 of an IPv6 one."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    return str(parsed.ipv4_mapped) if parsed.ipv4_mapped is not None else str(ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))


class PersonMeters:
    """One bucket for all connections of a person to this gateway; it lives as long as one of them."""

    def __init__(self) -> None:
        self._held: WeakValueDictionary[tuple[str, int], TokenBucket] = WeakValueDictionary()

    def of(self, tenant: str, subject: int, role: Role, now: float) -> TokenBucket:
        bucket = self._held.get((tenant, subject))
        if bucket is None:
            limits = LIMITS[role]
            bucket = self._held[tenant, subject] = TokenBucket(PERSON_FACTOR * limits.frames_per_s, PERSON_FACTOR * limits.burst, now)
        return bucket


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`requests_per_s`: frames and HTTP requests of the whole tenant; `connections`: at once, on each gateway.

    `without`: permissions that nobody of the tenant has, whatever their role: what the plan does not include.
    """

    requests_per_s: int
    connections: int = 1_000_000
    without: frozenset[Permission] = frozenset()


class Plans:
    """Which tenant has which plan. `default`: the plan of tenants without one of their own."""

    def __init__(self, plans: Mapping[str, Plan], tenants: Mapping[str, str], default: str | None = None) -> None:
        self._plans = plans
        self._tenants = tenants
        self._default = default

    def of(self, tenant: str) -> Plan | None:
        return self._plans.get(self._tenants.get(tenant, self._default or ""))


class Allowance:
    """What a tenant may still do here before the next lease."""

    __slots__ = ("_meters", "connections", "left", "plan", "refused", "used")

    def __init__(self, plan: Plan, meters: TenantMeters) -> None:
        self.plan = plan
        self.connections = 0
        self.left = 0
        self.used = 0
        self.refused = 0
        self._meters = meters

    def take(self, n: int = 1) -> bool:
        """Whether there was so much left; takes it."""
        if self.left >= n:
            self.left -= n
            self.used += n
            return True
        self.refused += 1
        self._meters.ran_out()
        return False


class TenantMeters:
    """Allowances of the tenants that have a plan. `start` and `stop` in one loop."""

    def __init__(self, quota: Quota, clock: SystemClock, metrics: GatewayMetrics, plans: Plans) -> None:
        self._quota = quota
        self._clock = clock
        self._metrics = metrics
        self._plans = plans
        self._held: dict[str, Allowance] = {}  # of tenants that somebody was known to belong to: as many as the catalogue has
        self._out = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.away = False

    def start(self) -> None:
        self._task = asyncio.ensure_future(self._run())

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def of(self, tenant: str) -> Allowance | None:
        """A tenant's allowance, with a first share; None where no plan limits it."""
        plan = self._plans.of(tenant)
        if plan is None:
            return None
        held = self._held.get(tenant)
        if held is None:
            held = self._held[tenant] = Allowance(plan, self)
            await self._lease(tenant, held, LEASE_S)
        return held

    def ran_out(self) -> None:
        self._out.set()

    async def _run(self) -> None:
        last = self._clock.monotonic_s()
        while True:
            try:
                async with asyncio.timeout(LEASE_S):
                    await self._out.wait()
            except TimeoutError:
                pass
            else:
                await asyncio.sleep(LEASE_SOONEST_S)
            self._out.clear()
            now = self._clock.monotonic_s()
            passed, last = now - last, now
            for tenant, allowance in list(self._held.items()):
                if allowance.refused:
                    self._metrics.count("esplanade_gateway_quota_refusals_total", allowance.refused, label="tenant")
                if allowance.used or allowance.refused:
                    await self._lease(tenant, allowance, passed)

    async def _lease(self, tenant: str, allowance: Allowance, passed_s: float) -> None:
        """Top up to what the last period used, twice, and what it lacked."""
        limit = allowance.plan.requests_per_s
        target = min(limit, max(limit // SHARE, 1, 2 * allowance.used + allowance.refused))
        allowance.used = allowance.refused = 0
        wanted = target - allowance.left
        if wanted < 1:
            return
        try:
            allowance.left += await self._quota.take(f"tenant:{tenant}", wanted, limit=limit, window_s=WINDOW_S)
            self.away = False
        except EsplanadeError as error:
            if not self.away:
                _log.warning("quota_away", extra={"error": error.message})
            self.away = True
            allowance.left = min(target, allowance.left + max(1, round(limit * passed_s)))
