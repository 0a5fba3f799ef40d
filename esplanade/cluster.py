"""A running service: stores, Ray, shards, a gateway and the API, put together here and nowhere else.

Owns the order of starting and stopping. `start` either returns a service that is ready or leaves nothing behind; `stop` leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import psutil

from actors.directory import MAX_SHARDS, Directory, shard_name
from actors.ray_system import ProcessHandle, RayNode, RaySystem, spawn, start_ray
from actors.supervisor import Supervisor, SupervisorSettings
from esplanade import __version__
from esplanade.core.clock import RealClock
from esplanade.core.errors import Conflict, Fault, LimitExceeded, NotFound, Unavailable
from esplanade.core.ids import PARTITIONS, Address, partition_of
from esplanade.doctor import console_dir
from esplanade.node import Node
from esplanade.ports import free_port, taking_port
from esplanade.service_config import ServiceConfig
from esplanade.settings import Settings
from esplanade.storage.audit import AuditLine
from esplanade.storage.postgres import PostgresJournal
from esplanade.storage.postgres_audit import PostgresAudit
from esplanade.storage.postgres_catalogue import PostgresCatalogue
from esplanade.storage.redis import RedisBroker
from esplanade.whereabouts import Whereabouts, announce, withdraw

if TYPE_CHECKING:
    from scenarios.runner import Services

READY_S: Final = 90.0
"""How long processes may take to start."""
DRAIN_S: Final = 90.0
"""How long a shard's partitions may take to find other owners."""
WATCH_S: Final = 0.5
"""How soon the death of a process is noticed."""

Say = Callable[[str], None]


class Cluster:
    """The service on this machine."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._node = Node(settings, RealClock())
        self._ray: RayNode | None = None
        self._shards: list[ProcessHandle] = []
        self._gateways: list[ProcessHandle] = []
        self._api: ProcessHandle | None = None
        self._system: RaySystem | None = None
        self._stores: tuple[PostgresJournal, PostgresCatalogue] | None = None
        self._broker: RedisBroker | None = None
        self._supervisor: Supervisor | None = None
        self._config: ServiceConfig | None = None
        self._changing = asyncio.Lock()  # one shard comes or goes at a time
        self._changed = asyncio.Event()

    async def start(self, say: Say = lambda _: None) -> ServiceConfig:
        """Start everything and return when it is ready; `say` hears of each step. Cancel it to give up: nothing stays behind."""
        try:
            return await self._start(say)
        except BaseException:
            await asyncio.shield(self.stop())
            raise

    async def _start(self, say: Say) -> ServiceConfig:
        settings = self._settings
        for what, setting, port in (("gateway", "ESPLANADE_GATEWAY_PORT", settings.gateway_port), ("API", "ESPLANADE_API_PORT", settings.api_port)):
            if port:  # said now, not after everything else has started
                with taking_port(what, setting, settings.host, port):
                    free_port(settings.host, port)
        await self._node.open()
        say("starting PostgreSQL, Redis and Ray")
        stores = asyncio.ensure_future(self._node.start())
        ray_node = asyncio.ensure_future(
            asyncio.to_thread(start_ray, settings.ray_address, processes=settings.shards + settings.spares + settings.gateways + 1)
        )
        try:
            await asyncio.gather(asyncio.shield(stores), asyncio.shield(ray_node))
        except BaseException:
            # Both go on in threads: wait for them, so that what came up can be stopped.
            results = await asyncio.gather(stores, ray_node, return_exceptions=True)
            if isinstance(results[1], RayNode):
                self._ray = results[1]
            raise
        self._ray = ray_node.result()
        _take_back_signals()
        console = console_dir(settings)
        config = ServiceConfig(
            postgres_url=self._node.postgres_url,
            redis_url=self._node.redis_url,
            shards=settings.shards,
            spares=settings.spares,
            host=settings.host,
            gateway_port=settings.gateway_port or free_port(settings.host),
            gateways=settings.gateways,
            api_port=settings.api_port or free_port(settings.host),
            local_sign_in=settings.at_home if settings.local_sign_in is None else settings.local_sign_in,
            public_venues=settings.at_home if settings.public_venues is None else settings.public_venues,
            webhooks_to_private_addresses=settings.webhooks_to_private_addresses,
            allowed_origins=settings.allowed_origins,
            console=str(console) if (console / "index.html").is_file() else None,
            max_connections=settings.max_connections,
            lease_ttl_s=settings.lease_ttl_s,
            tick_deadline_s=settings.tick_deadline_s,
            max_speed_m_s=settings.max_speed_m_s,
            outbox_keep_s=settings.outbox_keep_s,
            shard_memory_mib=settings.shard_memory_mib or 0,
            master_key=settings.master_key_bytes,
            issuers=tuple(issuer.model_dump() for issuer in settings.issuers),
            messages=None if settings.simulated_codes is None else str(settings.simulated_codes),
            smtp=settings.smtp_config,
            sms=settings.sms_config,
            guests=settings.guests,
            plans={name: plan.model_dump() for name, plan in settings.plans.items()},
            tenant_plans=settings.tenant_plans,
            default_plan=settings.default_plan,
            tenants={name: tenant.model_dump() for name, tenant in settings.tenants.items()},
            at_home=settings.at_home,
            per_address_min=settings.per_address_min,
            tls=None
            if settings.tls_certificate is None
            else (str(settings.tls_certificate.resolve()), str(settings.tls_key and settings.tls_key.resolve())),
            blobs=settings.blobs,
            log_level=settings.log_level,
            logs="" if settings.ray_address else str(settings.data_dir.expanduser().resolve() / "logs"),
            data_dir=str(settings.data_dir.expanduser().resolve()),
        )
        self._config = config
        say(f"starting {settings.shards} shards, {'the gateway' if settings.gateways == 1 else f'{settings.gateways} gateways'} and the API")
        self._shards = [
            spawn("esplanade.shard_process:hosted", shard_name(i), config, i, yields=settings.spares > 0, nth=i)
            for i in range(settings.shards + settings.spares)
        ]
        self._gateways = [self._new_gateway(config, i) for i in range(settings.gateways)]
        self._api = spawn("esplanade.api_process:hosted", "api", config, here=True)
        self._stores = (await PostgresJournal.open(config.postgres_url), await PostgresCatalogue.open(config.postgres_url))
        self._broker = await RedisBroker.open(config.redis_url)
        directory = Directory()
        self._system = RaySystem(directory)
        self._supervisor = Supervisor(
            list(self._shards), directory, self._stores[0], RealClock(),
            SupervisorSettings(wanted=settings.shards, spares=settings.spares, lease_ttl_s=settings.lease_ttl_s),
        )  # fmt: skip
        try:
            async with asyncio.timeout(READY_S):
                await asyncio.gather(*(process.started() for process in (*self._shards, *self._gateways, self._api)))
                await self._supervisor.start()
                await self._system.follow(self._stores[0], self._broker)
        except TimeoutError as error:
            raise Unavailable(f"the processes did not start within {READY_S:.0f} s; `esplanade doctor` says what this machine lacks") from error
        announce(settings.data_dir, Whereabouts(config.api_url, config.ws_url, os.getpid()))
        return config

    # --- gateways give way ---------------------------------------------------------------------------------------------

    @staticmethod
    def _new_gateway(config: ServiceConfig, index: int) -> ProcessHandle:
        return spawn("esplanade.gateway_process:hosted", f"gateway-{index}", config, index, here=True)

    async def restart_gateways(self) -> list[str]:
        """Put a new process in the place of each gateway, one after the other: it listens on the port before the old one tells its clients to reconnect, at moments spread over
        seconds, and ends. Returns the new ones' names. Raises Unavailable where one does not start; those before it are replaced, it and the rest go on as they are."""
        self._supervised()
        config = self._config
        assert config is not None
        names = []
        async with self._changing:
            for old in list(self._gateways):
                new = self._new_gateway(config, max(int(one.name.rpartition("-")[2]) for one in self._gateways) + 1)
                await _come_up(new)
                self._gateways[self._gateways.index(old)] = new
                self._changed.set()
                await old.stop()
                names.append(new.name)
        return names

    # --- shards come and go -------------------------------------------------------------------------------------------

    async def add_shard(self) -> str:
        """Start one more shard process and give it (or the spare whose place it takes) a share of the partitions, live; returns its name. Raises LimitExceeded."""
        supervisor = self._supervised()
        assert self._config is not None
        async with self._changing:
            if len(self._shards) >= MAX_SHARDS:
                raise LimitExceeded(f"{len(self._shards)} shards: at most {MAX_SHARDS}, one a partition; take more machines with more cores instead")
            index = max(int(shard.name.rpartition("-")[2]) for shard in self._shards) + 1
            shard = spawn("esplanade.shard_process:hosted", shard_name(index), self._config, index, yields=self._settings.spares > 0, nth=index)
            await _come_up(shard)
            self._shards.append(shard)
            self._changed.set()
            supervisor.settings.wanted += 1
            supervisor.add(shard)
            await supervisor.settled()
            return shard.name

    async def drain(self, name: str) -> None:
        """Hand everything that a shard owns to others, live, and give it nothing more. Raises NotFound, Conflict where no other could take it, Unavailable where none did."""
        async with self._changing:
            await self._drain(name)

    async def _drain(self, name: str) -> None:
        supervisor = self._supervised()
        if name not in {shard.name for shard in self._shards}:
            raise NotFound(f"shard {name!r}: there are {', '.join(shard.name for shard in self._shards)}")
        if not [shard for shard in self._shards if shard.name != name and shard.name not in supervisor.settings.leaving]:
            raise Conflict(f"shard {name}: no other could take over what it owns; add one first")
        supervisor.settings.leaving.add(name)
        try:
            async with asyncio.timeout(DRAIN_S):
                await supervisor.settled()
        except TimeoutError:
            supervisor.settings.leaving.discard(name)
            raise Unavailable(
                f"shard {name}: no other took over what it owns within {DRAIN_S:.0f} s; it goes on as before, look at the others and try again"
            ) from None

    async def remove_shard(self, name: str) -> None:
        """Drain a shard, then end its process. Raises as `drain` does."""
        async with self._changing:
            await self._drain(name)
            supervisor = self._supervised()
            shard = next(shard for shard in self._shards if shard.name == name)
            self._shards.remove(shard)
            self._changed.set()
            supervisor.remove(name)
            supervisor.settings.wanted = max(1, min(supervisor.settings.wanted, len(self._shards) - supervisor.settings.spares))
            await shard.stop()

    def shards_now(self) -> dict[str, str]:
        """What each shard does: how many partitions it owns, or that it stands by."""
        supervisor, directory = self._supervised(), self.system.directory
        owned = Counter(directory.owner_of(partition) for partition in range(PARTITIONS))
        says = {shard.name: f"{owned[shard.name]} partitions" if owned[shard.name] else "stands by" for shard in self._shards}
        return says | {name: f"{said}, drained" for name, said in says.items() if name in supervisor.settings.leaving}

    @property
    def shards(self) -> list[ProcessHandle]:
        """The processes that own partitions or stand by."""
        return list(self._shards)

    async def settled(self) -> None:
        """Returns when every partition has an owner that lives, and nothing is on the move."""
        await self._supervised().settled()

    @property
    def system(self) -> RaySystem:
        """To ask the actors from this process."""
        if self._system is None:
            raise Fault("the service is not running: call start() first")
        return self._system

    def _supervised(self) -> Supervisor:
        if self._supervisor is None:
            raise Fault("the service is not running: call start() first")
        return self._supervisor

    async def tenants(self) -> list[str]:
        return await self._open()[1].tenants()

    async def put_venue(self, tenant: str, document: bytes) -> None:
        """Add a tenant, if it is new, and a venue (a validated document) to the catalogue."""
        catalogue = self._open()[1]
        await catalogue.add_tenant(tenant, tenant)
        await catalogue.put_venue(tenant, document)

    def _open(self) -> tuple[PostgresJournal, PostgresCatalogue]:
        if self._stores is None:
            raise Fault("the service is not running: call start() first")
        return self._stores

    async def services(self) -> Services:
        """What a scenario's runner needs of this service."""
        from esplanade.identities import signing_seed
        from scenarios.recording import Manifest, join_recorders, recorders
        from scenarios.runner import Services

        journal, catalogue = self._open()
        assert self._config is not None
        assert self._system is not None
        system, postgres_url = self._system, self._config.postgres_url
        recording: dict[tuple[str, str], tuple[list[ProcessHandle], Path]] = {}  # by the gateways that there were when it began

        async def start_recording(tenant: str, venue: str, folder: Path) -> None:
            gateways = list(self._gateways)
            parts = zip(gateways, recorders(folder, len(gateways)), strict=True)
            await asyncio.gather(*(one.call("start_recording", tenant, venue, str(part)) for one, part in parts))
            recording[tenant, venue] = gateways, folder

        async def finish_recording(tenant: str, venue: str) -> Manifest:
            begun = recording.get((tenant, venue))
            if begun is None:
                raise NotFound(f"recording of {tenant}/{venue}: none is running; start one first")
            gateways, folder = begun
            told = await asyncio.gather(*(one.call("finish_recording", tenant, venue) for one in gateways))
            del recording[tenant, venue]
            return join_recorders(folder, [msgspec.msgpack.decode(one, type=Manifest) for one in told])

        async def kill_shard(address: Address) -> str:
            owner = system.directory.owner_of(partition_of(address))
            shard = next(shard for shard in self._shards if shard.name == owner)
            line = AuditLine(
                os.urandom(16), address.tenant, RealClock().unix_ms(), "local", "fault.kill", shard.name, "esplanade run", "done", {"address": str(address)}
            )  # fmt: skip
            audit = await PostgresAudit.open(postgres_url)
            try:
                await audit.append([line])  # before the act: nobody is killed without a line
            finally:
                await audit.close()
            os.kill(await shard.pid(), signal.SIGKILL)
            return shard.name

        return Services(
            ws_url=self._config.ws_url,
            signing_seed=await signing_seed(catalogue, postgres_url, self._config.master_key),
            catalogue=catalogue,
            journal=journal,
            clock=RealClock(),
            profile=self._system.profile,
            start_recording=start_recording,
            finish_recording=finish_recording,
            kill_shard=kill_shard if self._settings.ray_address is None else None,
            versions={"esplanade": __version__, "python": platform.python_version()},
        )

    def pids(self) -> list[int]:
        """Every process that this service started on this machine."""
        return [*self._node.pids(), *(self._ray.pids() if self._ray is not None else [])]

    async def watch(self, say: Say) -> None:
        """Mind the processes of this machine for as long as the service runs: an embedded server that dies is started again, `say` hears of it and of processes that
        Ray starts again. Raises Unavailable where the service cannot go on: Ray's node broke, or a server dies again and again."""
        assert self._api is not None
        api = self._api
        here = self._settings.ray_address is None
        minded: dict[ProcessHandle, asyncio.Future[None]] = {}
        node = asyncio.ensure_future(self._mind_node(say))
        try:
            while True:
                self._changed.clear()
                ours = {*self._shards, *self._gateways, api} if here else set()
                for gone in minded.keys() - ours:
                    minded.pop(gone).cancel()
                minded |= {process: asyncio.ensure_future(_mind(process, say)) for process in ours - minded.keys()}
                changed: asyncio.Future[Any] = asyncio.ensure_future(self._changed.wait())
                waiting: set[asyncio.Future[Any]] = {node, changed, *minded.values()}
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
                for task in (node, *minded.values()):
                    if task.done():
                        await task
        finally:
            tasks = [node, *minded.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _mind_node(self, say: Say) -> None:
        while True:
            broken = self._ray.broken() if self._ray is not None else None
            if broken is not None:
                raise Unavailable(f"Ray's {broken} died, and its node with it; start again: nothing acknowledged is lost")
            await self._node.mend(say)
            await asyncio.sleep(WATCH_S)

    async def stop(self) -> None:
        """Drain and end everything, the front door first, the directory's lock last. Idempotent. Raises Unavailable where a process cannot be ended."""
        if self._config is not None:
            withdraw(self._settings.data_dir)
        try:
            doors = [*self._gateways, *([] if self._api is None else [self._api])]
            supervisor, self._supervisor = self._supervisor, None
            system, self._system = self._system, None
            for watcher in (supervisor, system):
                if watcher is not None:
                    await watcher.stop()
            shards, self._shards = self._shards, []
            self._gateways, self._api = [], None
            if self._ray is None or self._ray.broken() is None:  # a broken node cannot be asked; its processes are ended below
                await asyncio.gather(*(process.stop() for process in doors))
                await asyncio.gather(*(shard.stop() for shard in shards))
            stores, self._stores = self._stores, None
            broker, self._broker = self._broker, None
            for store in (*(stores or ()), *([broker] if broker is not None else [])):
                with contextlib.suppress(Exception):
                    await store.close()
        finally:
            ray_node, self._ray = self._ray, None
            ends = [self._node.stop(), *([asyncio.to_thread(ray_node.stop)] if ray_node is not None else [])]
            results = await asyncio.gather(*ends, return_exceptions=True)
            self._node.close()
        for result in results:
            if isinstance(result, BaseException):
                raise result


async def _come_up(process: ProcessHandle) -> None:
    """Wait until a process has started; where it does not, nothing of it stays. Raises Unavailable, and what its start raised."""
    try:
        async with asyncio.timeout(READY_S):
            await process.started()
    except BaseException as error:
        await process.stop()
        if isinstance(error, TimeoutError):
            raise Unavailable(f"{process.name} did not start within {READY_S:.0f} s; `esplanade doctor` says what this machine lacks") from error
        raise


def _take_back_signals() -> None:
    """Ray's native part takes SIGTERM when it connects: it would print a stack, pass the signal on, and abort this process three seconds later, whatever is being ended."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
        signal.siginterrupt(signal.SIGTERM, False)


async def _mind(process: ProcessHandle, say: Say) -> None:
    """Say when a process has died, and when Ray's restart of it has come up. Raises what its start raises."""
    pid = await process.pid()
    while True:
        await asyncio.sleep(WATCH_S)
        if psutil.pid_exists(pid):
            continue
        died = time.monotonic()
        say(f"{process.name} (process {pid}) died; Ray starts it again")
        while True:
            try:
                await process.started()
                pid = await process.pid()
                break
            except Unavailable:
                await asyncio.sleep(WATCH_S)
        say(f"{process.name} is back after {time.monotonic() - died:.1f} s")
