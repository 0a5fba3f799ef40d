"""Everything about identities on memory drivers and a clock that tests move: keys, credentials, tokens, sign-in, and the API that serves them."""

from __future__ import annotations

import hashlib
from typing import Any

import httpx
import msgspec
from argon2 import PasswordHasher

from esplanade.core.clock import ManualClock
from esplanade.storage.identity import ApiKey
from esplanade.storage.memory import MemoryAudit, MemoryBroker, MemoryCatalogue, MemoryHub
from esplanade.storage.memory_identity import IdentityShelf, MemoryIdentity
from esplanade.storage.quota import MemoryQuota
from esplanade.storage.sealing import Vault
from gateway.api import ApiSettings, build_api
from gateway.audit_trail import AuditTrail
from gateway.auth import Verifier
from gateway.code_delivery import Channel, CodeCourier, CodeSender
from gateway.code_providers import SimulatedProvider
from gateway.credentials import Credentials
from gateway.issuers import Issuers, TrustedIssuer
from gateway.metrics import GatewayMetrics
from gateway.sign_in import CodeDesk, OperatorDesk, Operators
from gateway.signing_keys import SigningKeys
from gateway.token_routes import Doors
from gateway.tokens import TokenDesk
from tests.actors.parkside import document

MASTER = b"m" * 32
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
"""Argon2 as fast as it goes: tests are not after its cost."""


class Counted:
    """Random bytes that a test can foresee, and never the same twice."""

    def __init__(self) -> None:
        self.drawn = 0

    def __call__(self, n: int) -> bytes:
        self.drawn += 1
        return hashlib.shake_128(self.drawn.to_bytes(8, "big")).digest(n)


class Process:
    """What one process knows."""

    def __init__(self, stage: Stage, issuers: Issuers | None = None) -> None:
        self.metrics = GatewayMetrics()
        self.store = MemoryIdentity(stage.shelf)
        self.keys = SigningKeys(self.store, stage.vault, stage.clock)
        self.credentials = Credentials(
            Verifier({}), stage.clock, self.metrics, store=self.store, catalogue=stage.catalogue, vault=stage.vault, keys=self.keys, issuers=issuers
        )

    def refused(self, reason: str) -> float:
        return self.metrics.value("esplanade_gateway_refused_tokens_total", reason)


class Stage:
    """`one` and `two`: processes of one deployment; `client`: of the API of process `one`."""

    def __init__(self, *trusted: TrustedIssuer, documents: dict[str, bytes] | None = None, **settings: Any) -> None:
        self.clock = ManualClock()
        self.shelf = IdentityShelf({"demo", "other"})
        self.random = Counted()
        self.vault = Vault(MASTER, self.random)
        self.catalogue = MemoryCatalogue(self.clock)
        self.documents = {} if documents is None else documents
        self.asked: list[str] = []
        self.issuers = Issuers(trusted, self.clock, self.fetch)
        self.one = Process(self, self.issuers)
        self.two = Process(self, Issuers(trusted, self.clock, self.fetch))
        self.log = MemoryAudit()
        self.audit = AuditTrail(self.log, self.clock, self.one.metrics, run=b"r" * 8)
        self.quota = MemoryQuota(self.clock)
        self.provider = SimulatedProvider()
        self.senders: dict[Channel, CodeSender] = {"sms": self.provider, "email": self.provider}
        self.sms: dict[str, Any] = {}
        self.settings = ApiSettings(ws_url="ws://127.0.0.1:7001/v1/ws", **settings)

    async def fetch(self, address: str) -> bytes:
        from esplanade.core.errors import Unavailable

        self.asked.append(address)
        if address not in self.documents:
            raise Unavailable(f"{address} answered 503")
        return self.documents[address]

    async def start(self) -> None:
        for tenant in ("demo", "other"):
            await self.catalogue.add_tenant(tenant, tenant)
        await self.catalogue.put_venue("demo", document())
        for process in (self.one, self.two):
            await process.credentials.start()
        store = self.one.store
        self.tokens = TokenDesk(
            store=store,
            catalogue=self.catalogue,
            issuer=self.one.keys,
            credentials=self.one.credentials,
            clock=self.clock,
            random=self.random,
            audit=self.audit,
        )
        self.courier = CodeCourier(self.senders, clock=self.clock, metrics=self.one.metrics, audit=self.audit)
        self.codes = CodeDesk(
            store=store, catalogue=self.catalogue, courier=self.courier, quota=self.quota, vault=self.vault, clock=self.clock, audit=self.audit, **self.sms
        )  # fmt: skip
        self.operator_desk = OperatorDesk(store=store, vault=self.vault, clock=self.clock, audit=self.audit, hasher=CHEAP)
        self.operators = Operators(store=store, catalogue=self.catalogue, vault=self.vault, clock=self.clock)
        doors = Doors(
            store=store, credentials=self.one.credentials, tokens=self.tokens, keys=self.one.keys, codes=self.codes, operators=self.operator_desk,
            clock=self.clock, random=self.random,
        )  # fmt: skip
        self.app = build_api(
            catalogue=self.catalogue, broker=MemoryBroker(MemoryHub(self.clock)), signer=self.one.keys, clock=self.clock, settings=self.settings, checks={},
            audit=self.audit, own_metrics=self.one.metrics, doors=doors,
        )  # fmt: skip
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://127.0.0.1:7000")

    async def stop(self) -> None:
        await self.client.aclose()
        await self.courier.stop()
        for process in (self.one, self.two):
            await process.credentials.stop()

    async def token(self, **form: str) -> httpx.Response:
        return await self.client.post("/v1/token", data=form)

    async def key(self, secret: str, **more: Any) -> ApiKey:
        """An API key whose secret is `secret`."""
        made = ApiKey("k1", "demo", "till", "operator", ("wallets.read", "venue.read"), None, None, None, 9, self.clock.unix_ms())
        key = msgspec.structs.replace(made, **more)
        await self.one.store.add_key(key, hashlib.sha256(secret.encode()).digest())
        return key

    async def audited(self, tenant: str = "demo") -> list[tuple[str, str, str]]:
        """(what, who, outcome) of each line of the audit trail."""
        while self.audit._waiting:
            await self.audit._write()
        return [(line.what, line.who, line.outcome) for line in await self.log.lines(tenant)]
