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
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

import msgspec

from actors.allotment_courier import AllotmentCourier
from actors.directory import encode_leases, owner_name, shard_name
from actors.localiser import Localiser, Work
from actors.partition_log import BEHAVIOURS, Behaviours
from actors.positions import HostSettings
from actors.saga import TransferCourier
from actors.shard import Shard, ShardSettings
from actors.system import System
from actors.warm_up import warm_up
from esplanade.core import tracing
from esplanade.core.clock import RealClock
from esplanade.core.errors import Conflict, InvalidInput
from esplanade.core.ids import PARTITIONS
from esplanade.housekeeping import Housekeeper
from esplanade.storage.blobs import BlobStore
from esplanade.storage.broker import Broker
from esplanade.storage.catalogue import Catalogue
from esplanade.storage.journal import Journal
from esplanade.storage.postgres import PostgresJournal
from esplanade.storage.postgres_audit import PostgresAudit
from esplanade.storage.postgres_catalogue import PostgresCatalogue
from esplanade.storage.postgres_keys import PostgresSubjectKeys
from esplanade.storage.redis import RedisBroker
from esplanade.storage.sealing import Keyring, SubjectKeys

_log = logging.getLogger("esplanade.processes")

GC_YOUNG: Final = 200_000
"""Container objects made before the collector of a shard looks at the young ones: its entities live long and hold no cycles."""
GC_YOUNG_DOOR: Final = 20_000
"""The same for the processes that hold connections, which do make cycles: a look takes a millisecond or two."""

SIGNING_KEY: Final = "token-signing-key"
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
    api_port: int
    local_sign_in: bool
    allowed_origins: tuple[str, ...]
    console: str | None
    max_connections: int
    lease_ttl_s: float
    tick_deadline_s: float
    outbox_keep_s: float = 86_400.0
    master_key: bytes | None = None
    public_venues: bool = False
    blobs: str = ""

    @property
    def ws_url(self) -> str:
        return f"ws://{_bracketed(self.host)}:{self.gateway_port}/"

    @property
    def api_url(self) -> str:
        return f"http://{_bracketed(self.host)}:{self.api_port}/"


async def signing_seed(catalogue: PostgresCatalogue) -> bytes:
    """The deployment's token signing key (Ed25519 seed), made at the first start."""
    return await catalogue.secret(SIGNING_KEY, os.urandom(32))


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
        self._journal = await PostgresJournal.open(config.postgres_url)
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
            settings=ShardSettings(lease_ttl_ms=round(config.lease_ttl_s * 1000), host=HostSettings(deadline_s=config.tick_deadline_s)),
            pid=os.getpid(),
            node=socket.gethostname(),
            behaviours=self._behaviours,
            keyring=await open_keyring(self._keys, self._catalogue, config.master_key),
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
        _settle_collector(GC_YOUNG)

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


def _localiser(config: ServiceConfig, work: Work | None) -> Localiser | None:
    return None if work is None or not config.blobs else Localiser(work, Path(config.blobs))


class GatewayProcess:
    """A gateway with the recordings that were asked for."""

    def __init__(self, config: ServiceConfig, system: FollowingSystem, index: int, work: Work | None = None) -> None:
        """`work` runs localisation; without it the gateway serves none."""
        self._config = config
        self._system = system
        self._index = index
        self._work = work
        self._closers: list[PostgresJournal | PostgresCatalogue | PostgresAudit | RedisBroker] = []

    async def start(self) -> int:
        """Listen; returns the port."""
        from gateway.auth import Signer, Verifier
        from gateway.server import GatewayServer, GatewaySettings
        from scenarios.recording import RecordingTee

        config = self._config
        tracing.start(f"gateway-{self._index}", os.environ)
        journal = await PostgresJournal.open(config.postgres_url)
        catalogue = await PostgresCatalogue.open(config.postgres_url)
        broker = await RedisBroker.open(config.redis_url)
        audit = await PostgresAudit.open(config.postgres_url)
        self._closers = [broker, catalogue, journal, audit]
        await self._system.follow(journal, broker)
        signer = Signer(await signing_seed(catalogue))
        self._tee = RecordingTee()
        self._server = GatewayServer(
            self._system,
            journal,
            broker,
            catalogue,
            Verifier(signer.public_key),
            signer,
            RealClock(),
            GatewaySettings(process=f"gateway-{self._index}", allowed_origins=config.allowed_origins, max_connections=config.max_connections),
            self._tee,
            audit,
            os.urandom(8),
            _localiser(config, self._work),
        )
        with taking_port("gateway", "ESPLANADE_GATEWAY_PORT", config.host, config.gateway_port):
            port = await self._server.start(config.host, config.gateway_port)
        _settle_collector(GC_YOUNG_DOOR)
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
        self._closers: list[PostgresJournal | PostgresCatalogue | PostgresAudit | RedisBroker] = []

    async def start(self) -> int:
        """Listen; returns the port."""
        from gateway.api import ApiSettings, build_api, serve_api
        from gateway.audit_trail import AuditTrail
        from gateway.auth import Signer
        from gateway.metrics import GatewayMetrics

        config = self._config
        catalogue = await PostgresCatalogue.open(config.postgres_url)
        broker = await RedisBroker.open(config.redis_url)
        journal = await PostgresJournal.open(config.postgres_url, connections=1)
        audit = await PostgresAudit.open(config.postgres_url)
        self._closers = [broker, catalogue, journal, audit]
        metrics = GatewayMetrics()
        self._audit = AuditTrail(audit, RealClock(), metrics, run=os.urandom(8))
        self._audit.start()
        self._housekeeper = Housekeeper(journal, outbox_keep_s=config.outbox_keep_s)
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
            return None

        app = build_api(
            catalogue=catalogue,
            broker=broker,
            signer=Signer(await signing_seed(catalogue)),
            clock=RealClock(),
            settings=ApiSettings(
                ws_url=config.ws_url,
                local_sign_in=config.local_sign_in,
                public_venues=config.public_venues,
                console=Path(config.console) if config.console else None,
                console_missing="script/console could not build it when this was set up",
            ),
            checks={"postgres": postgres, "redis": redis, "shards": shards, "gateways": gateway},
            profile=self._system.profile,
            audit=self._audit,
            own_metrics=metrics,
            system=self._system,
            journal=journal,
            localiser=_localiser(config, self._work),
            blobs=BlobStore(Path(config.blobs)) if config.blobs else None,
        )
        with taking_port("API", "ESPLANADE_API_PORT", config.host, config.api_port):
            self._server = await serve_api(app, config.host, config.api_port)
        _settle_collector(GC_YOUNG_DOOR)
        return self._server.port

    async def stop(self) -> None:
        await self._housekeeper.stop()
        await self._server.stop()
        await self._audit.stop()
        await self._system.stop()
        for held in self._closers:
            await held.close()


def _settle_collector(young: int) -> None:
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
    """A TCP port that is free now, or `port` if it is (raises OSError if not). A gateway keeps its port over a restart, so it is chosen before the process starts."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        return int(probe.getsockname()[1])


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
