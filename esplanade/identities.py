"""The deployment's secrets opened, and what gateway and API know of who somebody is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

from esplanade.core.clock import RealClock
from esplanade.core.errors import InvalidInput
from esplanade.service_config import ServiceConfig
from esplanade.storage.catalogue import Catalogue
from esplanade.storage.postgres_catalogue import PostgresCatalogue
from esplanade.storage.postgres_identity import PostgresIdentity
from esplanade.storage.postgres_people import PostgresPeople
from esplanade.storage.quota import RedisQuota
from esplanade.storage.sealing import Keyring, SubjectKeys, Vault
from gateway.admission import Plan, Plans, TenantMeters
from gateway.auth import Verifier
from gateway.credentials import Credentials
from gateway.heard import Heard
from gateway.issuers import Issuers, TrustedIssuer
from gateway.metrics import GatewayMetrics
from gateway.signing_keys import SigningKeys
from gateway.tls import Certificate

MASTER_KEY: Final = "master-key"


async def open_vault(catalogue: Catalogue, master_key: bytes | None) -> Vault:
    """What seals the deployment's own secrets, under the given master key, else under the one in the database."""
    return Vault(master_key if master_key is not None else await catalogue.secret(MASTER_KEY, os.urandom(32)), os.urandom)


async def open_keyring(keys: SubjectKeys, catalogue: Catalogue, master_key: bytes | None) -> Keyring:
    """Seals of what is personal, under the given master key, else under the deployment's own, which lies in its database beside what it protects."""
    return Keyring(keys, master_key if master_key is not None else await catalogue.secret(MASTER_KEY, os.urandom(32)), os.urandom)


class Identities:
    """What gateway and API know of who somebody is. `open` in the loop that will use it; `credentials` are started by whom they are given to."""

    def __init__(
        self,
        store: PostgresIdentity,
        vault: Vault,
        keys: SigningKeys,
        credentials: Credentials,
        quota: RedisQuota,
        meters: TenantMeters | None,
        certificate: Certificate | None,
        people: PostgresPeople,
    ) -> None:
        self.people = people
        self.store = store
        self.vault = vault
        self.keys = keys
        self.credentials = credentials
        self.quota = quota
        self.meters = meters
        self.certificate = certificate

    @classmethod
    async def open(cls, config: ServiceConfig, catalogue: PostgresCatalogue, metrics: GatewayMetrics) -> Identities:
        """Raises InvalidInput for settings that do not fit, Unavailable."""
        clock = RealClock()
        try:
            issuers = Issuers([msgspec.convert(one, TrustedIssuer) for one in config.issuers], clock)
            plans = Plans({name: msgspec.convert(plan, Plan) for name, plan in config.plans.items()}, config.tenant_plans, config.default_plan)
        except msgspec.ValidationError as error:
            raise InvalidInput(f"issuers or plans: {error}; see docs/security.md") from error
        certificate = None if config.tls is None else Certificate(Path(config.tls[0]), Path(config.tls[1]))
        store = await PostgresIdentity.open(config.postgres_url)
        vault = await open_vault(catalogue, config.master_key)
        keys = SigningKeys(store, vault, clock)
        await keys.load()
        people = await PostgresPeople.open(config.postgres_url)
        credentials = Credentials(
            Verifier(keys.verifying()), clock, metrics, store=store, catalogue=catalogue, vault=vault, keys=keys, issuers=issuers, plans=plans,
            heard=Heard(people, clock, metrics),
        )  # fmt: skip
        quota = await RedisQuota.open(config.redis_url)
        meters = None
        if config.plans:
            meters = TenantMeters(quota, clock, metrics, plans)
        return cls(store, vault, keys, credentials, quota, meters, certificate, people)

    async def close(self) -> None:
        await self.quota.close()
        await self.people.close()
        await self.store.close()


async def signing_seed(catalogue: PostgresCatalogue, postgres_url: str, master_key: bytes | None) -> bytes:
    """The seed of the key that signs tokens now: for load processes, which make tokens of their own people."""
    store = await PostgresIdentity.open(postgres_url, connections=1)
    try:
        keys = SigningKeys(store, await open_vault(catalogue, master_key), RealClock())
        await keys.load()
        return keys.seed()
    finally:
        await store.close()
