"""What the limits that several connections share cost a frame: a session with those of person and tenant, and a key's scope; the peer is the same session without.

Process CPU time of `Session.receive` for pings in JSON, n at a time, in turn. Beside it: what it costs to know a credential again at a reconnect, with 1,000 revocations in force, and a token seen first.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from typing import Any

from benchmarks.harness import compare
from esplanade.core.clock import ManualClock, RealClock
from esplanade.storage.identity import ApiKey, Revocation
from esplanade.storage.memory_identity import MemoryIdentity
from esplanade.storage.quota import MemoryQuota
from gateway.admission import Allowance, PersonMeters, Plan, Plans, TenantMeters
from gateway.auth import Identity, Signer, Verifier
from gateway.credentials import Credentials
from gateway.metrics import GatewayMetrics
from gateway.permissions import Scope
from gateway.session import Session

STEP_S = 0.1
"""Between two frames, on the session's own clock: within every rate."""
PING = b'{"op":"ping","seq":1}'


def _session(allowance: Allowance | None, scope: Scope | None) -> Session:
    session = Session("s", "json", 0.0)
    session.receive('{"op":"hello","client":"phone","token":"x"}', 0.0)
    person = PersonMeters().of("demo", 7, "shopper", 0.0) if allowance is not None else None
    identity = Identity(7, "demo", "shopper", None, 1e12, scope=scope)
    session.admit(identity, now=0.0, now_ms=0, person=person, allowance=allowance)
    return session


def _frames_ns(session: Session, n: int) -> float:
    text, now = PING.decode(), 0.0
    began = time.process_time_ns()
    for _ in range(n):
        now += STEP_S
        actions = session.receive(text, now)
        session.answered()
    took = time.process_time_ns() - began
    if len(actions) != 1:
        raise AssertionError(f"the last ping was not taken: {actions}")
    return took / n


async def _known_us(n: int) -> dict[str, object]:
    clock, signer, store = RealClock(), Signer(b"k" * 32), MemoryIdentity()
    secret, now_ms = "esk_" + os.urandom(16).hex(), clock.unix_ms()
    await store.add_key(ApiKey("k", "demo", "till", "operator", None, None, None, None, 9, now_ms), hashlib.sha256(secret.encode()).digest())
    for i in range(1_000):
        await store.revoke(Revocation("demo", "subject", str(10_000 + i), now_ms, now_ms + 10**9))
    credentials = Credentials(Verifier(signer.public_key), clock, GatewayMetrics(), store=store)
    await credentials.start()
    tokens = [signer.issue(i, "demo", "shopper", None, 3600, now_ms / 1000) for i in range(n)]
    told: dict[str, object] = {}
    for name, held in (("token_first_us", tokens), ("token_again_us", tokens), ("api_key_us", [secret] * n)):
        began = time.process_time_ns()
        for token in held:
            await credentials.identify(token)
        told[name] = round((time.process_time_ns() - began) / n / 1000, 2)
    await credentials.stop()
    return told


async def _allowance(n: int) -> Allowance:
    clock = ManualClock()
    meters = TenantMeters(MemoryQuota(clock), clock, GatewayMetrics(), Plans({"p": Plan(requests_per_s=100 * n)}, {}, "p"))
    allowance = await meters.of("demo")
    assert allowance is not None
    return allowance


def run(n: int = 50_000, repeats: int = 7) -> None:
    allowance = asyncio.run(_allowance(n))
    scope = Scope(frozenset({"venue.read", "wallet.use"}), "parkside")

    def ours() -> float:
        allowance.left = n + 1
        return _frames_ns(_session(allowance, scope), n)

    def peer() -> float:
        return _frames_ns(_session(None, None), n)

    more: dict[str, Any] = asyncio.run(_known_us(5_000))
    compare("limits", n=n, ours=ours, peer=peer, unit="ns a frame", higher_is_better=False, repeats=repeats, more=more)
