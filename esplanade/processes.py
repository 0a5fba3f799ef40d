"""What runs in each process of a service: a shard, a gateway, the API. Plain classes; `esplanade.cluster` makes Ray actors of them.

Owns the wiring of drivers within a process. Knows nothing of Ray beyond being given a `System` to ask.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import random
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from actors.allotment_courier import AllotmentCourier
from actors.directory import encode_leases, owner_name, shard_name
from actors.localiser import Localiser, Work
from actors.partition_log import BEHAVIOURS, Behaviours
from actors.positions import HostSettings
from actors.process_memory import ProcessMemory
from actors.saga import TransferCourier
from actors.shard import Shard, ShardSettings
from actors.subject_export import held_about
from actors.system import System
from actors.warm_up import warm_up
from esplanade.control import Do, order
from esplanade.core import tracing
from esplanade.core.clock import RealClock
from esplanade.core.errors import Conflict, InvalidInput
from esplanade.core.ids import PARTITIONS
from esplanade.erasure import Eraser
from esplanade.housekeeping import Housekeeper
from esplanade.retention import Retention
from esplanade.storage.blobs import open_blobs
from esplanade.storage.broker import Broker
from esplanade.storage.catalogue import Catalogue
from esplanade.storage.journal import Journal
from esplanade.storage.postgres import PostgresJournal
from esplanade.storage.postgres_audit import PostgresAudit
from esplanade.storage.postgres_catalogue import PostgresCatalogue
from esplanade.storage.postgres_identity import PostgresIdentity
from esplanade.storage.postgres_keys import PostgresSubjectKeys, forget_destroyed_keys
from esplanade.storage.postgres_people import PostgresPeople
from esplanade.storage.postgres_webhooks import PostgresWebhooks
from esplanade.storage.quota import RedisQuota
from esplanade.storage.redis import RedisBroker
from esplanade.storage.sealing import Keyring, SubjectKeys, Vault
from gateway.answers import Answer, Answers

if TYPE_CHECKING:
    from gateway.admission import TenantMeters
    from gateway.api import Background
    from gateway.credentials import Credentials
    from gateway.metrics import GatewayMetrics
    from gateway.signing_keys import SigningKeys
    from gateway.tls import Certificate

_log = logging.getLogger("esplanade.processes")

GC_YOUNG: Final = 200_000
"""Container objects made before the collector of a shard looks at the young ones: its entities live long and hold no cycles."""
GC_YOUNG_DOOR: Final = 20_000
"""The same for the processes that hold connections, which do make cycles: a look takes a millisecond or two."""

LASTING_PORTS: Final = range(20_000, 32_000)
"""Above those of Ray's workers, below those that Linux and macOS give to outgoing connections."""
PORT_TRIES: Final = 64

RUNS: Final = "runs"
"""Folder of the service's runs in its data directory."""
PSEUDONYM_KEY: Final = "pseudonym-key"
MASTER_KEY: Final = "master-key"


class ServiceConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What every process of a service is told; plain data, so that it crosses process borders."""

    postgres_url: str
    redis_url: str
    shards: int
    spares: int
    host: str
    gateway_port: int
    gateways: int = 1
    api_port: int
    local_sign_in: bool
    allowed_origins: tuple[str, ...]
    console: str | None
    max_connections: int
    lease_ttl_s: float
    tick_deadline_s: float
    max_speed_m_s: float = 0.0
    outbox_keep_s: float = 86_400.0
    master_key: bytes | None = None
    public_venues: bool = False
    shard_memory_mib: int = 0
    issuers: tuple[dict[str, Any], ...] = ()
    messages: str | None = None
    """File of the simulated provider of sign-in codes; None where there is none."""
    guests: bool = True
    plans: dict[str, dict[str, Any]] = {}
    tenant_plans: dict[str, str] = {}
    default_plan: str | None = None
    tenants: dict[str, dict[str, Any]] = {}
    """What tenants have answered about their people."""
    at_home: bool = True
    """Whether all is embedded and on loopback, where tenants need not have answered."""
    per_address_min: int = 1_000
    tls: tuple[str, str] | None = None
    """Files of certificate chain and key."""
    webhooks_to_private_addresses: bool = False
    blobs: str = ""
    data_dir: str = ""
    """Of the service, for those of its processes that stand beside it; empty where rehearsals cannot be asked for."""

    @property
    def answers(self) -> Answers:
        return Answers({name: msgspec.convert(one, Answer) for name, one in self.tenants.items()}, at_home=self.at_home)

    @property
    def ws_url(self) -> str:
        return f"{'ws' if self.tls is None else 'wss'}://{_bracketed(self.host)}:{self.gateway_port}/"

    @property
    def api_url(self) -> str:
        return f"{'http' if self.tls is None else 'https'}://{_bracketed(self.host)}:{self.api_port}/"


async def open_vault(catalogue: Catalogue, master_key: bytes | None) -> Vault:
    """What seals the deployment's own secrets, under the given master key, else under the one in the database."""
    return Vault(master_key if master_key is not None else await catalogue.secret(MASTER_KEY, os.urandom(32)), os.urandom)


async def open_keyring(keys: SubjectKeys, catalogue: Catalogue, master_key: bytes | None) -> Keyring:
    """Seals of what is personal, under the given master key, else under the deployment's own, which lies in its database beside what it protects."""
    return Keyring(keys, master_key if master_key is not None else await catalogue.secret(MASTER_KEY, os.urandom(32)), os.urandom)


class FollowingSystem(System, Protocol):
    """A `System` that finds the owners of partitions in the directory."""

    async def follow(self, journal: Journal, broker: Broker) -> None: ...

    async def stop(self) -> None: ...


class ShardProcess:
    """A shard with its own connections, standing by until the supervisor has it take partitions. `frame` is what gateways call.

    With a `system` to ask other entities, it carries the transfers and takes of its own.
    """

    def __init__(self, config: ServiceConfig, index: int, behaviours: Behaviours = BEHAVIOURS, system: FollowingSystem | None = None) -> None:
        self._config = config
        self._behaviours = behaviours
        self._system = system
        self._courier: TransferCourier | None = None
        self._attending: list[asyncio.Task[None]] = []
        self._index = index
        self._shard: Shard | None = None
        self._journal: PostgresJournal | None = None
        self._catalogue: PostgresCatalogue | None = None
        self._broker: RedisBroker | None = None
        self._keys: PostgresSubjectKeys | None = None

    async def start(self) -> None:
        config = self._config
        tracing.start(shard_name(self._index), os.environ)
        await asyncio.to_thread(warm_up)  # compiled kernels, before a turn needs one
        self._journal = await PostgresJournal.open(config.postgres_url, warm=True)
        self._catalogue = await PostgresCatalogue.open(config.postgres_url)
        self._broker = await RedisBroker.open(config.redis_url)
        self._keys = await PostgresSubjectKeys.open(config.postgres_url)
        name = shard_name(self._index)
        self._shard = Shard(
            name=name,
            owner=owner_name(name, uuid.uuid4().hex[:12]),
            journal=self._journal,
            catalogue=self._catalogue,
            broker=self._broker,
            clock=RealClock(),
            secret=await self._catalogue.secret(PSEUDONYM_KEY, os.urandom(32)),
            settings=ShardSettings(
                lease_ttl_ms=round(config.lease_ttl_s * 1000),
                max_memory_bytes=config.shard_memory_mib * 2**20,
                host=HostSettings(deadline_s=config.tick_deadline_s, speed_m_s=config.max_speed_m_s),
            ),
            pid=os.getpid(),
            node=socket.gethostname(),
            behaviours=self._behaviours,
            keyring=await open_keyring(self._keys, self._catalogue, config.master_key),
            memory=ProcessMemory(),
        )
        await self._shard.start()
        if self._system is not None:
            await self._system.follow(self._journal, self._broker)
            self._courier = TransferCourier(self._system)
            self._attending = [
                asyncio.create_task(self._courier.attend(self._shard.under_way)),
                asyncio.create_task(AllotmentCourier(self._system, RealClock()).attend(self._shard.open_allotments)),
            ]
            for task in self._attending:
                task.add_done_callback(_told)
        settle_collector(GC_YOUNG)

    async def frame(self, data: bytes) -> bytes:
        return await self.shard.frame(data)

    async def owner(self) -> str:
        """Its name in the lease table, another one at each start."""
        return self.shard.owner

    async def take(self, partitions: list[int]) -> bytes:
        """Take partitions over; returns the leases (`encode_leases`)."""
        return encode_leases(await self.shard.take(partitions))

    async def release(self, partitions: list[int]) -> None:
        await self.shard.release(partitions)

    async def profile(self) -> dict[str, object]:
        profile = self.shard.profile()
        if self._courier is not None:
            profile.transfers_finished, profile.transfer_failures = self._courier.finished, self._courier.failures
        return profile.as_dict()

    @property
    def shard(self) -> Shard:
        assert self._shard is not None, "start() comes first"
        return self._shard

    async def stop(self) -> None:
        for task in self._attending:
            task.cancel()
        await asyncio.gather(*self._attending, return_exceptions=True)
        if self._shard is not None:
            await self._shard.stop()
        if self._system is not None:
            await self._system.stop()
        for held in (self._broker, self._keys, self._catalogue, self._journal):
            if held is not None:
                await held.close()
        await asyncio.to_thread(tracing.stop)


def _told(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        _log.error("courier_failed", exc_info=task.exception())


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
        from gateway.admission import Plan, Plans, TenantMeters
        from gateway.auth import Verifier
        from gateway.credentials import Credentials
        from gateway.heard import Heard
        from gateway.issuers import Issuers, TrustedIssuer
        from gateway.signing_keys import SigningKeys
        from gateway.tls import Certificate

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
    from gateway.signing_keys import SigningKeys

    store = await PostgresIdentity.open(postgres_url, connections=1)
    try:
        keys = SigningKeys(store, await open_vault(catalogue, master_key), RealClock())
        await keys.load()
        return keys.seed()
    finally:
        await store.close()


def _localiser(config: ServiceConfig, work: Work | None) -> Localiser | None:
    return None if work is None or not config.blobs else Localiser(work, config.blobs)


class GatewayProcess:
    """A gateway with the recordings that were asked for."""

    def __init__(self, config: ServiceConfig, system: FollowingSystem, index: int, work: Work | None = None) -> None:
        """`work` runs localisation; without it the gateway serves none."""
        self._config = config
        self._system = system
        self._index = index
        self._work = work
        self._closers: list[PostgresJournal | PostgresCatalogue | PostgresAudit | RedisBroker | Identities] = []

    async def start(self) -> int:
        """Listen; returns the port."""
        from gateway.auth import Verifier
        from gateway.metrics import GatewayMetrics
        from gateway.server import GatewayServer, GatewaySettings
        from scenarios.recording import RecordingTee

        config = self._config
        tracing.start(f"gateway-{self._index}", os.environ)
        journal = await PostgresJournal.open(config.postgres_url)
        catalogue = await PostgresCatalogue.open(config.postgres_url)
        broker = await RedisBroker.open(config.redis_url)
        audit = await PostgresAudit.open(config.postgres_url)
        metrics = GatewayMetrics()
        identities = await Identities.open(config, catalogue, metrics)
        self._closers = [broker, identities, catalogue, journal, audit]
        await self._system.follow(journal, broker)
        self._tee = RecordingTee()
        self._server = GatewayServer(
            self._system,
            journal,
            broker,
            catalogue,
            Verifier(identities.keys.verifying()),
            identities.keys,
            RealClock(),
            GatewaySettings(
                process=f"gateway-{self._index}",
                allowed_origins=config.allowed_origins,
                max_connections=config.max_connections,
                guests=config.guests,
                per_address_min=config.per_address_min,
            ),
            self._tee,
            audit,
            os.urandom(8),
            metrics=metrics,
            credentials=identities.credentials,
            meters=identities.meters,
            certificate=identities.certificate,
            localiser=_localiser(config, self._work),
            answers=config.answers,
        )
        with taking_port("gateway", "ESPLANADE_GATEWAY_PORT", config.host, config.gateway_port):
            port = await self._server.start(config.host, config.gateway_port)
        settle_collector(GC_YOUNG_DOOR)
        return port

    async def start_recording(self, tenant: str, venue: str, folder: str) -> None:
        self._tee.start(tenant, venue, Path(folder))

    async def finish_recording(self, tenant: str, venue: str) -> bytes:
        """msgpack of the recording's Manifest."""
        return msgspec.msgpack.encode(await asyncio.to_thread(self._tee.finish, tenant, venue))

    async def stop(self) -> None:
        await self._server.stop()
        await self._system.stop()
        for held in self._closers:
            await held.close()
        await asyncio.to_thread(tracing.stop)


class ApiProcess:
    """The HTTP side, and the house kept."""

    def __init__(self, config: ServiceConfig, system: FollowingSystem, work: Work | None = None) -> None:
        self._config = config
        self._system = system
        self._work = work
        self._closers: list[
            PostgresJournal | PostgresCatalogue | PostgresAudit | PostgresWebhooks | PostgresSubjectKeys | RedisBroker | Identities
        ] = []

    async def start(self) -> int:
        """Listen; returns the port."""
        from gateway.api import ApiSettings, PartnerKit, build_api, gateways_check, serve_api
        from gateway.audit_trail import AuditTrail
        from gateway.metrics import GatewayMetrics
        from gateway.rest_users import SubjectKit
        from gateway.sign_in import CodeDesk, OperatorDesk, SimulatedProvider
        from gateway.token_routes import Doors
        from gateway.tokens import TokenDesk

        config = self._config
        catalogue = await PostgresCatalogue.open(config.postgres_url)
        broker = await RedisBroker.open(config.redis_url)
        journal = await PostgresJournal.open(config.postgres_url, connections=3)  # an export reads whole logs: others must not wait for it
        audit = await PostgresAudit.open(config.postgres_url)
        webhooks = await PostgresWebhooks.open(config.postgres_url)
        keys = await PostgresSubjectKeys.open(config.postgres_url)
        metrics = GatewayMetrics()
        self._identities = identities = await Identities.open(config, catalogue, metrics)
        self._closers = [broker, identities, catalogue, journal, audit, webhooks, keys]
        self._audit = AuditTrail(audit, RealClock(), metrics, run=os.urandom(8))
        self._audit.start()
        eraser = Eraser(keys, identities.store, RealClock())

        async def forget_keys() -> None:
            await asyncio.to_thread(forget_destroyed_keys, config.postgres_url)

        self._retention = Retention(
            answers=config.answers, catalogue=catalogue, people=identities.people, audit=audit, clock=RealClock(), erase=eraser.erase,
            forget_keys=forget_keys, runs=Path(config.data_dir) / RUNS if config.data_dir else None,
        )  # fmt: skip
        self._housekeeper = Housekeeper(journal, outbox_keep_s=config.outbox_keep_s, also=self._keep_house)
        self._housekeeper.start()
        await self._system.follow(journal, broker)

        async def postgres() -> str | None:
            await catalogue.tenants()
            return None

        async def redis() -> str | None:
            await broker.get("esp:readyz")
            return None

        async def shards() -> str | None:
            owned = sum(int(str(counters["partitions"])) for counters in await self._system.profile())
            return None if owned >= PARTITIONS else f"{owned} of {PARTITIONS} partitions have an owner that answers"

        async def gateway() -> str | None:
            reader, writer = await asyncio.open_connection(config.host, config.gateway_port)
            writer.close()
            await writer.wait_closed()
            del reader
            return await gateways_check(broker, config.gateways)() if config.gateways > 1 else None

        store, vault, clock = identities.store, identities.vault, RealClock()
        await identities.credentials.start()
        if identities.meters is not None:
            identities.meters.start()
        if identities.certificate is not None:
            identities.certificate.watch()
        self._codes = None
        if config.messages is not None:
            provider = SimulatedProvider(Path(config.messages))
            self._codes = CodeDesk(
                store=store, catalogue=catalogue, sender=provider, quota=identities.quota, vault=vault, clock=clock, audit=self._audit
            )  # fmt: skip
        doors = Doors(
            store=store,
            credentials=identities.credentials,
            tokens=TokenDesk(
                store=store,
                catalogue=catalogue,
                issuer=identities.keys,
                credentials=identities.credentials,
                clock=clock,
                random=os.urandom,
                audit=self._audit,
            ),
            keys=identities.keys,
            codes=self._codes,
            operators=await asyncio.to_thread(lambda: OperatorDesk(store=store, vault=vault, clock=clock, audit=self._audit)),
            clock=clock,
            random=os.urandom,
            guests=config.guests,
        )
        keyring = await open_keyring(keys, catalogue, config.master_key)

        async def export(tenant: str, subject: int) -> dict[str, Any]:
            held = await held_about(journal, catalogue, keyring, tenant, subject)
            return held | {"erased": await keys.erased(tenant, str(subject))}

        async def erase(tenant: str, subject: int) -> bool:
            held = await eraser.erase(tenant, subject)
            await forget_keys()
            return held

        app = build_api(
            catalogue=catalogue,
            broker=broker,
            signer=identities.keys,
            clock=RealClock(),
            settings=ApiSettings(
                ws_url=config.ws_url,
                local_sign_in=config.local_sign_in,
                public_venues=config.public_venues,
                console=Path(config.console) if config.console else None,
                console_missing="script/console could not build it when this was set up",
                per_address_min=config.per_address_min,
            ),
            checks={"postgres": postgres, "redis": redis, "shards": shards, "gateways": gateway},
            profile=self._system.profile,
            audit=self._audit,
            own_metrics=metrics,
            system=self._system,
            journal=journal,
            doors=doors,
            meters=identities.meters,
            partners=PartnerKit(
                webhooks,
                identities.vault,
                os.urandom,
                private=config.webhooks_to_private_addresses,
            ),
            scenarios=rehearsals,
            rehearsing=RehearsalDesk(Path(config.data_dir)) if config.data_dir else None,
            subjects=SubjectKit(export, erase),
            localiser=_localiser(config, self._work),
            blobs=open_blobs(config.blobs) if config.blobs else None,
        )
        self._background: Background = app.state.background
        await self._background.start()
        with taking_port("API", "ESPLANADE_API_PORT", config.host, config.api_port):
            self._server = await serve_api(app, config.host, config.api_port, identities.certificate)
        settle_collector(GC_YOUNG_DOOR)
        return self._server.port

    async def _keep_house(self) -> None:
        """Drop what has run out; replace the key that signs when it is old; erase who was silent for too long."""
        identities = self._identities
        await identities.store.drop_expired(RealClock().unix_ms())
        kid = await identities.keys.rotate_if_old()
        if kid is not None:
            self._audit.note(tenant="-", who="esplanade", what="signing_key.rotate", target=kid, origin="housekeeping")
        await self._retention.one_pass()

    async def stop(self) -> None:
        await self._housekeeper.stop()
        await self._background.stop()  # event streams end, so that the server has nobody to wait for
        await self._server.stop()
        if self._codes is not None:
            await self._codes.stop()
        await self._identities.credentials.stop()
        for watcher in (self._identities.meters, self._identities.certificate):
            if watcher is not None:
                await watcher.stop()
        await self._audit.stop()
        await self._system.stop()
        for held in self._closers:
            await held.close()


def rehearsals() -> list[dict[str, str]]:
    """The library's scenarios, as the API tells them."""
    from scenarios.spec import find_scenario, library, load_scenario

    held = [load_scenario(find_scenario(name)) for name in library()]
    return [{"name": one.name, "title": one.title, "venue": one.venue or ""} for one in held]


class RehearsalDesk:
    """Rehearsals of the service whose data directory this is, asked for over its control socket; what they wrote lies beside it."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir

    async def start(self, tenant: str, scenario: str, *, venue: str | None, faults: bool) -> dict[str, Any]:
        return await self._one("rehearse", tenant=tenant, scenario=scenario, venue=venue, faults=faults)

    async def stop(self, tenant: str, run: str) -> dict[str, Any]:
        return await self._one("stop", tenant=tenant, run=run)

    async def run(self, tenant: str, run: str) -> dict[str, Any]:
        return await self._one("run", tenant=tenant, run=run)

    async def runs(self, tenant: str) -> list[dict[str, Any]]:
        return list((await order(self._data_dir, "runs", tenant=tenant)).runs)

    def describe(self, scenario: str) -> object:
        from scenarios.rehearsals import described

        return described(scenario)

    def folder(self, run: str) -> Path:
        """Of a run that `run` has found."""
        return self._data_dir / RUNS / run

    async def _one(self, do: Do, **more: Any) -> dict[str, Any]:
        [held] = (await order(self._data_dir, do, **more)).runs
        told: dict[str, Any] = held
        return told


def settle_collector(young: int) -> None:
    """What was imported and started lives to the end: without this the collector walks through all of it now and then, 170 ms in which a gateway sends nothing
    (and, looking at every few hundred allocations, takes more than half of a shard's turn)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(young, 50, 50)


@contextlib.contextmanager
def taking_port(what: str, setting: str, host: str, port: int) -> Iterator[None]:
    """Turn the system's refusal of a port into Conflict (taken) or InvalidInput (not ours to have)."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Conflict(f"{what}: port {port} on {host} is taken; stop what listens there, or set {setting} to another (0: a free one)") from error
        raise InvalidInput(f"{what}: cannot listen on {host} port {port} ({error.strerror}); set ESPLANADE_HOST and {setting} to others") from error


def free_port(host: str, port: int = 0) -> int:
    """A TCP port that is free now, or `port` if it is (raises OSError if not). A gateway keeps its port over a restart, so it is chosen before the process starts.

    It is one that the system gives to no outgoing connection by itself: until the process listens, seconds later on a busy machine, somebody's would take it.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for wanted in (port,) if port else (*random.sample(LASTING_PORTS, PORT_TRIES), 0):
            try:
                probe.bind((host, wanted))
            except OSError as error:
                if port or error.errno != errno.EADDRINUSE:
                    raise
                continue
            break
        return int(probe.getsockname()[1])


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
